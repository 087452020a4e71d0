package cluster

// This file tests what a leader makes of what voters had, and what a node makes of what the log says.

import (
	"errors"
	"strconv"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// A majority is one of all voters, silent ones too, and of one hash and version.
func TestJudgeCheckpoints(t *testing.T) {
	a, b, newer := fsm.Checkpoint{Index: 1000, Hash: 1, Version: 1}, fsm.Checkpoint{Index: 1000, Hash: 2, Version: 1}, fsm.Checkpoint{Index: 1000, Hash: 2, Version: 2}
	for _, c := range []struct {
		what     string
		voters   int
		answers  []fsm.Checkpoint
		agreed   *fsm.Checkpoint
		conflict bool
	}{
		{"alone", 1, []fsm.Checkpoint{a}, &a, false},
		{"two of two", 2, []fsm.Checkpoint{a, a}, &a, false},
		{"one of two", 2, []fsm.Checkpoint{a}, nil, false},
		{"a tie", 2, []fsm.Checkpoint{a, b}, nil, true},
		{"two of three, one down", 3, []fsm.Checkpoint{a, a}, &a, false},
		{"one of three, two down", 3, []fsm.Checkpoint{a}, nil, false},
		{"one of three differs", 3, []fsm.Checkpoint{a, b, b}, &b, true},
		{"all of three differ by version", 3, []fsm.Checkpoint{a, newer}, nil, false},
		{"most have a newer version", 3, []fsm.Checkpoint{a, newer, newer}, &newer, false},
		{"two of four", 4, []fsm.Checkpoint{a, a, b, newer}, nil, true},
		{"two of five, which is most of those that answered", 5, []fsm.Checkpoint{a, a, newer}, nil, false},
	} {
		answers := map[string]fsm.Checkpoint{}
		for i, have := range c.answers {
			answers[strconv.Itoa(i)] = have
		}
		got := judgeCheckpoints(answers, c.voters)
		if (got.agreed == nil) != (c.agreed == nil) || got.agreed != nil && *got.agreed != *c.agreed || got.conflict != c.conflict {
			t.Errorf("%s: got %+v, want %+v, conflict %t", c.what, got, c.agreed, c.conflict)
		}
	}
}

// A node ends only by the leader's word about a checkpoint and a version that it knows.
func TestNodeJudgesWhatTheLogSays(t *testing.T) {
	m := fsm.New()
	m.Apply(5, &fsm.Entry{Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Bootstrap{ClusterID: "c"}}}})
	m.Skip(1001)
	own, known := m.Checkpoint(1000)
	if !known {
		t.Fatal("the machine does not know checkpoint 1000")
	}
	p := newProver(&Node{machine: m, cfg: Config{HashVersion: fsm.HashVersion, DataDir: "dir"}})
	for _, c := range []struct {
		what  string
		actor string
		says  fsm.Checkpoint
		ends  bool
	}{
		{"the same", fsm.ActorFleet, own, false},
		{"another hash", fsm.ActorFleet, fsm.Checkpoint{Index: 1000, Hash: own.Hash + 1, Version: own.Version}, true},
		{"another version", fsm.ActorFleet, fsm.Checkpoint{Index: 1000, Hash: own.Hash + 1, Version: own.Version + 1}, false},
		{"another checkpoint", fsm.ActorFleet, fsm.Checkpoint{Index: 2000, Hash: own.Hash + 1, Version: own.Version}, false},
		{"by somebody else", fsm.ActorRoot, fsm.Checkpoint{Index: 1000, Hash: own.Hash + 1, Version: own.Version}, false},
	} {
		a := newApplier(m)
		var why error
		a.judge, a.fatal = p.judge, func(err error) { why = err }
		data, err := fsm.AppendEntry(nil, &fsm.Entry{Group: [16]byte{1}, Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: c.actor}, Command: &c.says}}})
		if err != nil {
			t.Fatal(err)
		}
		var g heard[groupWaiter]
		a.expect([16]byte{1}, g.settle)
		l := &raft.Log{Index: 1002, Term: 1, Type: raft.LogCommand, Data: append((&envelope{term: 1}).append(nil), data...)}
		l.Extensions = checksum(l)
		a.Apply(l)
		if (why != nil) != c.ends || c.ends && (!errors.Is(why, ErrStorage) || !errors.Is(why, fsm.ErrDiverged)) {
			t.Errorf("%s: the node ended with %v, want an end: %t", c.what, why, c.ends)
		}
		if answered := g.of != nil; answered == c.ends {
			t.Errorf("%s: answered %t", c.what, answered)
		}
	}
}
