package testcluster_test

// This file tests clusters whose links are bad and whose clocks are wrong.

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

func lan(c *cluster.Config) { c.Timing = cluster.TimingLAN }

// With 100 ms, give or take 50, there and back between any two nodes leadership hardly moves: at most twice a minute.
func TestDelayMakesNoElectionStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, lan)
		for i := range 3 {
			for k := range i {
				c.Network().Disturb(fmt.Sprintf("n%d", i+1), fmt.Sprintf("n%d", k+1), cluster.Disturbance{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond})
			}
		}
		const minutes = 10
		changes, leader := 0, c.Leader(t)
		for range minutes * 60 {
			c.Submit(t, fleet.Submission{BodyMd: "x"})
			time.Sleep(time.Second)
			if now := c.Leader(t); now != leader {
				changes, leader = changes+1, now
			}
		}
		if changes > 2*minutes {
			t.Errorf("leadership moved %d times in %d minutes, want at most %d", changes, minutes, 2*minutes)
		}
	})
}

// One clock that is wrong, be it the leader's, is not what the cluster goes by: its time stays near the truth, and never goes back.
func TestOneWrongClockIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, lan)
		var last fleet.Time
		watch := func(what string, seconds int) {
			t.Helper()
			for range seconds {
				c.Submit(t, fleet.Submission{BodyMd: "x"})
				var now fleet.Time
				c.Node(c.Leader(t)).View(func(v fsm.View) { now = v.Now() })
				if off := now.Sub(fleet.TimeOf(time.Now())); off.Abs() > 6*time.Second {
					t.Fatalf("%s: the cluster's time is off by %s", what, off)
				}
				if now < last {
					t.Fatalf("%s: the cluster's time went back by %s", what, last.Sub(now))
				}
				last = now
				time.Sleep(time.Second)
			}
		}
		lead := func(i int) {
			t.Helper()
			if err := c.Node(c.Leader(t)).TransferLeadership(t.Context(), fmt.Sprintf("n%d", i+1)); err != nil {
				t.Fatal(err)
			}
			c.Until(t, "it leads", func() bool { return c.Node(i).IsLeader() })
		}
		watch("right clocks", 5)
		for _, wrong := range []struct {
			ahead time.Duration
			drift float64
		}{{24 * time.Hour, 0}, {-24 * time.Hour, 0}, {time.Hour, 0}, {-time.Hour, 0}, {0, 0.2}, {0, -0.2}} {
			i := c.Leader(t)
			c.SetClock(i, wrong.ahead, wrong.drift)
			watch(fmt.Sprintf("the leader's clock is %+v", wrong), 40)
			lead((i + 1) % 3)
			watch(fmt.Sprintf("a follower's clock is %+v", wrong), 20)
			lead(i)
			watch(fmt.Sprintf("a new leader's clock is %+v", wrong), 20)
			c.Kill(t, i)
			watch(fmt.Sprintf("after a leader whose clock was %+v", wrong), 20)
			c.Restart(t, i)
			c.SetClock(i, 0, 0)
			c.Ready(t)
		}
	})
}
