package fsm

// This file tests that what an older release must be able to read is as it wrote it, and that what it can't is refused.

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// raiseLevel takes a machine to a level.
func raiseLevel(t *testing.T, m *Machine, to int) {
	t.Helper()
	a, _ := m.Apply(m.Index()+1, &Entry{Stamp: epoch, Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Level{To: to}}}})
	if a[0].Err != nil {
		t.Fatalf("raising the level to %d: %v", to, a[0].Err)
	}
}

// The commands of the first release are of its level; every later one says that it is of a later level.
func TestLevelOf(t *testing.T) {
	const lastOfLevel1 = 23
	for _, row := range commands {
		level := LevelOf(row.new())
		switch {
		case row.number <= lastOfLevel1 && level != firstLevel:
			t.Errorf("%T: got level %d, want %d: what the first release wrote must be read for ever", row.new(), level, firstLevel)
		case row.number > lastOfLevel1 && (level <= firstLevel || level > MaxLevel):
			t.Errorf("%T: got level %d, want a later one than %d, at most %d: give it one in LevelOf", row.new(), level, firstLevel, MaxLevel)
		}
	}
}

// An entry is as new as the newest that is in it, and a build that knows less says so.
func TestEntryBeginsWithItsLevel(t *testing.T) {
	if b := sampleEntry(t); b[0] != firstLevel {
		t.Errorf("an entry of the first release's commands: got level %d, want %d", b[0], firstLevel)
	}
	e := &Entry{Stamp: epoch, Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Noop{}}, {Caller: Caller{ActorFleet}, Command: &Level{To: 2}}}}
	b, err := AppendEntry(nil, e)
	if err != nil || b[0] != 2 {
		t.Fatalf("an entry that raises the level to 2: got %v, %v, want level 2", b, err)
	}
	if _, err := DecodeEntry(b); err != nil {
		t.Errorf("reading it: %v", err)
	}
	b[0] = firstLevel
	if _, err := DecodeEntry(b); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an entry that claims an older level than its commands: got %v, want %v", err, ErrCorrupt)
	}
	e.Proposals[1].Command = &Level{To: MaxLevel + 1}
	if _, err := AppendEntry(nil, e); err == nil {
		t.Errorf("an entry of level %d was encoded, which this build does not know", MaxLevel+1)
	}
	if _, err := AppendProposal(nil, &e.Proposals[1]); err == nil {
		t.Errorf("a proposal of level %d was encoded, which this build does not know", MaxLevel+1)
	}
}

// The level rises and never falls.
func TestLevelOnlyRises(t *testing.T) {
	m := New()
	for _, c := range []struct{ to, want int }{{1, 1}, {0, 1}, {2, 2}, {1, 2}, {2, 2}} {
		raiseLevel(t, m, c.to)
		if got := m.Level(); got != c.want {
			t.Errorf("raised to %d: got level %d, want %d", c.to, got, c.want)
		}
	}
	for _, actor := range []string{ActorRoot, ActorAnonymous} {
		m := New()
		a, _ := m.Apply(1, &Entry{Proposals: []Proposal{{Caller: Caller{actor}, Command: &Level{To: 2}}}})
		if !errors.Is(error(a[0].Err), fleet.Forbidden) || m.Level() != 1 {
			t.Errorf("%s: got %v and level %d, want %v", actor, a[0].Err, m.Level(), fleet.Forbidden)
		}
	}
}

// A snapshot carries the level in the byte that an older release looks at first, and a state of the first level leaves no trace of it.
func TestSnapshotCarriesTheLevel(t *testing.T) {
	m := furnished(t)
	before, hash := snapshotOf(t, m), m.Hash()
	if got := before[len(snapshotMagic)]; got != firstLevel {
		t.Errorf("a snapshot of level 1: got level %d", got)
	}
	raiseLevel(t, m, 2)
	if m.Hash() == hash {
		t.Error("two states of different levels have one hash")
	}
	file := snapshotOf(t, m)
	if got := file[len(snapshotMagic)]; got != 2 {
		t.Errorf("a snapshot of level 2: got level %d", got)
	}
	if got := restored(t, file); got.Level() != 2 || got.Hash() != m.Hash() {
		t.Errorf("restored: got level %d, want 2 and the same state", got.Level())
	}
	newer := bytes.Clone(file)
	newer[len(snapshotMagic)] = MaxLevel + 1
	if err := New().Restore(bytes.NewReader(newer)); !errors.Is(err, ErrFormat) || !errors.Is(err, fleet.InvalidSnapshot) {
		t.Errorf("a snapshot of a newer level: got %v, want %v", err, ErrFormat)
	}
}

// A restore keeps the cluster's level: a file below it is welcome, one above it is refused.
func TestRestoreKeepsTheLevel(t *testing.T) {
	low, high := furnished(t), furnished(t)
	raiseLevel(t, high, 2)
	for _, file := range [][]byte{snapshotOf(t, low), snapshotOf(t, high)} {
		m := New()
		raiseLevel(t, m, 2)
		stream := raised(t, m, file, 0, epoch)
		if stream[len(snapshotMagic)] != 2 || !IsRaised(stream[:RaisedHead]) {
			t.Errorf("the raised stream begins with %q, want level 2", stream[:RaisedHead])
		}
		bring(t, m, stream)
		if m.Level() != 2 || restored(t, snapshotOf(t, m)).Level() != 2 {
			t.Errorf("got level %d after a restore, want 2", m.Level())
		}
	}
	b, err := ReadBackup(bytes.NewReader(snapshotOf(t, high)))
	if err != nil || b.Level != 2 {
		t.Fatalf("reading a backup of level 2: got %+v, %v", b, err)
	}
	if _, err := low.Raise(b, 0, epoch); !errors.Is(err, fleet.InvalidSnapshot) || !strings.Contains(err.Error(), "level 2") {
		t.Errorf("a backup of level 2 for a cluster at level 1: got %v, want %v in words", err, fleet.InvalidSnapshot)
	}
}
