package cluster

// This file tests that the followers of an idle cluster hear of a commit at once.

import (
	"testing"
	"time"
)

func TestFollowersHearOfACommitAtOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		time.Sleep(time.Second) // what a new cluster writes about itself is written
		for i := range 20 {
			time.Sleep(time.Duration(i) * 7 * time.Millisecond) // anywhere in raft's own rhythm
			began := time.Now()
			a := must(t, nodes[i%3], submit(string(rune('a'+i))))
			for _, n := range nodes {
				if err := n.awaitIndex(t.Context(), a.Index); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took > 2*nudgeAfter {
				t.Fatalf("all nodes had entry %d after %v, want at most %v", a.Index, took, 2*nudgeAfter)
			}
		}
	})
}

// A follower that stores the entry late, or is still being told of an earlier one, hears of it as soon as it has it.
func TestSlowFollowerHearsOfACommitSoon(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes := threeMembers(t, network)
		time.Sleep(time.Second)
		slow := nodes[2]
		network.Delay(nodes[0].Name(), slow.Name(), 5*time.Millisecond)
		time.Sleep(time.Second)
		for i := range 20 {
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
			must(t, nodes[0], submit(string(rune('a'+i))))
			time.Sleep(3 * time.Millisecond) // the next comes while the follower is being told of this one
			a := must(t, nodes[0], submit(string(rune('A'+i))))
			began := time.Now()
			if err := slow.awaitIndex(t.Context(), a.Index); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 45*time.Millisecond {
				t.Fatalf("a follower 5 ms away had entry %d after %v, want at most 45ms", a.Index, took)
			}
		}
	})
}
