package bench

// This file is what a client does in each kind of load but the feed.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lysnrai/fleet"
)

// operationsOf names what is measured in each kind. The last one is what the kind is about.
var operationsOf = map[Kind][]string{
	Cycle:     {"submit", "claim", "patch", "cycle"},
	Submit:    {"submit"},
	Claim:     {"report batch", "claim"},
	Heartbeat: {"heartbeat"},
	Feed:      {"submit", "event"},
	Batch:     {"submit batch", "claim batch", "report batch", "cycle"},
}

// claimWait is how long a claim waits for a job, in seconds, where another client's may be on its way.
const claimWait = 1

// seats is how many jobs a factory may hold at once.
const seats = fleet.MaxSeats

func (b *bench) operation(name string) *operation {
	for _, o := range b.operations {
		if o.name == name {
			return o
		}
	}
	panic("bench: no operation " + name)
}

// cycle takes one job in and brings one to its end: the oldest one, so that a backlog stays as long as it is.
func (b *bench) cycle(ctx context.Context, w *worker) error {
	_, err := timed(ctx, b.whole, func() (struct{}, error) { return struct{}{}, b.oneCycle(ctx, w) })
	return err
}

func (b *bench) oneCycle(ctx context.Context, w *worker) error {
	if err := b.submitOne(ctx, w); err != nil {
		return err
	}
	claim, err := timed(ctx, b.operation("claim"), func() (*fleet.Claim, error) {
		for {
			c, err := w.Client.Claim(ctx, b.request(w, claimWait))
			if c != nil || err != nil || b.running.Err() != nil {
				return c, err
			}
		}
	})
	if err != nil {
		return err
	}
	if claim == nil {
		return errDone // the run was over first
	}
	if err := b.mine(ctx, w, *claim); err != nil {
		return err
	}
	patch := b.operation("patch")
	for _, stage := range b.Stages {
		_, err := timed(ctx, patch, func() (*fleet.Job, error) {
			return w.Report(ctx, claim.Job.ID, fleet.Report{LeaseEpoch: &claim.Lease.LeaseEpoch, Stage: stage})
		})
		if err != nil {
			return err
		}
	}
	b.jobs.Add(1)
	return nil
}

func (b *bench) submit(ctx context.Context, w *worker) error {
	err := b.submitOne(ctx, w)
	if err == nil {
		b.jobs.Add(1)
	}
	return err
}

func (b *bench) submitOne(ctx context.Context, w *worker) error {
	_, err := timed(ctx, b.operation("submit"), func() (*fleet.SubmitResult, error) { return w.Client.Submit(ctx, b.submission()) })
	return err
}

// claim takes a job of the backlog and holds it, until there is no seat left.
func (b *bench) claim(ctx context.Context, w *worker) error {
	if len(w.held) == seats {
		if err := b.ship(ctx, w); err != nil {
			return err
		}
	}
	sent := time.Now()
	claim, err := w.Client.Claim(ctx, b.request(w, 0))
	if claim == nil && err == nil {
		return errDone // the backlog is used up
	}
	b.whole.record(ctx, sent, time.Now(), err)
	if err != nil {
		return err
	}
	if err := b.mine(ctx, w, *claim); err != nil {
		return err
	}
	w.held = append(w.held, shipped(claim))
	b.jobs.Add(1)
	return nil
}

// ship reports all that a worker holds.
func (b *bench) ship(ctx context.Context, w *worker) error {
	for len(w.held) > 0 {
		n := min(len(w.held), PerCall(b.Size))
		_, err := timed(ctx, b.operation("report batch"), func() (struct{}, error) { return struct{}{}, report(ctx, w, w.held[:n]) })
		if err != nil {
			return err
		}
		w.held = w.held[n:]
	}
	return nil
}

// report says that jobs are shipped and wants all of it to be taken.
func report(ctx context.Context, w *worker, reports []fleet.JobReport) error {
	results, err := w.Reports(ctx, reports)
	if err != nil {
		return err
	}
	for _, r := range results {
		if !r.OK {
			return &fleet.Error{Code: r.Code, Detail: r.Detail}
		}
	}
	return nil
}

