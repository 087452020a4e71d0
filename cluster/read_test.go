package cluster

// This file tests what a linearizable read rests on.

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// A leader that reaches no voter but itself can't read, however many non-voters hear it: raft's VerifyLeader counts them.
func TestNonvotersConfirmNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes := threeMembers(t, network)
		leader := nodes[0]
		member(t, network, Config{Name: "n4", Join: three})
		for end := time.Now().Add(time.Minute); !leader.hasNonvoter(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the fourth node never joined")
			}
		}
		time.Sleep(20 * time.Millisecond) // it hears the leader, and is not promoted yet
		if !leader.hasNonvoter() {
			t.Fatal("the fourth node is a voter already")
		}
		network.Cut(leader.Name(), nodes[1].Name())
		network.Cut(leader.Name(), nodes[2].Name())
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := leader.Read(ctx, Linearizable, 0, func(fsm.View) {}); err == nil {
			t.Error("a leader that was cut off from the other voters answered a linearizable read")
		}
	})
}

// Who waits for a confirmation that raft forgets when it shuts down does not wait for ever.
func TestConfirmationEndsWithItsNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		leader := threeMembers(t, network)[0]
		network.Cut("n1", "n2")
		network.Cut("n2", "n3")
		network.Cut("n1", "n3")
		closed := make(chan struct{})
		f := leader.raft.VerifyLeader() // it is under way until the leader gives up
		endWith(f, closed)
		close(closed)
		began := time.Now()
		if err := f.Error(); !errors.Is(err, raft.ErrRaftShutdown) || time.Since(began) != 0 {
			t.Errorf("once its node has closed: got %v after %v, want %v at once", err, time.Since(began), raft.ErrRaftShutdown)
		}
	})
}
