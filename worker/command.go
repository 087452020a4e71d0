package worker

// This file runs a command for a job: its files before, its words while it runs, its status after.

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lysnrai/fleet"
)

// runCommand is the Handler of a factory that has a Command. An error is the cause for which it was interrupted.
func (f *factory) runCommand(ctx context.Context, task *Task) (Outcome, error) {
	dir, err := newDirectory(task)
	if err != nil {
		return f.unable(task, err), nil
	}
	if !f.Keep {
		task.cleanup = dir.remove // after the report
	}
	log, err := newCapture(dir.file("log"), f.output, task.Job.ID)
	if err != nil {
		return f.unable(task, err), nil
	}
	p := process{
		env: f.environ(os.Environ(), task, dir), cwd: f.Cwd, output: log, grace: f.Grace,
		deadline: func() time.Time { return task.Deadline().Add(-f.lastMoment()) },
		killed:   f.stop.killed.Done(), warn: func(cause error) { _ = dir.write("stop", []byte(task.stopWord(cause))) },
	}
	outcome, interrupted := f.runHooked(ctx, task, dir, p)
	if err := log.Close(); err != nil {
		f.Log.Warn("closing the log file", "jobId", task.Job.ID, "error", err)
	}
	if interrupted {
		return Outcome{}, context.Cause(ctx)
	}
	if tail := log.tail(f.secrets); outcome.Stage == fleet.Failed && tail != "" {
		outcome.Result = withTail(outcome.Result, tail)
	}
	if f.LogURITemplate != "" {
		outcome.Artifacts = append(outcome.Artifacts, fleet.ArtifactRequest{Name: "log", Kind: "log", URI: f.logURI(task, dir)})
	}
	return outcome, nil
}

// lastMoment is how long before its lease ends a command is dead at the latest: to kill takes a moment too.
func (f *factory) lastMoment() time.Duration { return min(time.Second, f.Lease/20) }

// unable gives a job back that this factory can't begin: a full disk here is no failure of the job.
func (f *factory) unable(task *Task, err error) Outcome {
	f.Log.Error("preparing a run", "jobId", task.Job.ID, "error", err)
	f.setHealth(fleet.HealthDegraded)
	return Outcome{Released: true, Delay: retryDelay(task.Run.Attempt)}
}

// runHooked runs the command between its hooks.
func (f *factory) runHooked(ctx context.Context, task *Task, dir *directory, p process) (outcome Outcome, interrupted bool) {
	e, ran := f.hook(ctx, "pre-job", p)
	switch {
	case ran && e.stopped:
	case ran && e.status == exitTempFail:
		outcome = outcomeOf(e.status, resultFile{}, task.Run.Attempt)
	case ran && e.status != 0:
		exit := int64(e.status)
		outcome = Outcome{Stage: fleet.Failed, Reason: reasonPreJobHook, Exit: &exit}
	default:
		e, outcome = f.runMain(ctx, task, dir, p)
	}
	word := outcome.word()
	if e.stopped {
		word = string(task.stopWord(context.Cause(ctx)))
	}
	p.env = append(p.env, "FLEET_EXIT="+strconv.Itoa(e.status), "FLEET_OUTCOME="+word)
	f.postJob(ctx, task, p)
	return outcome, e.stopped
}

// postJob runs the hook that cleans up, also after a job that was stopped: then it has the grace that the command had.
func (f *factory) postJob(ctx context.Context, task *Task, p process) {
	grace := p.grace
	after, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-after.Done():
		case <-time.After(grace):
			end(context.Cause(ctx))
		}
	})()
	p.grace = 0
	if e, ran := f.hook(after, "post-job", p); ran && e.status != 0 {
		f.Log.Warn("the post-job hook did not succeed", "jobId", task.Job.ID, "exit", e.status)
	}
}

// runMain runs the command itself and listens to it.
func (f *factory) runMain(ctx context.Context, task *Task, dir *directory, p process) (ending, Outcome) {
	p.argv = f.Command
	if f.StdinBody {
		p.stdin = task.Job.BodyMd
	}
	kills := oomKills("/")
	ears := f.listen(ctx, task, dir)
	e, err := p.run(ctx)
	ears.end()
	if err != nil {
		p.output.say(err.Error())
	}
	if e.stopped {
		return e, Outcome{}
	}
	f.judgeHealth(e.status)
	result, bad := dir.result()
	if bad != nil && fileCounts(e.status) {
		exit := int64(e.status)
		return e, Outcome{
			Stage: fleet.Failed, Reason: reasonBadResult, Exit: &exit, Result: object("error", f.secrets.mask(bad.Error())),
		}
	}
	for name := range result.Unknown {
		p.output.say("the result file has a member " + strconv.Quote(name) + ", which means nothing")
	}
	return e, blameMemory(outcomeOf(e.status, result, task.Run.Attempt), kills, oomKills("/"))
}

// judgeHealth takes a command that can't even be started for a fault of this factory: the next job would fail too.
func (f *factory) judgeHealth(status int) {
	if status == exitNotFound || status == exitNotRunnable {
		f.setHealth(fleet.HealthDegraded)
	} else {
		f.setHealth(fleet.HealthOK)
	}
}

// setHealth is what the next heartbeats say.
func (f *factory) setHealth(health fleet.Health) {
	f.mu.Lock()
	changed := f.health != health
	f.health = health
	f.mu.Unlock()
	if changed {
		f.Log.Warn("health changed", "health", health)
		f.beatSoon()
	}
}

// hook runs one of the hooks, if there is one.
func (f *factory) hook(ctx context.Context, name string, p process) (e ending, ran bool) {
	if f.Hooks == "" {
		return ending{}, false
	}
	path, err := filepath.Abs(filepath.Join(f.Hooks, name))
	if err != nil {
		return ending{status: exitNotRunnable}, true
	}
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return ending{}, false
	}
	p.argv = []string{path}
	e, err = p.run(ctx)
	if err != nil {
		p.output.say(err.Error())
	}
	return e, true
}

// word is how a run ended, for the post-job hook and the log.
func (o Outcome) word() string {
	switch {
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
