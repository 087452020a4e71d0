package client

// This file is a job in hand: how long it may be worked on, and what its holder says of it.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
)

// The causes with which the context of a held job ends, beside a *Lost.
var (
	// ErrLeaseExpired: the lease could not be renewed in time. Another factory may have the job.
	ErrLeaseExpired = errors.New("the lease could not be renewed before its deadline")
	// ErrSettled: the job was reported on or released; there is nothing more to do.
	ErrSettled = errors.New("the job was reported on or released")
)

// Lost is the cause when the cluster says that this attempt is over; it is fleet.StaleEpoch, or fleet.NotFound for a job
// that is gone.
type Lost struct {
	Job *fleet.Job // what became of it; nil if that is not known
	Err error
}

func (e *Lost) Error() string {
	switch {
	case e.Job == nil:
		return e.Err.Error()
	case e.Job.Reason == "":
		return fmt.Sprintf("%v; it is %s", e.Err, e.Job.Stage)
	}
	return fmt.Sprintf("%v; it is %s, reason %s", e.Err, e.Job.Stage, e.Job.Reason)
}

func (e *Lost) Unwrap() error { return e.Err }

// Held is a job that this process holds. Its methods may be called at once.
type Held struct {
	Job   *fleet.Job   // as it was claimed
	Lease *fleet.Lease // as it was claimed
	Run   *fleet.Run

	client *Client
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards all below
	ttl      time.Duration
	deadline time.Time
	timer    *time.Timer
	stage    fleet.Stage
}

// hold makes a Held of a claim whose request was sent at that time. The job's context ends with ctx, and when the lease
// does.
func (c *Client) hold(ctx context.Context, claim fleet.Claim, sent time.Time) *Held {
	h := &Held{Job: claim.Job, Lease: claim.Lease, Run: claim.Run, client: c, stage: claim.Job.Stage}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	h.ttl = time.Duration(claim.Lease.TTLSeconds) * time.Second
	if h.ttl <= 0 {
		h.ttl = fleet.DefaultLeaseSeconds * time.Second
	}
	h.deadline = sent.Add(h.ttl)
	h.mu.Lock() // the deadline may have passed: then the timer fires before it is here
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(time.Until(h.deadline), func() { h.Lose(ErrLeaseExpired) })
	return h
}

// Context ends when the job must not be worked on any more; context.Cause says why.
func (h *Held) Context() context.Context { return h.ctx }

// Epoch is the fencing epoch of this attempt.
func (h *Held) Epoch() uint64 { return h.Lease.LeaseEpoch }

// Deadline is when the lease ends unless it is renewed, on this process's own monotonic clock. It is measured from
// before the request was sent, so that it is never later than the cluster's.
func (h *Held) Deadline() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deadline
}

// Stage is where the job was after the last report.
func (h *Held) Stage() fleet.Stage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stage
}

// Renewed moves the deadline after a renewal that was sent at that time.
func (h *Held) Renewed(sent time.Time, lease *fleet.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lease != nil && lease.TTLSeconds > 0 {
		h.ttl = time.Duration(lease.TTLSeconds) * time.Second
	}
	if d := sent.Add(h.ttl); d.After(h.deadline) && h.ctx.Err() == nil {
		h.deadline = d
		h.timer.Reset(time.Until(d))
	}
}

// Lose ends the job's context with a cause. Only the first cause counts.
func (h *Held) Lose(cause error) {
	h.mu.Lock()
	h.timer.Stop()
	h.mu.Unlock()
	h.cancel(cause)
}

// Close lets go of the job without a word to the cluster: its lease runs out. After a report or a release it does
// nothing.
func (h *Held) Close() { h.Lose(ErrSettled) }

// patient is a client that tries as long as the deadline of ctx allows: what a holder has to say of its work is worth it.
func (h *Held) patient(ctx context.Context) *Client {
	if deadline, ok := ctx.Deadline(); ok {
		return h.client.Patient(max(time.Until(deadline), time.Nanosecond))
	}
	return h.client
}

