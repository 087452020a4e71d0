package rpc

// This file is the calls about factories.

import (
	"context"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// heartbeat registers a factory, reports on it and renews its leases.
func (a *API) heartbeat(ctx context.Context, c *call[fleet.HeartbeatRequest]) (*fleet.HeartbeatResult, error) {
	c.Body.Normalize()
	return propose[*fleet.HeartbeatResult](ctx, a, c.request, &fsm.Heartbeat{ProductID: c.product, Heartbeat: c.Body})
}

type factoryList struct {
	Factories []*fleet.Factory `json:"factories"`
}

func (a *API) listFactories(ctx context.Context, c *request) (list *factoryList, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		list = &factoryList{v.Factories(c.product)}
		return nil
	})
	return list, err
}

func (a *API) factory(ctx context.Context, c *request) (f *fleet.Factory, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if f, found = v.Factory(c.product, c.vars["factoryId"]); !found {
			return noSuch("factory", c.vars["factoryId"])
		}
		return nil
	})
	return f, err
}
