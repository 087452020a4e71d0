package bench

// This file leaves the product without unfinished jobs and working factories. Ended jobs go with the cluster's retention,
// silent factories after 7 days: the API takes neither away.

import (
	"context"
	"errors"
	"fmt"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// tidy ends every job of the run, the many by batches, then one by one what is left.
func (b *bench) tidy(ctx context.Context) error {
	b.say("cleaning up")
	// A run that only submits may have a token that can't claim, and its jobs are cancelled then.
	drainErr := b.drain(ctx)
	if errors.Is(drainErr, fleet.Forbidden) {
		drainErr = nil
	}
	cancelErr := b.cancelAll(ctx)
	if cancelErr == nil {
		drainErr = nil // nothing is left
	}
	return errors.Join(drainErr, cancelErr, b.dismiss(ctx))
}

// drain ships what is held, and claims and ships what is queued.
func (b *bench) drain(ctx context.Context) error {
	var held int
	for _, w := range b.workers {
		for len(w.held) > 0 {
			n := min(len(w.held), PerCall(b.Size))
			if err := report(ctx, w, w.held[:n]); err != nil {
				return err
			}
			w.held, held = w.held[n:], held+n
			b.say("cleaning up: %d held jobs", held)
		}
	}
	if errors.As(context.Cause(b.running), new(*intruder)) {
		return nil // only ours are to be touched
	}
	w := b.workers[0]
	if _, err := w.Client.Heartbeat(ctx, alive(w.factory)); err != nil {
		return err
	}
	request, most := b.request(w, 0), int64(PerCall(b.Size))
	request.Max = &most
	for drained := 0; ; {
		claims, err := w.ClaimBatch(ctx, request)
		if err != nil || len(claims) == 0 {
			return err
		}
		reports := make([]fleet.JobReport, len(claims))
		if err := b.mine(ctx, w, claims...); err != nil {
			return err // what is ours of these is cancelled
		}
		for i := range claims {
			reports[i] = shipped(&claims[i])
		}
		if err := report(ctx, w, reports); err != nil {
			return err
		}
		drained += len(claims)
		b.say("cleaning up: %d queued jobs", drained)
	}
}

// cancelAll ends the run's jobs that are not at their end.
func (b *bench) cancelAll(ctx context.Context) error {
	cl := b.Clients[0]
	for _, stage := range fleet.Stages {
		if stage.Terminal() {
			continue
		}
		filter := client.JobFilter{Stage: stage, Label: fleet.Label{Key: label, Value: b.Name}, Limit: PerCall(b.Size)}
		for cancelled := 0; ; {
			page, err := cl.JobPage(ctx, filter)
			if err != nil {
				return err
			}
			if len(page.Jobs) == 0 {
				break
			}
			err = each(page.Jobs, func(j *fleet.Job) error {
				_, err := cl.Cancel(ctx, j.ID, "the load is over")
				if errors.Is(err, fleet.IllegalTransition) {
					return nil // it has just ended
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("cancelling the jobs with the label %s:%s: %w", label, b.Name, err)
			}
			cancelled += len(page.Jobs)
			b.say("cleaning up: %d %s jobs", cancelled, stage)
		}
	}
	return nil
}

// dismiss says of every factory that it claims nothing any more.
func (b *bench) dismiss(ctx context.Context) error {
	factories, err := b.Clients[0].Factories(ctx)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, w := range b.workers {
		ours[w.factory] = true
	}
	return each(factories, func(f *fleet.Factory) error {
		if !ours[f.FactoryID] {
			return nil
		}
		_, err := b.Clients[0].Heartbeat(ctx, fleet.HeartbeatRequest{FactoryID: f.FactoryID, Health: fleet.HealthDown})
		return err
	})
}
