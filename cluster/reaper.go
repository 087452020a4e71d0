package cluster

// This file is the reaper's timer: the leader sleeps until the earliest deadline is past, then proposes that it be worked off.

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// reapLimit is how many documents one Reap changes at most; more are due, the next follows at once.
const reapLimit = 1000

// never is later than any deadline.
const never = fleet.Time(math.MaxInt64)

// nextReap is when something is due, and whether that may be the retention of an ended job.
func (n *Node) nextReap() (due fleet.Time, retires bool) {
	due = never
	n.machine.View(func(v fsm.View) {
		if at, ok := v.NextDeadline(); ok {
			due = at
		}
		if ended, ok := v.NextRetention(); ok && n.clock.mayRetire() {
			due, retires = min(due, ended.Add(int64(n.cfg.Retention/time.Second))), true
		}
	})
	return due, retires
}

// hurryReaper wakes the reaper if something is due before it would wake by itself. The state machine's goroutine calls it after each
// entry: most need nobody to wake up.
func (n *Node) hurryReaper() {
	until := fleet.Time(n.reapsAt.Load())
	if until == 0 {
		return // this node does not lead
	}
	if due, _ := n.nextReap(); due >= until {
		return
	}
	select {
	case n.deadlines <- struct{}{}:
	default:
	}
}

// reap proposes Reaps while this node leads. An idle cluster writes nothing.
func (n *Node) reap(ctx context.Context) {
	defer n.reapsAt.Store(0)
	for ctx.Err() == nil {
		n.reapsAt.Store(int64(never)) // what is due while it looks is not missed
		now := n.clock.stamp()
		due, retires := n.nextReap()
		n.reapsAt.Store(int64(due))
		if now > due {
			reap := &fsm.Reap{Limit: reapLimit}
			if retires {
				reap.RetentionSeconds = int64(n.cfg.Retention / time.Second)
			}
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
		if due < never {
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
