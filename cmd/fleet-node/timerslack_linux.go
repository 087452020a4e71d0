package main

// This file lets the kernel wake an agent's threads a little late. The Go runtime has a thread that looks after the others every 20 µs,
// until nothing has happened for 1 ms; a node works in bursts of less, so that up to a quarter of its processor time went there.

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late a timer may be, and defaultTimerSlack what the kernel gives a process about which nobody says anything. All
// that a node waits for by a timer is in milliseconds.
const (
	timerSlack        = time.Millisecond
	defaultTimerSlack = 50 * time.Microsecond
)

// allowTimerSlack starts this process anew, with its arguments, where the slack is the kernel's default: the runtime's threads are there
// already and keep theirs, but an exec takes this thread's along. It returns where there is nothing to do, or nothing can be done.
func allowTimerSlack() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack := func() time.Duration {
		ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			return 0
		}
		return time.Duration(ns)
	}
	if slack() != defaultTimerSlack || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil || slack() != timerSlack {
		return
	}
	if program, err := os.Executable(); err == nil {
		_ = unix.Exec(program, os.Args, os.Environ())
	}
}
