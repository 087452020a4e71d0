package testcluster

// This file is the nodes' wall clocks, which a test sets wrong.

import (
	"sync"
	"time"
)

// clock is a node's wall clock. It stays while its node is down.
type clock struct {
	mu    sync.Mutex // guards what follows
	ahead time.Duration
	drift float64   // gained for each second
	since time.Time // when it was set
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.drift != 0 {
		now = now.Add(time.Duration(c.drift * float64(now.Sub(c.since))))
	}
	return now.Add(c.ahead)
}

func (c *clock) set(ahead time.Duration, drift float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead, c.drift, c.since = ahead, drift, time.Now()
}

// SetClock sets the i-th node's wall clock ahead of the true time, or behind it, and makes it gain drift seconds each second from
// now on. How long things take is not measured by it.
func (c *Cluster) SetClock(i int, ahead time.Duration, drift float64) {
	c.members()[i].clock.set(ahead, drift)
}
