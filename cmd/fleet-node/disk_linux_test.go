package main

// This file fills a real disk under a real node, and frees it again.

import (
	"encoding/json"
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

// smallDisk mounts a disk of 48 MiB for the time of the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("mounting a small disk needs root and the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// leaveFree writes a ballast file that leaves so many bytes, none at all for none.
func leaveFree(t *testing.T, dir string, bytes int64) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(s.Bavail)*s.Bsize-bytes); err != nil {
		t.Fatal(err)
	}
}

// diskNode is a cluster of one on a small disk.
type diskNode struct {
	t       *testing.T
	dir     string
	http    string
	process *exec.Cmd
	log     lockedBuffer
}

func (n *diskNode) start() {
	n.t.Helper()
	all, err := freePorts(0)
	if err != nil {
		n.t.Fatal(err)
	}
	p := all[0]
	n.http = "http://" + local(p.http)
	n.process = self([]string{"FLEET_ROOT_TOKEN=" + rootToken}, "agent", "--name", "full", "--data-dir", n.dir, "--bootstrap-expect", "1",
		"--http-addr", local(p.http), "--node-addr", local(p.node), "--gossip-addr", local(p.gossip), "--timing", "local")
	n.process.Stdout, n.process.Stderr = &n.log, &n.log
	if err := n.process.Start(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *diskNode) stop() {
	_ = n.process.Process.Signal(syscall.SIGTERM)
	if err := n.process.Wait(); err != nil {
		n.t.Errorf("the node ended with %v\n%s", err, n.log.String())
	}
}

func (n *diskNode) call(method, path, body string) (int, http.Header, string) {
	n.t.Helper()
	request, err := http.NewRequest(method, n.http+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+rootToken)
	request.Header.Set("X-Product-Id", "disk")
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(b)
}

// until calls until the answer has a status and a text, and returns its header.
func (n *diskNode) until(what, method, path, body string, status int, text string) http.Header {
	n.t.Helper()
	var got string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		code, header, answer := n.call(method, path, body)
		if code == status && strings.Contains(answer, text) {
			return header
		}
		got = fmt.Sprint(code, " ", answer)
	}
	n.t.Fatalf("%s: waited in vain for %d with %q, got %s\n%s", what, status, text, got, n.log.String())
	return nil
}

// A node on a disk that fills refuses new work below its reserve, everything below half of it, and survives a disk without one free byte.
// Once there is room it goes on, without a restart.
func TestDiskFills(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a node")
	}
	dir := smallDisk(t)
	n := &diskNode{t: t, dir: filepath.Join(dir, "data")}
	n.start()
	t.Cleanup(n.stop)
	const submission, heartbeat = `{"bodyMd":"x"}`, `{"factoryId":"f1","seatLimit":2}`
	n.until("with room", "GET", "/readyz", "", 200, "true")
	n.until("with room", "POST", "/fleet/jobs", submission, 201, "queued")

	leaveFree(t, dir, 24<<20)
	n.until("below the reserve", "GET", "/readyz", "", 503, `"reason":"disk"`)
	if header := n.until("below the reserve", "POST", "/fleet/jobs", submission, 503, `"disk_full"`); header.Get("Retry-After") == "" {
		t.Error("disk_full without a Retry-After")
	}
	if code, _, answer := n.call("POST", "/fleet/factories/heartbeat", heartbeat); code != 200 {
		t.Errorf("a heartbeat below the reserve: got %d %s, want it to go on", code, answer)
	}
	n.until("below the reserve", "GET", "/metrics", "", 200, "fleet_disk_reserve_bytes 3.3554432e+07")

	leaveFree(t, dir, 12<<20)
	n.until("below half of it", "POST", "/fleet/factories/heartbeat", heartbeat, 503, `"disk_full"`)
	leaveFree(t, dir, 0)
	for range 50 { // nothing of this may reach the log
		if code, _, answer := n.call("POST", "/fleet/factories/heartbeat", heartbeat); code != 503 {
			t.Fatalf("a heartbeat on a full disk: got %d %s, want 503", code, answer)
		}
	}
	n.until("on a full disk", "GET", "/fleet/jobs", "", 200, "queued")

	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	n.until("with room again", "GET", "/readyz", "", 200, "true")
	n.until("with room again", "POST", "/fleet/jobs", submission, 201, "queued")
	if said := strings.Count(n.log.String(), "short of room"); said < 1 || said > 2 {
		t.Errorf("it said %d times that it is short of room, want once a minute\n%s", said, n.log.String())
	}
}

// A disk that fills faster than anybody looks ends the node with 6. Once there is room it starts again, with all that it acknowledged.
func TestDiskFillsInAMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a node")
	}
	dir := smallDisk(t)
	n := &diskNode{t: t, dir: filepath.Join(dir, "data")}
	n.start()
	n.until("with room", "GET", "/readyz", "", 200, "true")
	leaveFree(t, dir, 0)
	acknowledged, big := 0, `{"bodyMd":"`+strings.Repeat("x", 200_000)+`"}`
	code := 0
	for range 200 {
		if code, _, _ = n.call("POST", "/fleet/jobs", big); code != 201 {
			break
		}
		acknowledged++
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	if code == 503 { // it has looked in time
		t.Cleanup(n.stop)
	} else {
		_ = n.process.Wait()
		if got := n.process.ProcessState.ExitCode(); got != exitStorage {
			t.Fatalf("got the status %d, want %d\n%s", got, exitStorage, n.log.String())
		}
		n.start()
		t.Cleanup(n.stop)
	}
	n.until("with room again", "GET", "/readyz", "", 200, "true")
	n.until("with room again", "POST", "/fleet/jobs", `{"bodyMd":"x"}`, 201, "queued")
	_, _, stats := n.call("GET", "/fleet/stats", "")
	var got struct {
		Stages struct {
			Queued int `json:"queued"`
		} `json:"stages"`
	}
	// The call whose outcome was not known may be there too.
	if err := json.Unmarshal([]byte(stats), &got); err != nil || got.Stages.Queued < acknowledged+1 || got.Stages.Queued > acknowledged+2 {
		t.Errorf("%d jobs were acknowledged, and one later: got %s, %v", acknowledged, stats, err)
	}
	t.Logf("%d jobs were acknowledged before %d", acknowledged, code)
}
