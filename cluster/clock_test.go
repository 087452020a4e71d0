package cluster

// This file tests the leader's clock in virtual time: it follows the median, never back and never in jumps forward but one.

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
)

func newTestClock(stamp fleet.Time) *leaderClock {
	c := &leaderClock{}
	c.set(stamp)
	return c
}

func TestStampsCountOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), fleet.Time(1e18).Add(10); got != want {
			t.Errorf("ten seconds later: got %v, want %v", got, want)
		}
	})
}

// Ahead of the median by more than a second, the stamps run at nine tenths until they meet.
func TestStampsAheadSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(fleet.Time(1e18).Add(5))
		begin := time.Now()
		median := func() fleet.Time { return fleet.Time(1e18) + fleet.Time(time.Since(begin)) }
		c.follow(t.Context(), median())
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), fleet.Time(1e18).Add(5+9); got != want {
			t.Errorf("ten slow seconds later: got %v, want %v", got, want)
		}
		time.Sleep(40 * time.Second)
		c.follow(t.Context(), median())
		before := c.stamp()
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), before.Add(10); got != want {
			t.Errorf("after they met: got %v, want %v", got, want)
		}
	})
}

func TestRetentionWaitsAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		if c.mayRetire() {
			t.Error("right after the start: got true, want false")
		}
		time.Sleep(time.Hour)
		if !c.mayRetire() {
			t.Error("an hour later: got false, want true")
		}
		c.ahead = 61 * time.Second
		if c.mayRetire() {
			t.Error("over a minute ahead of the median: got true, want false")
		}
	})
}
