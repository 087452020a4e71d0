package main

// This file tests what a script can't: a load that somebody interrupts.

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Whoever interrupts a load sees what was measured so far and the status 130, and nothing unfinished is left.
func TestBenchInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a node")
	}
	env := sharedNode(t).env(t, "loaded")
	list := func(args ...string) string {
		c := self(env, append([]string{"job", "list", "-q"}, args...)...)
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	c := self(env, "bench", "--product", "loaded", "--backlog", "50", "--duration", "1h")
	out, talk := new(lockedBuffer), new(lockedBuffer)
	c.Stdout, c.Stderr = out, talk
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	killer := time.AfterFunc(60*time.Second, func() { _ = c.Process.Kill() })
	defer killer.Stop()
	defer func() { _ = c.Process.Kill() }() // if it did not end
	for list("--stage", "shipped", "--limit", "1") == "" {
		if time.Since(began) > 60*time.Second {
			t.Fatalf("no job is shipped after 60 s\n%s", talk.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = c.Process.Signal(os.Interrupt)
	_ = c.Wait()
	if got := c.ProcessState.ExitCode(); got != exitInterrupted {
		t.Errorf("got the status %d, want %d\n%s", got, exitInterrupted, talk.String())
	}
	if got := talk.String(); got != "fleet-node: interrupted\n" {
		t.Errorf("got %q on stderr, want no progress where there is no terminal", got)
	}
	if !strings.Contains(out.String(), "\ncycle ") {
		t.Errorf("got %q, want what was measured so far", out.String())
	}
	for _, stage := range []string{"queued", "assigned", "building", "review", "testing"} {
		if left := list("--stage", stage); left != "" {
			t.Errorf("got %s left %s, want none", left, stage)
		}
	}
}
