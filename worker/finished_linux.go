package worker

// This file tells whether a process has ended, also in the moment before it is waited for.

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// finished reports whether a child has ended, waited for or not.
func finished(p *os.Process) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD) || err == nil && info.Signo != 0
}
