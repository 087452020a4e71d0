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
		if err := l.Gather(c.store, nil, c.applied); err != nil {
			t.Fatal(err)
		}
		if l.Last() != c.want {
			t.Fatalf("got the log up to %d, want %d", l.Last(), c.want)
		}
	}
	if err := l.Agrees(late, nil, 20); err != nil {
		t.Errorf("a compacted log that agrees: got %v", err)
	}
	if err := late.StoreLog(&raft.Log{Index: 18, Term: 30, Type: raft.LogCommand}); err != nil {
		t.Fatal(err)
	}
	if err := l.Agrees(late, nil, 20); err == nil || !strings.Contains(err.Error(), "entry 18") {
		t.Errorf("a log that changed: got %v, want entry 18 named", err)
	}
	if err := l.Agrees(entries(t, 12), nil, 20); err == nil || !strings.Contains(err.Error(), "entry 13") {
		t.Errorf("a log that lost its end: got %v, want entry 13 named", err)
	}
	if err := l.Gather(entries(t, 21), nil, 30); err == nil {
		t.Error("a node that applied what its log has not: got no error")
	}
}

// A node that was given a snapshot may have a hole before it in its log, and none that no snapshot covers.
func TestLogHasAHoleBeforeASnapshot(t *testing.T) {
	store := entries(t, 20)
	var l check.Log
	if err := l.Gather(store, nil, 20); err != nil {
		t.Fatal(err)
	}
	holed := entries(t, 20)
	if err := holed.DeleteRange(8, 15); err != nil {
		t.Fatal(err)
	}
	snapshots := func(index uint64) raft.SnapshotStore {
		s := raft.NewInmemSnapshotStore()
		sink, err := s.Create(raft.SnapshotVersionMax, index, index, raft.Configuration{}, 0, nil)
		if err == nil {
			err = sink.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		snapshots raft.SnapshotStore
		gone      string
	}{{nil, "entry 8"}, {snapshots(14), "entry 15"}, {snapshots(15), ""}, {snapshots(18), ""}} {
		err := l.Agrees(holed, c.snapshots, 20)
		if (err == nil) != (c.gone == "") || err != nil && !strings.Contains(err.Error(), c.gone) {
			t.Errorf("got %v, want %q gone", err, c.gone)
		}
	}
	var late check.Log
	if err := late.Gather(holed, snapshots(15), 20); err != nil || late.Last() != 7 {
		t.Errorf("gathering from it: got %v and the log up to %d, want it up to 7: another node has what is between", err, late.Last())
	}
	if err := late.Gather(holed, snapshots(7), 20); err == nil {
		t.Error("gathering where no snapshot covers the hole: got no error")
	}
}
