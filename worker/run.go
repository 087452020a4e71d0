package worker

// This file is one job from its claim to its report.

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// Handler works on a job until it is done or ctx ends, and says what came of it. When ctx ends, the lease is lost or the
// factory stops (context.Cause says which): a handler that breaks its work off for that returns an error, and the job
// is released, or, lost, not reported at all. One that returns none has finished, and its outcome is reported. Any other
// error is a failure with reason error, a panic one with reason panic.
type Handler func(ctx context.Context, task *Task) (Outcome, error)

// Task is a job in hand: the claim, and calls about it under its epoch.
type Task struct {
	*client.Held
	FactoryID string
	Seat      int // 0 to seats-1; no two running tasks share one

	cleanup func() // after the report, if not nil
}

// Checkpoint saves where the work stands, so that the next attempt can go on from there.
func (t *Task) Checkpoint(ctx context.Context, c fleet.Checkpoint) error {
	_, err := t.Report(ctx, fleet.Report{Checkpoint: &c})
	return err
}

// Progress moves the job to another active stage.
func (t *Task) Progress(ctx context.Context, stage fleet.Stage) error {
	_, err := t.Report(ctx, fleet.Report{Stage: stage})
	return err
}

// Outcome is what came of an attempt. The zero Outcome is shipped.
type Outcome struct {
	// Stage is shipped (also when empty), failed, or review or testing: there the job waits for a human.
	Stage fleet.Stage
	// Reason is why it failed.
	Reason       string
	Exit         *int64
	Result       fleet.JSON
	VerifyResult fleet.JSON
	Insights     *fleet.Insights
	Artifacts    []fleet.ArtifactRequest
	// Released gives the job back for another attempt, not before Delay (whole seconds), and counts as no failure.
	Released bool
	Delay    time.Duration
}

// settleWait is how long a finished outcome is offered to a cluster that can't be reached. The work was paid for, and a
// holder that is late but alone keeps it (docs/semantics.md, Fencing).
const settleWait = 10 * time.Minute

// work runs the handler on a job and settles what came of it.
func (f *factory) work(h *client.Held, seat int) {
	log := f.Log.With("jobId", h.Job.ID, "leaseEpoch", h.Epoch())
	log.Info("claimed", "attempt", h.Run.Attempt)
	ctx, end := context.WithCancelCause(h.Context())
	defer end(nil)
	defer context.AfterFunc(f.stop.stopping, func() { end(errStopped) })()
	go f.watchDeadline(ctx, h, end)
	if wall := h.Job.Budget; wall != nil && wall.Wall != nil {
		// The cluster ends the run; a heartbeat after that moment learns of it early.
		late := time.AfterFunc(time.Duration(*wall.Wall)*time.Second+time.Second, f.beatSoon)
		defer late.Stop()
	}
	task := &Task{Held: h, FactoryID: f.FactoryID, Seat: seat}
	outcome, err := Outcome{Released: true}, error(nil)
	if f.stop.draining.Err() == nil { // else it was granted in the moment in which the factory was told to stop
		outcome, err = f.handle(ctx, task)
	}
	cause := context.Cause(ctx)
	switch {
	case err == nil && !gone(cause): // finished, whatever stops the factory since
		cause = f.settle(h, outcome)
	case err != nil && errors.Is(cause, errStopped):
		outcome = Outcome{Released: true}
		cause = f.settle(h, outcome)
	case err != nil && cause == nil:
		outcome.Stage, outcome.Released = fleet.Failed, false
		if outcome.Reason == "" {
			outcome.Reason = reasonError
		}
		if outcome.Result == "" {
			outcome.Result = object("error", f.secrets.mask(err.Error()))
		}
		cause = f.settle(h, outcome)
	}
	h.Close()
	if task.cleanup != nil {
		task.cleanup()
	}
	switch {
	case fenced(cause) || errors.Is(cause, client.ErrLeaseExpired):
		log.Warn("fenced", "why", cause)
	case cause != nil && !errors.Is(cause, client.ErrSettled):
		log.Error("reporting", "error", cause)
	default:
		log.Info("settled", "as", outcome.word(), "reason", outcome.Reason)
	}
}

