package testcluster_test

// This file tests upgrades in virtual time: nodes of two releases in one cluster, forwards and back.

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// levelOf is the level that the i-th node has reached.
func levelOf(c *testcluster.Cluster, i int) (level int) {
	c.Node(i).View(func(v fsm.View) { level = v.Level() })
	return level
}

// swap restarts the i-th node, as an operator does, with the release that knows this level.
func swap(t *testing.T, c *testcluster.Cluster, i, level int) {
	t.Helper()
	c.Shutdown(t, i)
	c.Release(t, i, level)
	c.Restart(t, i)
	c.Ready(t)
}

// refuses starts the i-th node, which does not go on: it refuses to start, or ends by itself soon. The error is why.
func refuses(t *testing.T, c *testcluster.Cluster, i int) error {
	t.Helper()
	if err := c.TryRestart(t, i); err != nil {
		return err
	}
	select {
	case <-c.Node(i).Done():
	case <-time.After(time.Minute):
		t.Fatalf("node %d runs after a minute", i)
	}
	err := c.Node(i).Err()
	c.Kill(t, i)
	return err
}

// The level rises when the last node is upgraded, and not before: until then any node may go back. After it a node of the old release
// ends before it acknowledges anything that it can't read, and is itself again with the new one.
func TestRollingUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.StartAtLevel(t, 3, 1)
		w := write(c, 1)
		stays := func(when string) {
			t.Helper()
			time.Sleep(6 * time.Second) // three greetings while the level lags
			for i := range c.Size() {
				if got := levelOf(c, i); got != 1 {
					t.Fatalf("%s: node %d is at level %d, want 1", when, i, got)
				}
			}
		}
		stays("before the upgrade")
		leader := c.Leader(t)
		first, second := (leader+1)%3, (leader+2)%3
		swap(t, c, first, 2)
		swap(t, c, second, 2)
		stays("with one node to go")
		swap(t, c, first, 1)
		stays("with one node that went back")
		if led := c.Leader(t); led != leader { // the old release leads or a new one does: neither raises it
			t.Logf("node %d leads, %d did", led, leader)
		}
		swap(t, c, leader, 2)
		stays("with another leader, and one node to go")
		c.Shutdown(t, first)
		time.Sleep(6 * time.Second)
		if got := levelOf(c, second); got != 1 {
			t.Fatalf("with one node down: got level %d, want 1: it may come back with either release", got)
		}
		c.Release(t, first, 1)
		c.Restart(t, first)
		c.Ready(t)
		stays("with the old release back")

		swap(t, c, first, 2)
		began := time.Now()
		c.Until(t, "the level has risen everywhere", func() bool { return levelOf(c, 0) == 2 && levelOf(c, 1) == 2 && levelOf(c, 2) == 2 })
		t.Logf("the level rose %s after the last node was ready", time.Since(began))

		c.Shutdown(t, second)
		c.Release(t, second, 1)
		err := refuses(t, c, second)
		if !errors.Is(err, cluster.ErrStorage) || !errors.Is(err, fsm.ErrFormat) || !strings.Contains(err.Error(), "start that release") {
			t.Errorf("the old release on what the new one wrote ended with %v, want %v and what to do", err, fsm.ErrFormat)
		}
		c.Release(t, second, 2)
		c.Restart(t, second)
		c.Ready(t)
		acknowledged, unknown := w.end(t)
		t.Logf("%d acknowledged, %d unknown", acknowledged, unknown)
		if acknowledged < 1000 {
			t.Errorf("only %d writes were acknowledged", acknowledged)
		}
		c.Converged(t)
	})
}

// A node that was stopped just before the level rose, and is started with the old release, does not diverge; neither does one that
// gets all of it as a snapshot, nor a whole cluster that goes back.
func TestNoWayBackOnceTheLevelRose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.StartAtLevel(t, 3, 1)
		c.SnapshotEvery(16 << 10)
		for i := range 3 {
			swap(t, c, i, 2)
		}
		c.Until(t, "the level has risen", func() bool { return levelOf(c, 0) == 2 && levelOf(c, 1) == 2 && levelOf(c, 2) == 2 })
		leader := c.Leader(t)
		old := (leader + 1) % 3
		c.Shutdown(t, old)
		body := strings.Repeat("instructions ", 100)
		for range 3 { // snapshots, of which the last begins after the level rose in the log that is left
			for range 100 {
				c.Submit(t, fleet.Submission{BodyMd: body})
			}
			time.Sleep(15 * time.Second)
		}
		c.Wipe(t, old)
		c.Release(t, old, 1)
		if err := refuses(t, c, old); !errors.Is(err, cluster.ErrTooOld) {
			t.Errorf("the old release on an empty disk ended with %v, want %v", err, cluster.ErrTooOld)
		}
		c.Release(t, old, 2)
		c.Restart(t, old)
		c.Ready(t)
		for i := range 3 {
			c.Shutdown(t, i)
			c.Release(t, i, 1)
		}
		for i := range 3 {
			if err := refuses(t, c, i); !errors.Is(err, cluster.ErrStorage) || !errors.Is(err, fsm.ErrFormat) {
				t.Errorf("node %d of a cluster that went back: got %v, want %v", i, err, fsm.ErrFormat)
			}
			c.Release(t, i, 2)
		}
		for i := range 3 {
			c.Restart(t, i)
		}
		c.Ready(t)
		c.Submit(t, fleet.Submission{BodyMd: "after"})
		c.Converged(t)
	})
}
