package check_test

// This file tests the gathering of the log: across compaction, and when a node changed what was committed.

import (
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

// entries is a store with some entries, the i-th of term i.
func entries(t *testing.T, n uint64) *raft.InmemStore {
	t.Helper()
	store := raft.NewInmemStore()
	data, err := fsm.AppendEntry(nil, &fsm.Entry{Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Noop{}}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := store.StoreLog(&raft.Log{Index: i + 1, Term: i + 1, Type: raft.LogCommand, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func TestLogIsGatheredAcrossCompaction(t *testing.T) {
	store, late := entries(t, 20), entries(t, 20)
	if err := late.DeleteRange(1, 15); err != nil {
		t.Fatal(err)
	}
	var l check.Log
	for _, c := range []struct {
		store   *raft.InmemStore
		applied uint64
		want    uint64
	}{{late, 20, 0}, {store, 10, 10}, {late, 20, 10}, {store, 15, 15}, {late, 20, 20}} {
		if err := l.Gather(c.store, c.applied); err != nil {
			t.Fatal(err)
		}
		if l.Last() != c.want {
			t.Fatalf("got the log up to %d, want %d", l.Last(), c.want)
		}
	}
	if err := l.Agrees(late, 20); err != nil {
		t.Errorf("a compacted log that agrees: got %v", err)
	}
	if err := late.StoreLog(&raft.Log{Index: 18, Term: 30, Type: raft.LogCommand}); err != nil {
		t.Fatal(err)
	}
	if err := l.Agrees(late, 20); err == nil || !strings.Contains(err.Error(), "entry 18") {
		t.Errorf("a log that changed: got %v, want entry 18 named", err)
	}
	if err := l.Agrees(entries(t, 12), 20); err == nil || !strings.Contains(err.Error(), "entry 13") {
		t.Errorf("a log that lost its end: got %v, want entry 13 named", err)
	}
	if err := l.Gather(entries(t, 21), 30); err == nil {
		t.Error("a node that applied what its log has not: got no error")
	}
}