// handle runs the handler. One that panics has failed; the factory's other jobs have not.
func (f *factory) handle(ctx context.Context, task *Task) (outcome Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			f.Log.Error("a handler panicked", "jobId", task.Job.ID, "panic", p, "stack", string(debug.Stack()))
			outcome, err = Outcome{Reason: reasonPanic}, fmt.Errorf("panic: %v", p)
		}
	}()
	return f.Handler(ctx, task)
}

// watchDeadline stops the work early enough before the lease ends that it is over by then: by the grace, but not so
// early that there was no time for two renewals.
func (f *factory) watchDeadline(ctx context.Context, h *client.Held, end context.CancelCauseFunc) {
	before := min(f.Grace, f.Lease-2*f.interval())
	for {
		left := time.Until(h.Deadline().Add(-before))
		if left <= 0 {
			end(fmt.Errorf("no renewal came through: %w", client.ErrLeaseExpired))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(left):
		}
	}
}

// settle tells the cluster what came of an attempt.
func (f *factory) settle(h *client.Held, o Outcome) error {
	within, wait := f.stop.killed, settleWait
	if o.Released {
		within, wait = h.Context(), f.Lease // a lease that runs out gives the job back too
	}
	ctx, cancel := context.WithTimeout(within, wait)
	defer cancel()
	for _, artifact := range o.Artifacts {
		if _, err := h.AddArtifact(ctx, artifact); gone(err) {
			return f.lost(h, err)
		} else if err != nil {
			f.Log.Warn("adding an artifact", "jobId", h.Job.ID, "name", artifact.Name, "error", err)
		}
	}
	if o.Released {
		return f.lost(h, f.release(ctx, h, o))
	}
	if o.Stage == "" {
		o.Stage = fleet.Shipped
	}
	if o.Stage == fleet.Failed && o.Reason == "" {
		o.Reason = "failed"
	}
	report := fleet.Report{
		Stage: o.Stage, Reason: o.Reason, Result: o.Result, Exit: o.Exit, VerifyResult: o.VerifyResult, Insights: o.Insights,
	}
	job, err := h.Report(ctx, report)
	if unacceptable(err) {
		// The lease must not run out over words that the cluster does not take.
		job, err = h.Report(ctx, fleet.Report{
			Stage: fleet.Failed, Reason: reasonBadResult, Exit: o.Exit, Result: object("error", f.secrets.mask(err.Error())),
		})
	}
	if err == nil && job.LeaseEpoch == h.Epoch() && job.Stage.Active() {
		err = h.Release(ctx, 0) // parked: a human decides
	}
	return f.lost(h, err)
}

// release gives a job back for another attempt.
func (f *factory) release(ctx context.Context, h *client.Held, o Outcome) error {
	report := fleet.Report{Insights: o.Insights} // what it cost counts all the same
	if stage := h.Stage(); stage == fleet.Review || stage == fleet.Testing {
		report.Stage = fleet.Building // released there it would wait for a human, with work that is not done
	}
	if report != (fleet.Report{}) {
		if _, err := h.Report(ctx, report); err != nil && !unacceptable(err) {
			return err
		}
	}
	return h.Release(ctx, o.Delay)
}

// lost is the better explanation of a call that was refused because the lease is another's.
func (f *factory) lost(h *client.Held, err error) error {
	if cause := context.Cause(h.Context()); err != nil && fenced(cause) {
		return cause
	}
	return err
}

// unacceptable reports whether the cluster refused what was said, not that it was said.
func unacceptable(err error) bool {
	return errors.Is(err, fleet.Invalid) || errors.Is(err, fleet.InvalidJSON) || errors.Is(err, fleet.TooLarge) ||
		errors.Is(err, fleet.IllegalTransition)
}
