package cluster

// This file tests that the followers of an idle cluster hear of a commit at once.

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
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

// Raft's warning about it would be common; it is no fault. All others stay.
func TestWarningOfAMissingEntryIsKeptLow(t *testing.T) {
	l := &recorder{}
	quiet := raftLogger{l}
	quiet.Warn("failed to get previous log")
	quiet.Warn("heartbeat timeout reached")
	if len(l.debugs) != 1 || len(l.warnings) != 1 || l.warnings[0] != "heartbeat timeout reached" {
		t.Errorf("got warnings %q and debug %q, want one each", l.warnings, l.debugs)
	}
}

// recorder keeps the messages of two levels.
type recorder struct {
	hclog.Logger
	warnings, debugs []string
}

func (r *recorder) Warn(message string, _ ...any)  { r.warnings = append(r.warnings, message) }
func (r *recorder) Debug(message string, _ ...any) { r.debugs = append(r.debugs, message) }
