package worker

// This file is one process and all that it starts: a process group that is dead when run returns.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// drainWait is how long output is read on after a process has ended while something it started holds the pipe.
const drainWait = time.Second

// process is what to run, and how it is stopped.
type process struct {
	argv     []string
	env      []string
	cwd      string
	stdin    string
	output   *capture
	grace    time.Duration     // between SIGTERM and SIGKILL
	deadline func() time.Time  // SIGKILL is never later: the lease ends
	killed   <-chan struct{}   // closed: SIGKILL now
	warn     func(cause error) // says why, before SIGTERM
}

// ending is how a process ended.
type ending struct {
	status  int  // as a shell shows it
	stopped bool // it was told to, or never began: its status is no verdict on the work
}

// run starts the process in a group of its own and waits for its end. When ctx ends the group gets SIGTERM, and then
// SIGKILL. Whatever is left of the group when the process has ended is killed: a grandchild that ignores SIGTERM and
// holds the output would else outlive its job, or keep it from ending. (One that calls setsid escapes; that is for the
// service manager.) An error says why it could not be started.
func (p process) run(ctx context.Context) (ending, error) {
	if ctx.Err() != nil {
		return ending{exitSignal + int(syscall.SIGTERM), true}, nil
	}
	if err := p.checkDirectory(); err != nil {
		return ending{status: exitNotRunnable}, err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Dir = p.env, p.cwd
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = drainWait
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if p.stdin != "" {
		cmd.Stdin = strings.NewReader(p.stdin)
	}
	if err := cmd.Start(); err != nil {
		return ending{status: startStatus(err)}, err
	}
	ended := make(chan struct{})
	stopped := make(chan bool)
	go func() { stopped <- p.stop(ctx, cmd.Process, ended) }()
	// A process that left its output to others, or did not read its input, has ended all the same.
	_ = cmd.Wait()
	close(ended)
	e := ending{stopped: <-stopped}
	signalGroup(cmd.Process, syscall.SIGKILL)
	e.status = exitStatus(cmd.ProcessState)
	return e, nil
}

// stop brings the group to an end when ctx does, and reports true, unless the process ends first.
func (p process) stop(ctx context.Context, leader *os.Process, ended <-chan struct{}) bool {
	select {
	case <-ended:
		return false
	case <-p.killed:
	case <-ctx.Done():
		if finished(leader) { // and something that it started holds its output
			return false
		}
		p.warn(context.Cause(ctx))
		signalGroup(leader, syscall.SIGTERM)
		if p.awaitEnd(ended) {
			return true
		}
	}
	signalGroup(leader, syscall.SIGKILL)
	return true
}

// awaitEnd reports whether the process ends within the grace. The lease cuts it short, but may be renewed meanwhile.
func (p process) awaitEnd(ended <-chan struct{}) bool {
	for over := time.Now().Add(p.grace); ; {
		left := min(time.Until(over), time.Until(p.deadline()))
		if left <= 0 {
			return false
		}
		select {
		case <-ended:
			return true
		case <-p.killed:
			return false
		case <-time.After(left):
		}
	}
}

func signalGroup(leader *os.Process, s syscall.Signal) { _ = syscall.Kill(-leader.Pid, s) }

// startStatus is the status that a shell would give a command that can't be started.
func startStatus(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitNotRunnable
}

// checkDirectory tells a directory that is missing from a command that is: the kernel calls both by one name.
func (p process) checkDirectory() error {
	st, err := os.Stat(p.cwd)
	switch {
	case p.cwd == "":
		return nil
	case err != nil:
		return fmt.Errorf("the command's directory: %w", err)
	case !st.IsDir():
		return fmt.Errorf("the command's directory: %s is none", p.cwd)
	}
	return nil
}
