package client

// This file gives a factory its jobs one by one.

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/lysnrai/fleet"
)

// ClaimOptions says who claims, and how.
type ClaimOptions struct {
	// Factory is what the factory says of itself. FactoryID is needed; it is sent as a heartbeat before the first claim,
	// and again every HeartbeatSeconds (nil: 15) while the iterator runs. Leases are renewed apart from it.
	Factory fleet.HeartbeatRequest
	// Lease is how long a lease lasts unless it is renewed, in whole seconds. Zero: 60 s.
	Lease time.Duration
	// Wait is how long one request waits for a job, in whole seconds. Zero: 20 s; at most 60 s.
	Wait time.Duration
}

// fullWait is how long a factory waits before it asks again when it has no free seat, or was refused.
const fullWait = time.Second

// Claims yields the factory's jobs as they come, each with a lease that is renewed until the job is reported on,
// released or closed. It waits as long as there is nothing. An error is yielded with a nil job; the iterator goes on if
// the loop does. It ends with ctx. The jobs stay held when the loop ends, but not longer than ctx.
func (c *Client) Claims(ctx context.Context, o ClaimOptions) iter.Seq2[*Held, error] {
	if o.Lease <= 0 {
		o.Lease = fleet.DefaultLeaseSeconds * time.Second
	}
	if o.Wait <= 0 {
		o.Wait = 20 * time.Second
	}
	lease := wholeSeconds(o.Lease)
	request := fleet.ClaimRequest{
		FactoryID: o.Factory.FactoryID, LeaseSeconds: &lease, WaitSeconds: min(wholeSeconds(o.Wait), fleet.MaxWaitSeconds),
	}
	return func(yield func(*Held, error) bool) {
		looping, stop := context.WithCancel(ctx)
		defer stop()
		registered := false
		for looping.Err() == nil {
			var (
				held *Held
				err  error
			)
			if !registered {
				if _, err = c.Heartbeat(looping, o.Factory); err == nil {
					registered = true
					go c.keepRegistered(looping, o.Factory)
				}
			}
			if err == nil {
				held, err = c.ClaimAndHold(looping, ctx, request)
			}
			switch {
			case err != nil && looping.Err() != nil:
				return
			case errors.Is(err, fleet.UnknownFactory), errors.Is(err, fleet.FactoryDown) && o.Factory.Health != fleet.HealthDown:
				// It was silent for too long, as a suspended machine is.
				if _, err = c.Heartbeat(looping, o.Factory); err == nil {
					_ = sleep(looping, firstBackoff)
				}
			case errors.Is(err, fleet.SeatsExhausted):
				err = nil
				_ = sleep(looping, fullWait)
			case held != nil:
				go held.keep()
				if !yield(held, nil) {
					return
				}
			}
			if err != nil {
				if !yield(nil, err) {
					return
				}
				_ = sleep(looping, fullWait)
			}
		}
	}
}

// wholeSeconds rounds up: a wait of none at all would be a busy loop.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// keepRegistered sends heartbeats until ctx ends. One that fails is followed by the next: a factory that is silent for
// long is told so by its claims.
func (c *Client) keepRegistered(ctx context.Context, r fleet.HeartbeatRequest) {
	every := fleet.DefaultHeartbeatSeconds * time.Second
	if r.HeartbeatSeconds != nil && *r.HeartbeatSeconds > 0 {
		every = time.Duration(*r.HeartbeatSeconds) * time.Second
	}
	for sleep(ctx, every) == nil {
		_, _ = c.Heartbeat(ctx, r)
	}
}
