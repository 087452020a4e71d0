package cluster

// This file tests claims that wait, in virtual time.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// must proposes as root and fails the test at an error or a refusal.
func must(t *testing.T, n *Node, c fsm.Command) fsm.Answer {
	t.Helper()
	a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c})
	if err != nil || a.Err != nil {
		t.Fatalf("proposing %T: %v, %v", c, err, a.Err)
	}
	return a
}

func register(t *testing.T, n *Node, id string, seats int64) {
	t.Helper()
	must(t, n, &fsm.Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, SeatLimit: &seats}})
}

// claiming is a claim that waits.
type claiming struct {
	done   chan struct{}
	answer fsm.Answer
	err    error
	took   time.Duration
}

func claim(t *testing.T, n *Node, factory string, wait time.Duration) *claiming {
	t.Helper()
	p := fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Claim{ProductID: "p", FactoryID: factory, LeaseSeconds: 60}}
	c := claimWith(n, p, wait)
	synctest.Wait() // it stands in line
	return c
}

func claimWith(n *Node, p fsm.Proposal, wait time.Duration) *claiming {
	c := &claiming{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		began := time.Now()
		c.answer, c.err = n.Claim(context.Background(), p, wait)
		c.took = time.Since(began)
	}()
	return c
}

// job is what the claim was granted, empty for nothing or as long as it waits.
func (c *claiming) job() string {
	if !isDone(c.done) || c.err != nil || c.answer.Err != nil {
		return ""
	}
	if j := c.answer.Result.(*fleet.Claim).Job; j != nil {
		return j.ID
	}
	return ""
}

func oneNode(t *testing.T) *Node {
	t.Helper()
	n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1})
	eventually(t, "it is in the table of servers", func() bool { return len(known(n)) == 1 })
	time.Sleep(time.Second) // what a new cluster writes about itself is written
	return n
}

// Waiters are served in their order of arrival, and a job wakes one of them alone: the others write nothing to the log.
func TestWaitersAreServedInOrder(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := oneNode(t)
		var waiting []*claiming
		for i := range 5 {
			id := fmt.Sprintf("f%d", i)
			register(t, n, id, 1)
			waiting = append(waiting, claim(t, n, id, time.Minute))
		}
		for i, w := range waiting {
			before := n.machine.Index()
			id := fmt.Sprintf("j%d", i)
			must(t, n, submit(id))
			<-w.done
			if w.job() != id {
				t.Errorf("waiter %d: got job %q, %v, want %s", i, w.job(), w.err, id)
			}
			synctest.Wait()
			if wrote := n.machine.Index() - before; wrote != 2 {
				t.Errorf("a submit and its claim wrote %d entries, want 2", wrote)
			}
			for _, later := range waiting[i+1:] {
				if isDone(later.done) {
					t.Error("a later waiter was answered too")
				}
			}
		}
	})
}

// A waiter on any node hears of a job within 100 ms of its appearing on any other.
func TestWaitersWakeOnEveryNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		for i, n := range nodes {
			id := fmt.Sprintf("f%d", i)
			register(t, n, id, 1)
			w := claim(t, n, id, time.Minute)
			for j := range 10 { // not only right after other writes
				time.Sleep(time.Duration(j) * 10 * time.Millisecond)
			}
			began := time.Now()
			must(t, nodes[(i+1)%3], submit(id))
			<-w.done
			if took := time.Since(began); w.job() != id || took > 100*time.Millisecond {
				t.Errorf("on node %d: got job %q after %v, %v, want %s within 100 ms", i, w.job(), took, w.err, id)
			}
		}
	})
}

// A caller that lost a claim asks again under its key, while what it lost may still wait, at the same node or another: what one of them is
// granted is the answer to both, at once.
func TestWaitersUnderOneKey(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		register(t, nodes[0], "f1", 1)
		p := fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Key: "k", Command: &fsm.Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60}}
		var claims []*claiming
		for _, n := range []*Node{nodes[0], nodes[0], nodes[1], nodes[2]} {
			claims = append(claims, claimWith(n, p, 30*time.Second))
			synctest.Wait()
		}
		must(t, nodes[0], submit("j1"))
		for i, c := range claims {
			<-c.done
			if c.job() != "j1" || c.took > 5*time.Second {
				t.Errorf("claim %d: got %q, %v after %s, want j1 at once", i, c.job(), c.err, c.took)
			}
		}
		if len(nodes[0].waiters.repeats) > 0 {
			t.Error("keys of claims that have ended are kept")
		}
	})
}

