package worker

// This file turns how a command ended into what is reported: one table.

import (
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lysnrai/fleet"
)

// Exit statuses with a meaning of their own, and the reasons that are not exit_<n> or signal_<NAME>.
const (
	exitTempFail    = 75 // EX_TEMPFAIL of sysexits.h
	exitConfig      = 78 // EX_CONFIG
	exitTimeout     = 124
	exitNotRunnable = 126
	exitNotFound    = 127
	exitSignal      = 128 // plus the signal's number

	reasonError       = "error" // of a Go handler, as panic
	reasonPanic       = "panic"
	reasonBadConfig   = "bad_config"
	reasonBadResult   = "bad_result"
	reasonTimeout     = "timeout"
	reasonNotRunnable = "command_not_runnable"
	reasonNotFound    = "command_not_found"
	reasonKilled      = "signal_KILL"
	reasonOOM         = "oom_killed"
	reasonPreJobHook  = "pre_job_hook"
)

// exitStatus is a command's status as a shell shows it.
func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return state.ExitCode()
}

// outcomeOf is what a command's status and result file come to.
func outcomeOf(status int, r resultFile, attempt int64) Outcome {
	exit := int64(status)
	o := Outcome{
		Exit: &exit, Stage: r.Stage, Reason: r.Reason, Result: r.Result, VerifyResult: r.VerifyResult,
		Insights: r.Insights, Artifacts: r.Artifacts,
	}
	switch {
	case status == 0:
		return o
	case status == exitTempFail:
		o.Released, o.Delay = true, retryDelay(attempt)
		return o
	}
	o.Stage = fleet.Failed
	switch fixed := reasonFor(status); {
	case fixed != "":
		o.Reason = fixed
	case o.Reason == "":
		o.Reason = "exit_" + strconv.Itoa(status)
	}
	return o
}

// fileCounts reports whether a status leaves something for the result file to say.
func fileCounts(status int) bool { return status != exitTempFail && reasonFor(status) == "" }

// reasonFor is the reason that a status stands for, empty if the command may name its own.
func reasonFor(status int) string {
	switch status {
	case exitConfig:
		return reasonBadConfig
	case exitTimeout:
		return reasonTimeout
	case exitNotRunnable:
		return reasonNotRunnable
	case exitNotFound:
		return reasonNotFound
	}
	if status > exitSignal {
		return signalReason(syscall.Signal(status - exitSignal))
	}
	return ""
}

// signalReason is signal_KILL and the like, empty for what is no signal.
func signalReason(s syscall.Signal) string {
	name := unix.SignalName(s)
	if len(name) < 4 {
		return ""
	}
	return "signal_" + name[len("SIG"):]
}

// retryDelay keeps a job that can't be done now from going round and round before everything behind it.
func retryDelay(attempt int64) time.Duration {
	const first, most = 5 * time.Second, 300 * time.Second
	if attempt > 7 {
		return most
	}
	return min(most, first<<max(0, attempt-1))
}
