package rpc

// This file is the calls about the lease of a job.

import (
	"context"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func (a *API) lease(ctx context.Context, c *request) (lease *fleet.Lease, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if lease, found = v.Lease(c.product, c.vars["id"]); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return lease, err
}

// renewLease keeps a job for its holder. Whether the caller still is the holder is for the state machine to say.
func (a *API) renewLease(ctx context.Context, c *call[fleet.RenewRequest]) (*fleet.Lease, error) {
	command := &fsm.Renew{ProductID: c.product, JobID: c.vars["id"], LeaseEpoch: c.Body.LeaseEpoch}
	if c.Body.LeaseSeconds != nil {
		command.LeaseSeconds = *c.Body.LeaseSeconds
	}
	return propose[*fleet.Lease](ctx, a, c.request, command)
}

// releaseLease gives a job back, or parks it at its gate.
func (a *API) releaseLease(ctx context.Context, c *call[fleet.ReleaseRequest]) (*fleet.Lease, error) {
	return propose[*fleet.Lease](ctx, a, c.request, &fsm.Release{
		ProductID: c.product, JobID: c.vars["id"], LeaseEpoch: c.Body.LeaseEpoch, DelaySeconds: c.Body.DelaySeconds,
	})
}