// Report says something of the job under its epoch. When the answer shows that this attempt is over, so is the context. Reports
// of many jobs that are made at about the same time go together (gathering.go).
func (h *Held) Report(ctx context.Context, r fleet.Report) (*fleet.Job, error) {
	epoch := h.Epoch()
	r.LeaseEpoch = &epoch
	job, err := h.patient(ctx).reportGathered(ctx, h.Job.ID, r)
	switch {
	case err != nil:
		return nil, h.judge(err)
	case job.LeaseEpoch != epoch: // the report passed the budget
		h.Lose(&Lost{Job: job, Err: fleet.Errorf(fleet.StaleEpoch, "job %s is at epoch %d, you held %d", job.ID, job.LeaseEpoch, epoch)})
	case !job.Stage.Active():
		h.Close()
	default:
		h.mu.Lock()
		h.stage = job.Stage
		h.mu.Unlock()
	}
	return job, nil
}

// Release gives the job back, or parks it in review or testing. It is not claimed again before delay, in whole seconds.
func (h *Held) Release(ctx context.Context, delay time.Duration) error {
	_, err := h.patient(ctx).Release(ctx, h.Job.ID, fleet.ReleaseRequest{LeaseEpoch: h.Epoch(), DelaySeconds: int64(delay / time.Second)})
	if err != nil {
		return h.judge(err)
	}
	h.Close()
	return nil
}

// Comment appends a comment, a JSON object, to the job's events.
func (h *Held) Comment(ctx context.Context, data fleet.JSON) error {
	epoch := h.Epoch()
	_, err := h.patient(ctx).Comment(ctx, h.Job.ID, fleet.CommentRequest{LeaseEpoch: &epoch, Data: data})
	return h.judge(err)
}

// AddArtifact records where something is that this attempt produced.
func (h *Held) AddArtifact(ctx context.Context, r fleet.ArtifactRequest) (*fleet.Artifact, error) {
	epoch := h.Epoch()
	r.LeaseEpoch = &epoch
	artifact, err := h.patient(ctx).AddArtifact(ctx, h.Job.ID, r)
	return artifact, h.judge(err)
}

// judge ends the context if an answer says that the lease is another's.
func (h *Held) judge(err error) error {
	if errors.Is(err, fleet.StaleEpoch) || errors.Is(err, fleet.NotFound) {
		h.Fenced(err)
	}
	return err
}

// whyWait is how long what became of a lost job is asked for: work on it goes on as long.
const whyWait = time.Second

// Fenced ends the context because a call was refused: the lease is another's. It asks what became of the job, so that
// the cause can say.
func (h *Held) Fenced(refused error) {
	if h.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, whyWait)
	defer cancel()
	job, err := h.client.Patient(-1).Job(ctx, h.Job.ID)
	if err != nil {
		job = nil
	}
	h.Lose(&Lost{Job: job, Err: refused})
}

// keep renews the lease at a third of its time until the context ends. After a renewal that did not get through it
// tries again at once, as long as there is a lease.
func (h *Held) keep() {
	for {
		h.mu.Lock()
		wait := h.ttl / 3
		h.mu.Unlock()
		for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
			if sleep(h.ctx, wait) != nil {
				return
			}
			if h.renew() == nil {
				break
			}
			wait = backoff
		}
	}
}

// renew asks each node once at most, so that the deadline that it brings is not measured from long before it.
func (h *Held) renew() error {
	sent := time.Now()
	ctx, cancel := context.WithDeadline(h.ctx, h.Deadline())
	defer cancel()
	lease, err := h.client.Patient(-1).Renew(ctx, h.Job.ID, fleet.RenewRequest{LeaseEpoch: h.Epoch()})
	if h.judge(err) == nil {
		h.Renewed(sent, lease)
	}
	return err
}
