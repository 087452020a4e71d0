package cluster

// This file is the leader's clock: stamps that follow the median of the voters' clocks, never one bad clock.

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// How a leader's stamps follow the median (docs/semantics.md, Time).
const (
	medianEvery   = 10 * time.Second
	medianWait    = 250 * time.Millisecond // for all clocks
	majorityWait  = 2 * time.Second        // for a majority of them, where nobody waits for the stamp
	medianAgain   = time.Second            // after a majority was not heard
	slowDownAhead = time.Second            // ahead by more: run at nine tenths
	jumpBehind    = 5 * time.Second        // behind by more: one corrected leader-change entry
)

// leaderClock counts on from a start by the monotonic clock.
type leaderClock struct {
	node *Node

	mu    sync.Mutex // guards what follows
	base  fleet.Time // the stamp at since
	since time.Time
	slow  bool // nine tenths of the speed
	// change: the next entry is to begin with a leader change. Until it is stamped the clock runs as before, then from jump.
	change bool
	jump   fleet.Time // what it was at jumpAt; zero: none
	jumpAt time.Time
	// settled is when retention may be thought of: the last leader-change entry or large correction.
	settled time.Time
	known   bool          // when the median was last asked, a majority of the voters answered
	ahead   time.Duration // of the median, when it was last known
}

// stamp is the time that goes into an entry, in whole microseconds.
func (c *leaderClock) stamp() fleet.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at(time.Now())
}

// next is the stamp of the next entry, and whether it has to begin with a leader change: a term's first one, or the first with a time
// that jumped. Without it leases would end that nobody could renew.
func (c *leaderClock) next() (stamp fleet.Time, change bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.jump != 0 {
		c.set(c.jump+fleet.Time(now.Sub(c.jumpAt)), now)
		c.jump = 0
	}
	return c.at(now), c.change
}

// changed says that the leader change is committed.
func (c *leaderClock) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jump == 0 {
		c.change = false
	}
}

// reach brings the clock up to a time that the log has reached already.
func (c *leaderClock) reach(logged fleet.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.at(now) < logged {
		c.base, c.since = logged, now
	}
}

func (c *leaderClock) at(t time.Time) fleet.Time {
	passed := t.Sub(c.since)
	if c.slow {
		passed = passed / 10 * 9
	}
	return (c.base + fleet.Time(passed)).Truncate(time.Microsecond)
}

func (c *leaderClock) set(stamp fleet.Time, now time.Time) {
	c.base, c.since, c.slow, c.settled = stamp, now, false, now
}

// start begins a term: from the later of the machine's time and the median, or from the machine's alone if the median is not known soon:
// run goes on asking. What the log holds beyond that is for reach.
func (c *leaderClock) start(ctx context.Context) {
	now, patience := c.node.machine.Now(), medianWait
	if now == 0 { // a new cluster has no other time
		patience = majorityWait
	}
	median, known := c.median(ctx, patience)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change, c.jump, c.known, c.ahead = true, 0, known, 0
	if known {
		now = max(now, median)
		c.ahead = now.Sub(median)
	}
	c.set(now, time.Now())
}

// run holds the stamps against the median until the term ends.
func (c *leaderClock) run(ctx context.Context) {
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	if known {
		timer.Reset(medianEvery)
	}
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		median, known := c.median(ctx, majorityWait)
		if known {
			c.follow(ctx, median)
			timer.Reset(medianEvery)
			continue
		}
		c.mu.Lock()
		c.known = false
		c.mu.Unlock()
		timer.Reset(medianAgain)
	}
}

func (c *leaderClock) follow(ctx context.Context, median fleet.Time) {
	c.mu.Lock()
	now := time.Now()
	stamp := c.at(now)
	c.known, c.ahead = true, stamp.Sub(median)
	behind := -c.ahead > jumpBehind
	switch {
	case behind:
		c.change, c.jump, c.jumpAt = true, median, now
	case c.ahead > slowDownAhead && !c.slow:
		c.base, c.since, c.slow = stamp, now, true
	case c.ahead <= 0 && c.slow:
		c.base, c.since, c.slow = stamp, now, false
	}
	c.mu.Unlock()
	if behind {
		c.node.log.Warn("this leader's stamps were behind the median of the voters' clocks: corrected", "behindSeconds", median.Sub(stamp).Seconds())
		if _, err := c.node.proposeInternal(ctx, &fsm.Noop{}); err != nil && ctx.Err() == nil {
			c.node.log.Warn("proposing the corrected time", "error", err)
		}
	}
}

// mayRetire reports whether what can't be undone may be done: an hour after the last start or jump, and not while the
// stamps are far ahead of the median, or it is not known.
func (c *leaderClock) mayRetire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.settled) >= time.Hour && c.known && c.ahead <= time.Minute
}

// median is the middle of the voters' clocks (the lower of two), this node's own among them. It waits for medianWait for all of them, and
// as long as given for a majority: false without that, for one clock alone may be any time. Each clock is read once, and all are compared
// as of one instant: one that is set meanwhile, this node's too, is one bad clock and no other.
func (c *leaderClock) median(ctx context.Context, patience time.Duration) (fleet.Time, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	voters := c.node.otherVoters()
	answers := make(chan fleet.Time, len(voters)) // zero: none
	began := time.Now()
	clocks := []fleet.Time{fleet.TimeOf(c.node.wall.Now())} // when it began
	for _, v := range voters {
		go func() {
			clock, read, err := c.node.askClock(ctx, v)
			if err != nil {
				answers <- 0
				return
			}
			answers <- clock - fleet.Time(read.Sub(began))
		}()
	}
	majority := func() bool { return len(clocks) > (len(voters)+1)/2 }
	enough := time.After(medianWait)
	waited := false
	for heard := 0; heard < len(voters) && !(waited && majority()); {
		select {
		case clock := <-answers:
			if heard++; clock != 0 {
				clocks = append(clocks, clock)
			}
		case <-enough:
			waited = true
		case <-ctx.Done():
			heard = len(voters)
		}
	}
	slices.Sort(clocks)
	return clocks[(len(clocks)-1)/2] + fleet.Time(time.Since(began)), majority()
}