// A waiter whose time is over, or whose node is drained, gets nothing, and no error.
func TestWaitersEndWithNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := oneNode(t)
		register(t, n, "f1", 2)
		before := n.machine.Index()
		if w := claim(t, n, "f1", 7*time.Second); !isDone(w.done) {
			<-w.done
			if w.job() != "" || w.err != nil || w.answer.Err != nil || w.took != 7*time.Second {
				t.Errorf("got %+v, %v after %v, want nothing after 7 s", w.answer, w.err, w.took)
			}
		}
		if wrote := n.machine.Index() - before; wrote != 0 {
			t.Errorf("a claim that got nothing wrote %d entries, want none", wrote)
		}
		w := claim(t, n, "f1", time.Minute)
		n.Drain(t.Context())
		<-w.done
		if w.job() != "" || w.err != nil || w.answer.Err != nil || w.took > time.Second {
			t.Errorf("at a drain: got %+v, %v after %v, want nothing at once", w.answer, w.err, w.took)
		}
	})
}

// Without a leader for 5 s a waiter gets nothing, also one that a job had been promised to; a short time without one it sits out.
func TestWaitersWithoutALeader(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes := threeMembers(t, network)
		follower := nodes[1]
		register(t, follower, "f1", 1)
		w := claim(t, follower, "f1", time.Minute)
		time.Sleep(200 * time.Millisecond) // it stands in line once this node has caught up
		for _, n := range []*Node{nodes[0], nodes[2]} {
			network.Cut(follower.Name(), n.Name())
		}
		<-w.done
		if w.job() != "" || w.err != nil || w.answer.Err != nil || w.took < 5*time.Second || w.took > 8*time.Second {
			t.Errorf("cut off: got %+v, %v after %v, want nothing after about 5 s", w.answer, w.err, w.took)
		}
		network.Heal()
		eventually(t, "the node has a leader again", func() bool { return follower.Ready() == nil })

		w = claim(t, follower, "f1", time.Minute)
		time.Sleep(200 * time.Millisecond)
		leader := leaderOf(nodes)
		leader.Kill()
		must(t, follower, submit("j1")) // it was cut off just now, so it did not lead
		<-w.done
		if w.job() != "j1" {
			t.Errorf("after an election: got job %q, %v, %v, want j1", w.job(), w.answer.Err, w.err)
		}
	})
}

// Who has no seat goes on waiting and is passed over, until a seat is free; who is refused for good hears so, and nothing is written.
func TestWaitersThatAreRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := oneNode(t)
		register(t, n, "f1", 1)
		register(t, n, "f2", 1)
		first, second, other := claim(t, n, "f1", time.Minute), claim(t, n, "f1", time.Minute), claim(t, n, "f2", time.Minute)
		must(t, n, submit("j1"))
		<-first.done
		must(t, n, submit("j2"))
		<-other.done
		if first.job() != "j1" || other.job() != "j2" || isDone(second.done) {
			t.Errorf("got %q and %q, want j1 and j2, and one without a seat that waits", first.job(), other.job())
		}
		must(t, n, submit("j3"))
		must(t, n, &fsm.Release{ProductID: "p", JobID: "j1", LeaseEpoch: 1, DelaySeconds: 3600})
		<-second.done
		if second.job() != "j3" {
			t.Errorf("after a seat was freed: got %q, %v, want j3", second.job(), second.answer.Err)
		}

		before := n.machine.Index()
		unknown := claim(t, n, "nobody", time.Minute)
		<-unknown.done
		if unknown.answer.Err == nil || !errors.Is(unknown.answer.Err, fleet.UnknownFactory) || unknown.took > time.Second {
			t.Errorf("an unknown factory: got %v after %v, want %v at once", unknown.answer.Err, unknown.took, fleet.UnknownFactory)
		}
		if wrote := n.machine.Index() - before; wrote != 0 {
			t.Errorf("its claim wrote %d entries, want none", wrote)
		}
	})
}

// A node that gets its state by a snapshot wakes its waiters and its feeds: the entries in it bring it no news of their own.
func TestWaitersHearOfASnapshot(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := oneNode(t)
		register(t, n, "f1", 2)
		must(t, n, submit("j1"))
		var stream bytes.Buffer
		if _, err := n.machine.Handle().WriteTo(&stream); err != nil {
			t.Fatal(err)
		}
		must(t, n, &fsm.Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 3600})
		w := &waiter{product: "p", factory: "f1", woken: make(chan struct{}, 1), proposal: &fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}}}
		n.waiters.add(w)
		defer n.waiters.remove(w)
		feed := n.FeedChanged("p")
		if err := n.applier.Restore(io.NopCloser(&stream)); err != nil {
			t.Fatal(err)
		}
		<-feed
		<-w.woken
	})
}
