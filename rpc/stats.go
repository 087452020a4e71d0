package rpc

// This file is the call that counts.

import (
	"context"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func (a *API) stats(ctx context.Context, c *request) (s *fleet.Stats, err error) {
	now := a.node.Now()
	err = a.read(ctx, c, func(v fsm.View) error {
		s = v.Stats(c.product, now)
		return nil
	})
	return s, err
}
