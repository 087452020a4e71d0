package check_test

// This file tests the one moment in which only verification stands between a client and a stale read.

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// A leader whose successor is elected, but that has not heard of it, serves no linearizable read: it would not know what
// its successor has acknowledged.
func TestDeposedLeaderServesNoStaleRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		old, next := usurped(t, c)
		s := fleet.Submission{BodyMd: "newer"}
		s.Normalize()
		a, err := c.Node(next).Propose(t.Context(), fsm.Proposal{Caller: root, Command: &fsm.Submit{ProductID: product, JobID: "newer", Submission: s}})
		if err != nil || a.Err != nil {
			t.Fatalf("submitting by the new leader: got %v, %v", err, a.Err)
		}
		found := false
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		err = c.Node(old).Read(ctx, cluster.Linearizable, 0, func(v fsm.View) { _, found = v.Job(product, "newer") })
		if err == nil && !found {
			t.Error("the old leader served a read without a job that was acknowledged before")
		}
		c.Heal()
	})
}

// usurped brings about that two nodes believe that they lead, and that the older one hears nothing any more. Which word is
// faster, that of the election or the new leader's question for the time, is chance: it tries until it is the latter.
func usurped(t *testing.T, c *testcluster.Cluster) (old, next int) {
	t.Helper()
	name := func(i int) string { return fmt.Sprintf("n%d", i+1) }
	for attempt := range 40 {
		old = c.Leader(t)
		next = (old + 1 + attempt%2) % c.Size()
		for i := range c.Size() {
			for k := range i {
				c.Network().Delay(name(i), name(k), 0)
				if i == old || k == old {
					c.Network().Delay(name(i), name(k), time.Duration(1+attempt%8)*time.Millisecond)
				}
			}
		}
		c.Kill(t, next) // so that it must dial before it can say anything to the old leader
		c.Restart(t, next)
		c.Ready(t)
		time.Sleep(time.Second)
		if !c.Node(old).IsLeader() {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		go func() { _ = c.Node(old).TransferLeadership(ctx, name(next)) }()
		for end := time.Now().Add(100 * time.Millisecond); !c.Node(next).IsLeader() && time.Now().Before(end); {
			time.Sleep(time.Millisecond / 4)
		}
		if c.Node(next).IsLeader() && c.Node(old).IsLeader() {
			for i := range c.Size() {
				if i != old {
					c.Network().CutOneWay(name(i), name(old))
				}
			}
			t.Cleanup(cancel)
			return old, next
		}
		time.Sleep(time.Second)
		cancel()
	}
	t.Fatal("no leader was ever deposed without hearing of it at once")
	return 0, 0
}
