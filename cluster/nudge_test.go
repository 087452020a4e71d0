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
