package main

// This file is one node for all stories that don't stop it, each in a product of its own; and the stories that need more
// than a script can say.

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const rootToken = "secret-of-the-stories"

// shared is a running node.
type shared struct{ addr string }

// self runs this binary as fleet-node.
func self(env []string, args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return &exec.Cmd{Path: path, Args: append([]string{"fleet-node"}, args...), Env: append(os.Environ(), env...)}
}

// sharedNode starts a cluster of one for the time of the test.
func sharedNode(t *testing.T) shared {
	t.Helper()
	all, err := freePorts(0)
	if err != nil {
		t.Fatal(err)
	}
	p := all[0]
	node := self([]string{"FLEET_ROOT_TOKEN=" + rootToken}, "agent", "--name", "shared", "--data-dir", t.TempDir(), "--bootstrap-expect", "1",
		"--http-addr", local(p.http), "--node-addr", local(p.node), "--gossip-addr", local(p.gossip), "--timing", "lan")
	log := new(lockedBuffer)
	node.Stdout, node.Stderr = log, log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Signal(syscall.SIGTERM)
		if err := node.Wait(); err != nil {
			t.Errorf("the shared node ended with %v\n%s", err, log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + local(p.http) + "/readyz")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return shared{local(p.http)}
		}
	}
	t.Fatalf("the shared node is not ready after 30 s\n%s", log.String())
	return shared{}
}

// lockedBuffer is what a process has written so far.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is what a client of the node needs, in a product.
func (s shared) env(t *testing.T, product string) []string {
	return []string{"FLEET_ADDR=" + s.addr, "FLEET_TOKEN=" + rootToken, "FLEET_PRODUCT=" + product, "XDG_CONFIG_HOME=" + t.TempDir()}
}

// Whoever interrupts a command that follows something sees 130, and the job goes on.
func TestInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a node")
	}
	node := sharedNode(t)
	env := node.env(t, "interrupted")
	submit := self(env, "job", "submit", "-q", "-")
	submit.Stdin = strings.NewReader("work")
	id, err := submit.Output()
	if err != nil {
		t.Fatal(err)
	}
	job := strings.TrimSpace(string(id))
	for _, args := range [][]string{
		{"job", "watch", job},
		{"job", "events", job, "--follow"},
		{"job", "events", "--follow", "--after", "0"},
	} {
		c := self(env, args...)
		out, talk := new(lockedBuffer), new(lockedBuffer)
		c.Stdout, c.Stderr = out, talk
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		killer := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
		for !strings.Contains(out.String(), "submitted") && killer.Stop() {
			killer.Reset(30 * time.Second)
			time.Sleep(10 * time.Millisecond)
		}
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
		killer.Stop()
		if got := c.ProcessState.ExitCode(); got != exitInterrupted {
			t.Errorf("%v: got the status %d, want %d\n%s", args, got, exitInterrupted, talk.String())
		}
		if args[1] == "watch" && !strings.Contains(talk.String(), "the job goes on; watch it again with fleet-node job watch "+job) {
			t.Errorf("%v: got %q, want to hear that the job goes on", args, talk.String())
		}
	}
}

// Without a go command and a module dev still ships its first job, and leaves no process and no file behind.
func TestDevOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	temp, config := t.TempDir(), t.TempDir()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(shell, filepath.Join(bin, "sh")); err != nil {
		t.Fatal(err)
	}
	c := self([]string{"PATH=" + bin, "TMPDIR=" + temp, "XDG_CONFIG_HOME=" + config}, "dev", "--once")
	c.Dir = t.TempDir()
	var out, talk bytes.Buffer
	c.Stdout, c.Stderr = &out, &talk
	if err := c.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), talk.String())
	}
	for _, want := range []string{"  url      http://127.0.0.1:", "  token    dev_", "  product  demo", "7 packages, each done exactly once", "7 jobs, 7 attempts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // there are none where the system has no such files
	for _, path := range environments {
		if environment, err := os.ReadFile(path); err == nil && bytes.Contains(environment, []byte("TMPDIR="+temp+"\x00")) {
			t.Errorf("%s: got a process, want none left", filepath.Dir(path))
		}
	}
	for _, dir := range []string{temp, filepath.Join(config, "fleet")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: got %v, %v, want nothing left", dir, left, err)
		}
	}
}

// Ctrl-C while a job runs: the factory gives it back before the nodes end, and nothing is left.
func TestDevInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	temp, config, bin := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{"sh", "sleep"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + bin, "TMPDIR=" + temp, "XDG_CONFIG_HOME=" + config}
	c := self(env, "dev")
	c.Dir = t.TempDir()
	var talk bytes.Buffer
	c.Stdout, c.Stderr = &talk, &talk
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- c.Wait() }()
	killer := time.AfterFunc(2*time.Minute, func() { _ = c.Process.Kill() })
	defer killer.Stop()
	begun := filepath.Join(c.Dir, "begun")
	until := func(what string, condition func() bool) {
		for end := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited a minute in vain until %s", what)
			}
		}
	}
	until("it takes a job", func() bool {
		submit := self(env, "job", "submit", "-")
		submit.Stdin = strings.NewReader("touch=" + begun + "; : >$touch; sleep 300")
		return submit.Run() == nil
	})
	until("the job runs", func() bool { _, err := os.Stat(begun); return err == nil })
	if runs, _ := filepath.Glob(filepath.Join(temp, "fleet-run-*")); len(runs) == 0 {
		t.Fatal("got no directory of a run, want one: the test looks for it in the wrong place")
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
	case <-time.After(time.Minute):
		t.Fatal("it runs a minute after Ctrl-C")
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v, want nothing left\n%s", left, err, talk.String())
	}
}
