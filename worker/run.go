package worker

// This file is one job from its claim to its report.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// Handler works on a job until it is done or ctx ends, and says what came of it. An error is a failure with reason
// error. When ctx ends, the lease is lost or the factory stops (context.Cause says which), and what is returned counts
// for nothing: a stopped job is released, a lost one is not reported at all.
type Handler func(ctx context.Context, task *Task) (Outcome, error)

// Task is a job in hand: the claim, and calls about it under its epoch.
type Task struct {
	*client.Held
	FactoryID string
	Seat      int // 0 to seats-1; no two running tasks share one
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
	outcome, err := f.Handler(ctx, &Task{Held: h, FactoryID: f.FactoryID, Seat: seat})
	cause := context.Cause(ctx)
	switch {
	case fenced(cause) || errors.Is(cause, client.ErrSettled):
	case errors.Is(cause, errStopped):
		outcome = Outcome{Released: true}
	case err != nil:
		outcome.Stage, outcome.Reason = fleet.Failed, "error"
		if outcome.Result == "" {
			outcome.Result = object("error", f.secrets.mask(err.Error()))
		}
	}
	if cause == nil || errors.Is(cause, errStopped) {
		cause = f.settle(h, outcome)
	}
	h.Close()
	switch {
	case fenced(cause):
		log.Warn("fenced", "why", cause)
	case cause != nil && !errors.Is(cause, client.ErrSettled):
		log.Error("reporting", "error", cause)
	default:
		log.Info("settled", "stage", outcome.Stage, "reason", outcome.Reason, "released", outcome.Released)
	}
}

// graceFor is how long a command may take to stop: never so long that the lease has no time to be renewed before.
func (f *factory) graceFor() time.Duration { return min(f.Grace, f.Lease/3) }

// watchDeadline stops the work early enough before the lease ends that it is over by then.
func (f *factory) watchDeadline(ctx context.Context, h *client.Held, end context.CancelCauseFunc) {
	for {
		left := time.Until(h.Deadline().Add(-f.graceFor()))
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

// settle tells the cluster what came of an attempt. The lease bounds how long it tries.
func (f *factory) settle(h *client.Held, o Outcome) error {
	ctx := h.Context()
	if o.Released {
		if stage := h.Stage(); stage == fleet.Review || stage == fleet.Testing {
			// Released there it would wait for a human, with work that is not done.
			if _, err := h.Report(ctx, fleet.Report{Stage: fleet.Building}); err != nil {
				return f.lost(h, err)
			}
		}
		return f.lost(h, h.Release(ctx, o.Delay))
	}
	for _, artifact := range o.Artifacts {
		if _, err := h.AddArtifact(ctx, artifact); err != nil {
			if fenced(context.Cause(ctx)) {
				return context.Cause(ctx)
			}
			f.Log.Warn("adding an artifact", "jobId", h.Job.ID, "name", artifact.Name, "error", err)
		}
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

// lost is the better explanation of a call that ended because the lease did.
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
