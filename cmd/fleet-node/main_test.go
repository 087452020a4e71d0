package main

// This file runs the stories of the command line: testdata/script, a file each.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleet-node": main})
}

func TestScripts(t *testing.T) {
	refusing := refusingServer(t)
	shared := sharedNode(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			ports, err := freePorts(0) // scripts run side by side
			if err != nil {
				return err
			}
			for i, suffix := range []string{"", "2", "3"} {
				e.Setenv("HTTP"+suffix, local(ports[i].http))
				e.Setenv("NODE"+suffix, local(ports[i].node))
				e.Setenv("GOSSIP"+suffix, local(ports[i].gossip))
			}
			e.Setenv("REFUSING", refusing)
			e.Setenv("CLUSTER", shared.addr)
			e.Setenv("ROOT", rootToken)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Condition: func(word string) (bool, error) {
			if word != "root" {
				return false, fmt.Errorf("unknown condition %q", word)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"ready":   ready,
			"listens": listens,
			"api":     api,
			"until":   until,
			"damage":  damage,
		},
	})
}

// exits STATUS COMMAND [ARGS…] wants exactly this exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARGS…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("got exit status %d, want %d", got, want)
	}
}

// ready HOST:PORT waits until a node is.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready HOST:PORT")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + args[0] + "/readyz")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("%s is not ready after 30 s", args[0])
}

// listens HOST:PORT takes the port until the end of the script.
func listens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listens HOST:PORT")
	}
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

// [!] api METHOD PATH [BODY] calls the cluster of FLEET_ADDR as FLEET_TOKEN about FLEET_PRODUCT, wants a success, or a refusal, and
// writes what it was answered. {key:K} in the path is the id of the job with that key.
func api(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] api METHOD PATH [BODY]")
	}
	path := args[1]
	if before, rest, ok := strings.Cut(path, "{key:"); ok {
		key, after, _ := strings.Cut(rest, "}")
		_, found := answerOf(ts, "GET", "/fleet/jobs?idempotencyKey="+key, "")
		id := regexp.MustCompile(`"id":"(\w+)"`).FindSubmatch(found)
		if id == nil {
			ts.Fatalf("no job has the key %s: %s", key, found)
		}
		path = before + string(id[1]) + after
	}
	status, body := answerOf(ts, args[0], path, strings.Join(args[2:], " "))
	fmt.Fprintf(ts.Stdout(), "%s\n", body)
	if (status >= 300) != neg {
		ts.Fatalf("%d: %s", status, body)
	}
}

func answerOf(ts *testscript.TestScript, method, path, body string) (int, []byte) {
	request, err := http.NewRequest(method, "http://"+ts.Getenv("FLEET_ADDR")+path, strings.NewReader(body))
	ts.Check(err)
	request.Header.Set("Authorization", "Bearer "+ts.Getenv("FLEET_TOKEN"))
	request.Header.Set("X-Product-Id", ts.Getenv("FLEET_PRODUCT"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	ts.Check(err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	ts.Check(err)
	return response.StatusCode, answer
}

// until PATTERN COMMAND [ARGS…] runs a command until what it writes matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND [ARGS…]")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // it may fail until the time has come
		if pattern.MatchString(ts.ReadFile("stdout")) || pattern.MatchString(ts.ReadFile("stderr")) {
			return
		}
	}
	ts.Fatalf("no %q after 30 s", args[0])
}

// damage PATTERN OFFSET turns every bit of a byte in the one file that matches.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage PATTERN OFFSET")
	}
	paths, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	if len(paths) != 1 {
		ts.Fatalf("got the files %q, want one", paths)
	}
	b, err := os.ReadFile(paths[0])
	ts.Check(err)
	b[offset] ^= 0xff
	ts.Check(os.WriteFile(paths[0], b, 0o600))
}

// refusingServer answers every call with the problem that the product names.
func refusingServer(t *testing.T) string {
	statuses := map[string]int{"unauthenticated": 401, "forbidden": 403, "not_found": 404, "illegal_transition": 409, "version_mismatch": 412, "invalid": 422}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := r.Header.Get("X-Product-Id")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(statuses[code])
		fmt.Fprintf(w, `{"code":%q,"detail":"so it is"}`, code)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// What a settings file may hold is tested on the agent's flags; what dev leaves for clients, here.
func TestContextFile(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, name := range []string{"FLEET_ADDR", "FLEET_TOKEN", "FLEET_TOKEN_FILE", "FLEET_PRODUCT", "FLEET_CA_FILE"} {
		t.Setenv(name, "")
	}
	forget, err := writeContext("http://127.0.0.1:9", "secret", "demo")
	if err != nil {
		t.Fatal(err)
	}
	path, _ := contextPath()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file of mode 0600", st, err)
	}
	var saved connection
	if err := saved.resolve(); err != nil || saved.addr != "http://127.0.0.1:9" || saved.token != "secret" || saved.product != "demo" {
		t.Errorf("got %+v, %v, want what the file says", saved, err)
	}
	elsewhere := connection{addr: "other:1"}
	if err := elsewhere.resolve(); err != nil || elsewhere.addr != "other:1" || elsewhere.token != "" || elsewhere.product != "" {
		t.Errorf("got %+v, %v, want another cluster not to be sent this one's token and product", elsewhere, err)
	}
	forget()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("got %v, want no file any more", err)
	}
}
