package main

// This file runs agents as processes, each of the release that a test names, and calls them.

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownBinary is this build's.
const ownBinary = ""

// agents are the nodes of one cluster.
type agents struct {
	t    *testing.T
	dir  string
	n    int
	at   [devNodes]ports
	runs [devNodes]*exec.Cmd // nil: down
	logs [devNodes]lockedBuffer
}

// newAgents are n nodes that are down, with data directories n1, n2, … in dir.
func newAgents(t *testing.T, dir string, n int) *agents {
	t.Helper()
	all, err := freePorts(0)
	if err != nil {
		t.Fatal(err)
	}
	a := &agents{t: t, dir: dir, n: n, at: all}
	t.Cleanup(func() {
		for _, run := range a.runs {
			if run != nil {
				_ = run.Process.Kill()
				_ = run.Wait()
			}
		}
	})
	return a
}

func (a *agents) start(i int, binary string) {
	a.t.Helper()
	var join []string
	for _, p := range a.at[:a.n] {
		join = append(join, local(p.gossip))
	}
	p := a.at[i]
	run := self([]string{"FLEET_ROOT_TOKEN=" + rootToken}, "agent", "--name", fmt.Sprintf("n%d", i+1), "--data-dir", filepath.Join(a.dir, fmt.Sprintf("n%d", i+1)),
		"--bootstrap-expect", fmt.Sprint(a.n), "--join", strings.Join(join, ","),
		"--http-addr", local(p.http), "--node-addr", local(p.node), "--gossip-addr", local(p.gossip), "--timing", "local")
	if binary != ownBinary {
		run.Path = binary
	}
	run.Stdout, run.Stderr = &a.logs[i], &a.logs[i]
	if err := run.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.runs[i] = run
}

// stop ends a node as an operator does.
func (a *agents) stop(i int) {
	a.t.Helper()
	_ = a.runs[i].Process.Signal(syscall.SIGTERM)
	if status := a.wait(i); status != exitDone {
		a.t.Errorf("n%d ended with status %d\n%s", i+1, status, a.logs[i].String())
	}
}

// wait waits until a node has ended.
func (a *agents) wait(i int) int {
	a.t.Helper()
	killer := time.AfterFunc(time.Minute, func() { _ = a.runs[i].Process.Kill() })
	defer killer.Stop()
	_ = a.runs[i].Wait()
	status := a.runs[i].ProcessState.ExitCode()
	a.runs[i] = nil
	return status
}

// ready waits until a node is.
func (a *agents) ready(i int) {
	a.t.Helper()
	a.until(fmt.Sprintf("n%d is ready", i+1), func() bool { status, _ := a.call(i, "GET", "/readyz", "", ""); return status == http.StatusOK })
}

func (a *agents) until(what string, condition func() bool) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			for i := range a.n {
				a.t.Logf("n%d:\n%s", i+1, a.logs[i].String())
			}
			a.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// call calls a node as root. The key is an Idempotency-Key or nothing. Status 0: it was not answered.
func (a *agents) call(i int, method, path, body, key string) (int, []byte) {
	request, err := http.NewRequest(method, "http://"+local(a.at[i].http)+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+rootToken)
	request.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(path, "/fleet/") {
		request.Header.Set("X-Product-Id", "demo")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return response.StatusCode, b
}

// level is the one that a node has reached, 1 if its release does not know of levels.
func (a *agents) level(i int) string {
	_, metrics := a.call(i, "GET", "/metrics", "", "")
	for line := range strings.Lines(string(metrics)) {
		if level, ok := strings.CutPrefix(line, "fleet_level "); ok {
			return strings.TrimSpace(level)
		}
	}
	return "1"
}

// fixtures is where data directories of releases are kept.
func fixtures() string { return filepath.Join("testdata", "releases") }

// oldBinary is the release before, which the environment names; the test is skipped without one.
func oldBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FLEET_OLD_BINARY")
	if path == "" {
		t.Skip("FLEET_OLD_BINARY names no binary of the release before")
	}
	return path
}
