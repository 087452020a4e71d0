package main

// This file asks the kernel how late it may wake an agent's threads.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// All threads of an agent have its timer slack, and its process is the one that was started.
func TestAgentAllowsTimerSlack(t *testing.T) {
	slackOf := func(thread string) time.Duration {
		b, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			t.Skipf("this kernel does not say it: %v", err)
		}
		ns, err := time.ParseDuration(strings.TrimSpace(string(b)) + "ns")
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	if own := slackOf("self"); own != defaultTimerSlack {
		t.Skipf("somebody has said how much slack this process has: %s", own)
	}
	a := newAgents(t, t.TempDir(), 1)
	a.start(0, ownBinary)
	a.ready(0)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", a.runs[0].Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if got := slackOf(thread.Name()); got != timerSlack {
			t.Errorf("thread %s: got %s, want %s", thread.Name(), got, timerSlack)
		}
	}
	a.stop(0)
}
