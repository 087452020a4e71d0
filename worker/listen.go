package worker

// This file hears what a command says while it runs: checkpoints and status lines.

import (
	"context"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

// ears listen to one command.
type ears struct {
	f    *factory
	task *Task
	dir  *directory
	last fleet.Checkpoint
	end  func() // stops, after one more look
}

// listen looks at the command's files until end is called.
func (f *factory) listen(ctx context.Context, task *Task, dir *directory) *ears {
	e := &ears{f: f, task: task, dir: dir}
	if task.Job.Checkpoint != nil {
		e.last = *task.Job.Checkpoint
	}
	ended, done := make(chan struct{}), make(chan struct{})
	e.end = sync.OnceFunc(func() { close(ended); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(f.look)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.hear(task.Context(), false)
			case <-ended:
				if !gone(context.Cause(ctx)) {
					// Also when the factory stops: the job is released with this checkpoint.
					e.hear(task.Context(), true)
				}
				return
			}
		}
	}()
	return e
}

// hear passes on what is new.
func (e *ears) hear(ctx context.Context, atEnd bool) {
	lines, err := e.dir.statusLines(atEnd)
	if err != nil {
		e.f.Log.Warn("reading the status file", "jobId", e.task.Job.ID, "error", err)
	}
	for _, line := range lines {
		e.status(ctx, line)
	}
	c, err := e.dir.checkpoint()
	switch {
	case err != nil && atEnd: // before the end it may be half written
		e.f.Log.Warn("reading the checkpoint file", "jobId", e.task.Job.ID, "error", err)
	case err == nil && c != nil && *c != e.last:
		if err := e.task.Checkpoint(ctx, *c); err != nil {
			e.f.Log.Warn("saving a checkpoint", "jobId", e.task.Job.ID, "error", err)
			if !unacceptable(err) {
				return // the next look tries again
			}
		}
		e.last = *c
	}
}

// status passes on one line. What can't be understood or is refused is logged: it is not worth the job.
func (e *ears) status(ctx context.Context, line []byte) {
	var s statusLine
	err := json.Unmarshal(line, &s, json.RejectUnknownMembers(true))
	if err == nil && s.Stage != "" && !s.Stage.Active() {
		err = fleet.InvalidField("stage", "%q ends the job; write that to FLEET_RESULT_FILE", s.Stage)
	}
	if err == nil && (s.Stage != "" || s.Insights != nil) {
		_, err = e.task.Report(ctx, fleet.Report{Stage: s.Stage, Insights: s.Insights})
	}
	if err == nil && s.Comment != "" {
		err = e.task.Comment(ctx, object("text", e.f.secrets.mask(s.Comment)))
	}
	if err != nil {
		e.f.Log.Warn("a status line was not passed on", "jobId", e.task.Job.ID, "error", err)
	}
}
