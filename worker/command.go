package worker

// This file runs a command for a job: its files before, its words while it runs, its status after.

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet"
)

// runCommand is the Handler of a factory that has a Command.
func (f *factory) runCommand(ctx context.Context, task *Task) (Outcome, error) {
	dir, err := newDirectory(task)
	if err != nil {
		return Outcome{}, err
	}
	if !f.Keep {
		defer dir.remove()
	}
	log, err := newCapture(dir.file("log"), f.output, task.Job.ID)
	if err != nil {
		return Outcome{}, err
	}
	defer log.Close()
	p := process{
		env: f.environ(os.Environ(), task, dir), cwd: f.Cwd, output: log, grace: f.graceFor(), deadline: task.Deadline,
		killed: f.stop.killed, stopFile: dir.file("stop"),
	}
	outcome := f.runHooked(ctx, task, dir, p)
	if tail := log.tail(f.secrets); outcome.Stage == fleet.Failed && tail != "" {
		outcome.Result = withTail(outcome.Result, tail)
	}
	if f.LogURITemplate != "" && ctx.Err() == nil {
		outcome.Artifacts = append(outcome.Artifacts, fleet.ArtifactRequest{Name: "log", Kind: "log", URI: f.logURI(task, dir)})
	}
	return outcome, nil
}

// runHooked runs the command between its hooks.
func (f *factory) runHooked(ctx context.Context, task *Task, dir *directory, p process) Outcome {
	status, ran := f.hook(ctx, "pre-job", p)
	var outcome Outcome
	switch {
	case ran && status == exitTempFail:
		outcome = outcomeOf(status, resultFile{}, task.Run.Attempt)
	case ran && status != 0:
		exit := int64(status)
		outcome = Outcome{Stage: fleet.Failed, Reason: reasonPreJobHook, Exit: &exit}
	default:
		status, outcome = f.runMain(ctx, task, dir, p)
	}
	p.env = append(p.env, "FLEET_EXIT="+strconv.Itoa(status), "FLEET_OUTCOME="+outcomeWord(ctx, outcome))
	// The hook cleans up, also after a job that was stopped: then it has the grace that the command had.
	after := context.WithoutCancel(ctx)
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		after, cancel = context.WithTimeout(after, p.grace)
		defer cancel()
		p.grace = 0
	}
	if status, ran := f.hook(after, "post-job", p); ran && status != 0 {
		f.Log.Warn("the post-job hook did not succeed", "jobId", task.Job.ID, "exit", status)
	}
	return outcome
}

// runMain runs the command itself and listens to it.
func (f *factory) runMain(ctx context.Context, task *Task, dir *directory, p process) (int, Outcome) {
	p.argv = f.Command
	if f.StdinBody {
		p.stdin = task.Job.BodyMd
	}
	kills := oomKills()
	ears := f.listen(ctx, task, dir)
	status, err := p.run(ctx)
	ears.end()
	if err != nil {
		p.output.say(err.Error())
	}
	f.judgeHealth(status)
	result, bad := dir.result()
	if bad != nil {
		exit := int64(status)
		return status, Outcome{
			Stage: fleet.Failed, Reason: reasonBadResult, Exit: &exit, Result: object("error", f.secrets.mask(bad.Error())),
		}
	}
	outcome := outcomeOf(status, result, task.Run.Attempt)
	if outcome.Reason == "signal_KILL" && oomKills() > kills {
		outcome.Reason = reasonOOM
	}
	return status, outcome
}

// judgeHealth takes a command that can't even be started for a fault of this factory: the next job would fail too.
func (f *factory) judgeHealth(status int) {
	health := fleet.HealthOK
	if status == exitNotFound || status == exitNotRunnable {
		health = fleet.HealthDegraded
	}
	f.mu.Lock()
	changed := f.health != health
	f.health = health
	f.mu.Unlock()
	if changed {
		f.Log.Warn("health changed", "health", health, "exit", status)
		f.beatSoon()
	}
}

// hook runs one of the hooks, if there is one.
func (f *factory) hook(ctx context.Context, name string, p process) (status int, ran bool) {
	if f.Hooks == "" {
		return 0, false
	}
	path, err := filepath.Abs(filepath.Join(f.Hooks, name))
	if err != nil {
		return exitNotRunnable, true
	}
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return 0, false
	}
	p.argv = []string{path}
	status, err = p.run(ctx)
	if err != nil {
		p.output.say(err.Error())
	}
	return status, true
}

// outcomeWord is how a run ended, for the post-job hook.
func outcomeWord(ctx context.Context, o Outcome) string {
	switch {
	case ctx.Err() != nil:
		return string(wordFor(context.Cause(ctx)))
	case o.Released:
		return string(fleet.OutcomeReleased)
	case o.Stage == fleet.Failed:
		return string(fleet.OutcomeFailed)
	case o.Stage.Active():
		return string(fleet.OutcomeParked)
	}
	return string(fleet.OutcomeShipped)
}

// logURI is where the log will be found.
func (f *factory) logURI(task *Task, dir *directory) string {
	return strings.NewReplacer(
		"{jobId}", task.Job.ID, "{runId}", task.Run.ID, "{factoryId}", f.FactoryID, "{file}", dir.file("log"),
	).Replace(f.LogURITemplate)
}
