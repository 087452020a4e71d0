package cluster

// This file is the reaper's timer: the leader sleeps until the earliest deadline is past, then proposes that it be worked off.

import (
	"context"
	"errors"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// reapLimit is how many documents one Reap changes at most; more are due, the next follows at once.
const reapLimit = 1000

// reap proposes Reaps while this node leads. An idle cluster writes nothing.
func (n *Node) reap(ctx context.Context) {
	for ctx.Err() == nil {
		now := n.clock.stamp()
		reap := &fsm.Reap{Limit: reapLimit}
		due, known := fleet.Time(0), false
		n.machine.View(func(v fsm.View) {
			due, known = v.NextDeadline()
			if ended, ok := v.NextRetention(); ok && n.clock.mayRetire() {
				if at := ended.Add(int64(n.cfg.Retention / time.Second)); !known || at < due {
					due, known = at, true
				}
				reap.RetentionSeconds = int64(n.cfg.Retention / time.Second)
			}
		})
		if known && now > due {
			a, err := n.proposeInternal(ctx, reap)
			if errors.Is(err, fleet.DiskFull) {
				n.sleep(ctx, time.Second)
				continue
			}
			if err != nil && ctx.Err() == nil {
				n.log.Warn("reaping", "error", err)
				n.sleep(ctx, time.Second)
				continue
			}
			if r, ok := a.Result.(*fsm.Reaped); ok && r.Changed > 0 {
				n.log.Debug("reaped", "documents", r.Changed, "more", r.More)
			}
			continue
		}
		wait := 10 * time.Minute // retention becomes possible without an entry
		if known {
			wait = min(wait, due.Sub(now)+time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-n.deadlines:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// sleep waits unless ctx ends before.
func (n *Node) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