func (b *bench) heartbeat(ctx context.Context, w *worker) error {
	_, err := timed(ctx, b.whole, func() (*fleet.HeartbeatResult, error) { return w.Client.Heartbeat(ctx, alive(w.factory)) })
	return err
}

// batch is a cycle of many jobs, three calls in all.
func (b *bench) batch(ctx context.Context, w *worker) error {
	_, err := timed(ctx, b.whole, func() (struct{}, error) { return struct{}{}, b.oneBatch(ctx, w) })
	return err
}

func (b *bench) oneBatch(ctx context.Context, w *worker) error {
	_, err := timed(ctx, b.operation("submit batch"), func() ([]fleet.SubmitResult, error) {
		return w.SubmitBatch(ctx, b.submissions(b.Batch))
	})
	if err != nil {
		return err
	}
	claims, err := timed(ctx, b.operation("claim batch"), func() ([]fleet.Claim, error) {
		request := b.request(w, claimWait)
		most := int64(b.Batch)
		request.Max = &most
		for {
			c, err := w.ClaimBatch(ctx, request)
			if len(c) > 0 || err != nil || b.running.Err() != nil {
				return c, err
			}
		}
	})
	if err != nil {
		return err
	}
	if len(claims) == 0 {
		return errDone // the run was over first
	}
	var reports []fleet.JobReport
	if err := b.mine(ctx, w, claims...); err != nil {
		return err
	}
	for i := range claims {
		reports = append(reports, shipped(&claims[i]))
	}
	_, err = timed(ctx, b.operation("report batch"), func() (struct{}, error) { return struct{}{}, report(ctx, w, reports) })
	if err == nil {
		b.jobs.Add(int64(len(reports)))
	}
	return err
}

// mine ends the run if some of the jobs are not of it: somebody else works in the product, and gets them back.
func (b *bench) mine(ctx context.Context, w *worker, claims ...fleet.Claim) error {
	var foreign error
	for _, c := range claims {
		if slices.Contains(c.Job.Labels, fleet.Label{Key: label, Value: b.Name}) {
			continue
		}
		foreign = &intruder{product: w.Product(), jobID: c.Job.ID}
		b.stop(foreign)
		if _, err := w.Release(ctx, c.Job.ID, fleet.ReleaseRequest{LeaseEpoch: c.Lease.LeaseEpoch}); err != nil {
			return errors.Join(foreign, fmt.Errorf("giving back the job %s: %w", c.Job.ID, err))
		}
	}
	return foreign
}

// intruder is a job that the run did not make.
type intruder struct{ product, jobID string }

func (e *intruder) Error() string {
	return fmt.Sprintf("the product %s is in use: the job %s is not of this run; give the load a product of its own", e.product, e.jobID)
}

func (b *bench) request(w *worker, wait int64) fleet.ClaimRequest {
	lease := int64(leaseSeconds)
	return fleet.ClaimRequest{FactoryID: w.factory, LeaseSeconds: &lease, WaitSeconds: wait}
}

func shipped(c *fleet.Claim) fleet.JobReport {
	return fleet.JobReport{JobID: c.Job.ID, Report: fleet.Report{LeaseEpoch: &c.Lease.LeaseEpoch, Stage: fleet.Shipped}}
}

// alive is the heartbeat of a factory that will not be missed during a run.
func alive(factory string) fleet.HeartbeatRequest {
	most, every := int64(seats), int64(heartbeatSeconds)
	return fleet.HeartbeatRequest{FactoryID: factory, Health: fleet.HealthOK, SeatLimit: &most, HeartbeatSeconds: &every}
}

func (b *bench) submission() fleet.Submission {
	return fleet.Submission{BodyMd: b.bodies.next(), Labels: fleet.Labels{{Key: label, Value: b.Name}}}
}

func (b *bench) submissions(n int) []fleet.Submission {
	all := make([]fleet.Submission, n)
	for i := range all {
		all[i] = b.submission()
	}
	return all
}
