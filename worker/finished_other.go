//go:build !linux

package worker

// This file tells whether a process has ended, where the kernel is not asked without waiting for it.

import (
	"errors"
	"os"
	"syscall"
)

// finished reports whether a child has ended and was waited for.
func finished(p *os.Process) bool { return errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone) }
