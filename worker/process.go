package worker

// This file is one process and all that it starts: a process group that is dead when run returns.

import (
	"context"
	"errors"
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
	grace    time.Duration    // between SIGTERM and SIGKILL
	deadline func() time.Time // SIGKILL is never later: the lease ends
	killed   <-chan struct{}  // closed: SIGKILL now
	stopFile string           // says why, before SIGTERM
}

// run starts the process in a group of its own and returns its status as a shell shows it. When ctx ends the group gets
// SIGTERM, and then SIGKILL. Whatever is left of the group when the process has ended is killed: a grandchild that
// ignores SIGTERM and holds the output would else outlive its job, or keep it from ending. (One that calls setsid
// escapes; that is for the service manager.) An error says why it could not be started.
func (p process) run(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		return exitSignal + int(syscall.SIGTERM), nil
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
		return startStatus(err), err
	}
	group := -cmd.Process.Pid
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop(ctx, group, ended)
	}()
	// A process that left its output to others, or did not read its input, has ended all the same.
	_ = cmd.Wait()
	close(ended)
	<-stopped
	_ = syscall.Kill(group, syscall.SIGKILL)
	return exitStatus(cmd.ProcessState), nil
}

// stop brings the group to an end when ctx does, unless the process ends first.
func (p process) stop(ctx context.Context, group int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-p.killed:
	case <-ctx.Done():
		_ = os.WriteFile(p.stopFile, []byte(wordFor(context.Cause(ctx))), 0o600)
		_ = syscall.Kill(group, syscall.SIGTERM)
		timer := time.NewTimer(min(p.grace, time.Until(p.deadline())))
		defer timer.Stop()
		select {
		case <-ended:
			return
		case <-p.killed:
		case <-timer.C:
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
}

// startStatus is the status that a shell would give a command that can't be started.
func startStatus(err error) int {
	var path *fs.PathError
	if errors.As(err, &path) && path.Op == "chdir" {
		return exitNotRunnable // the directory is missing, not the command
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitNotRunnable
}
