package fsm

// This file tests which hashes a machine remembers, and of which state they are.

import (
	"bytes"
	"testing"

	"github.com/lysnrai/fleet"
)

// Checkpoint n is the state before the first entry of the machine's own above 1,000·n: whatever indexes it has, and whatever
// raft's own entries moved the index meanwhile.
func TestCheckpoints(t *testing.T) {
	r := newReplica(t)
	at := func(index uint64) {
		r.index = index - 1
		must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "j" + string(rune('a'+index%26)) + "x", Submission: submission(nil)})
	}
	want := map[uint64]uint64{}
	at(3)
	if c, ok := r.m.LastCheckpoint(); ok {
		t.Errorf("before index 1000: got %+v, want none", c)
	}
	at(1000)
	want[1000] = r.m.Handle().StateHash()
	r.m.Skip(1001) // a configuration
	at(1002)
	at(1003)
	want[3000] = r.m.Handle().StateHash() // and of 2000, which nobody needs
	at(3017)
	for index, hash := range want {
		if c, ok := r.m.Checkpoint(index); !ok || c != (Checkpoint{index, hash, HashVersion}) {
			t.Errorf("checkpoint %d: got %+v, %t, want %016x", index, c, ok, hash)
		}
	}
	if c, ok := r.m.LastCheckpoint(); !ok || c.Index != 3000 {
		t.Errorf("the last: got %+v, %t, want 3000", c, ok)
	}
	if c, ok := r.m.Checkpoint(2000); ok {
		t.Errorf("checkpoint 2000: got %+v, want none", c)
	}
	for n := range uint64(keptCheckpoints) {
		r.m.Skip((4 + n) * 1000)
		r.m.Skip((4+n)*1000 + 1)
	}
	if _, ok := r.m.Checkpoint(3000); ok {
		t.Errorf("checkpoint 3000 after %d more: it is still remembered", keptCheckpoints)
	}
	if _, ok := r.m.Checkpoint(4000); !ok {
		t.Errorf("checkpoint 4000: it is not remembered")
	}
}

// A machine restored from a snapshot knows none from before it, and comes to the same as the others after it; but not one
// that lies between the snapshot and an entry that the snapshot has.
func TestCheckpointsAfterARestore(t *testing.T) {
	for _, c := range []struct {
		last uint64 // entry in the snapshot
		next uint64
		want bool
	}{{999, 1001, true}, {1000, 1001, true}, {1001, 1002, false}, {990, 1500, true}} {
		r := newReplica(t)
		r.index = c.last - 1
		r.submit("a", nil)
		replica := restored(t, snapshotOf(t, r.m))
		e := &Entry{Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: &Submit{ProductID: "p", JobID: "b", Submission: submission(nil)}}}}
		r.m.Apply(c.next, e)
		replica.Apply(c.next, e)
		whole, _ := r.m.Checkpoint(1000)
		got, ok := replica.Checkpoint(1000)
		if ok != c.want || ok && got != whole {
			t.Errorf("snapshot at %d, next entry %d: got %+v, %t, want %+v, %t", c.last, c.next, got, ok, whole, c.want)
		}
		if err := replica.Restore(bytes.NewReader(snapshotOf(t, r.m))); err != nil {
			t.Fatal(err)
		}
		if _, ok := replica.LastCheckpoint(); ok {
			t.Errorf("after another restore: a checkpoint of the history before is still known")
		}
	}
}

// What the leader logs changes nothing, and nobody else may log it.
func TestCheckpointCommandChangesNothing(t *testing.T) {
	r := newReplica(t)
	r.submit("a", nil)
	before := r.m.Hash()
	hash := kept(r.m)
	must1[*Done](r, &Checkpoint{Index: 1000, Hash: 7, Version: 1})
	r.m.st.index-- // the entry's, not the command's
	if r.m.Hash() != before || kept(r.m) != hash {
		t.Errorf("a checkpoint changed the state")
	}
	answers, _ := r.m.Apply(9, &Entry{Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: &Checkpoint{Index: 1000}}}})
	if answers[0].Err == nil || answers[0].Err.Code != fleet.Forbidden {
		t.Errorf("a checkpoint by root: got %+v, want %s", answers[0], fleet.Forbidden)
	}
}
