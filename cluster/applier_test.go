package cluster

// This file tests what the log tells those who wait: the answers to a frame, or that it can never come any more.

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// logged is an entry as raft hands it to the state machine.
func logged(t testing.TB, index, term uint64, head envelope, commands ...fsm.Command) *raft.Log {
	t.Helper()
	e := &fsm.Entry{Stamp: fleet.Time(1e18).Add(int64(index)), Group: [16]byte{byte(index)}}
	for _, c := range commands {
		e.Proposals = append(e.Proposals, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c})
	}
	body, err := fsm.AppendEntry(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	l := &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: append(head.append(nil), body...)}
	l.Extensions = checksum(l)
	return l
}

func submit(id string) *fsm.Submit {
	s := fleet.Submission{BodyMd: id}
	s.Normalize()
	return &fsm.Submit{ProductID: "p", JobID: id, Submission: s}
}

// heard is what those who wait for a group or a frame were told; nil: nothing yet.
type heard[W any] struct{ of *W }

func (h *heard[W]) settle(w *W) { h.of = w }

// A follower that lost its connection reads the answers to its frame from its own log.
func TestFrameIsAnsweredFromTheLog(t *testing.T) {
	a := newApplier(fsm.New())
	var w heard[frameWaiter]
	a.expectFrame(frameID{7}, 3, w.settle)
	a.Apply(logged(t, 1, 3, envelope{term: 3}, submit("j1")))
	if w.of != nil {
		t.Fatal("another entry of the term ended the wait")
	}
	a.Apply(logged(t, 2, 3, envelope{term: 3, frames: []placed{{frameID{7}, 1, 1}}}, submit("j2"), submit("j3")))
	if w.of == nil || len(w.of.answers) != 1 || w.of.answers[0].Result.(*fleet.SubmitResult).Job.ID != "j3" {
		t.Errorf("answers of the frame: got %+v, want that of j3", w.of)
	}
}

// The first entry of a later term proves that a frame of an earlier one can't be committed any more.
func TestFrameIsGivenUpAtALaterTerm(t *testing.T) {
	a := newApplier(fsm.New())
	var w heard[frameWaiter]
	a.expectFrame(frameID{7}, 3, w.settle)
	a.Apply(logged(t, 1, 3, envelope{term: 3}, submit("j1")))
	if w.of != nil {
		t.Fatal("an entry of its own term ended the wait")
	}
	a.Apply(logged(t, 3, 4, envelope{term: 4}, &fsm.LeaderChange{}))
	if w.of == nil || !w.of.passed {
		t.Error("after an entry of term 4: want a frame of term 3 to be given up")
	}
	var late heard[frameWaiter]
	a.expectFrame(frameID{8}, 3, late.settle)
	if late.of == nil || !late.of.passed {
		t.Error("a frame of term 3 that is sent after an entry of term 4: want it to be given up at once")
	}
}

// What a snapshot brings may hold a frame: it is never said that it was not proposed.
func TestFrameMayBeInASnapshot(t *testing.T) {
	var stream bytes.Buffer
	if _, err := fsm.New().Handle().WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	a := newApplier(fsm.New())
	renewed := false
	a.renewed = func() { renewed = true }
	var w heard[frameWaiter]
	a.expectFrame(frameID{7}, 3, w.settle)
	if err := a.Restore(io.NopCloser(&stream)); err != nil {
		t.Fatal(err)
	}
	a.Apply(logged(t, 3, 4, envelope{term: 4}, &fsm.LeaderChange{}))
	if w.of == nil || w.of.passed || w.of.answers != nil {
		t.Errorf("after a snapshot and a later term: got %+v, want a frame of which nothing is known", w.of)
	}
	if !renewed {
		t.Error("nobody was told that the state is another")
	}
}

// An entry that landed in another term than it was stamped in changes nothing: those who sent its frames have given it up.
func TestEntryOfAnotherTermIsVoid(t *testing.T) {
	a := newApplier(fsm.New())
	l := logged(t, 5, 9, envelope{term: 7}, submit("j1"))
	var g heard[groupWaiter]
	a.expect([16]byte{5}, g.settle)
	if got := a.Apply(l); got != nil {
		t.Errorf("applying it: got %v, want nothing", got)
	}
	a.machine.View(func(v fsm.View) {
		if _, found := v.Job("p", "j1"); found || v.Index() != 5 {
			t.Errorf("after it: got job %t at index %d, want none at 5", found, v.Index())
		}
	})
	if g.of == nil {
		t.Fatal("its proposer was not told")
	}
	if _, err := g.of.outcome(); !errors.Is(err, errNotProposed) {
		t.Errorf("its proposer: got %v, want %v", err, errNotProposed)
	}
}

// The place of an entry may become known at the very moment at which it is applied there, or a snapshot brings it: neither is to say that
// it was not proposed.
func TestPlaceBecomesKnownWhileItIsApplied(t *testing.T) {
	m := fsm.New()
	a := newApplier(m)
	var g heard[groupWaiter]
	a.expect([16]byte{5}, g.settle)
	a.passed = func(index uint64) { a.dispatched([16]byte{5}, index) } // the machine is there, the answers are not given yet
	a.Apply(logged(t, 5, 9, envelope{term: 9}, submit("j1")))
	if g.of == nil || g.of.passed || len(g.of.answers) != 1 {
		t.Errorf("applied at its place: got %+v, want its answer", g.of)
	}

	var stream bytes.Buffer
	if _, err := m.Handle().WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	a = newApplier(fsm.New())
	g = heard[groupWaiter]{}
	a.expect([16]byte{5}, g.settle)
	if err := a.machine.Restore(&stream); err != nil { // as the applier's own Restore begins
		t.Fatal(err)
	}
	a.dispatched([16]byte{5}, 5)
	if g.of != nil {
		t.Errorf("while a snapshot is restored: got %+v, want nothing yet", g.of)
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	want := envelope{term: 1 << 40, frames: []placed{{frameID{1}, 0, 3}, {frameID{2}, 3, 1 << 20}}}
	got, rest, err := openEnvelope(append(want.append(nil), "body"...))
	if err != nil || string(rest) != "body" || got.term != want.term || len(got.frames) != 2 || got.frames[0] != want.frames[0] || got.frames[1] != want.frames[1] {
		t.Errorf("got %+v, %q, %v, want %+v", got, rest, err, want)
	}
}

// A newer format is refused, never skipped.
func TestEnvelopeOfANewerFormatEndsTheNode(t *testing.T) {
	l := logged(t, 1, 1, envelope{term: 1}, &fsm.Noop{})
	l.Data[0] = envelopeFormat + 1
	l.Extensions = checksum(l)
	a := newApplier(fsm.New())
	var why error
	a.fatal = func(err error) { why = err }
	a.Apply(l)
	if !errors.Is(why, ErrStorage) || !errors.Is(why, fsm.ErrFormat) {
		t.Errorf("applying it: the node stopped with %v, want %v", why, fsm.ErrFormat)
	}
	a.Apply(logged(t, 2, 1, envelope{term: 1}, submit("j1")))
	if got := a.machine.Index(); got != 0 {
		t.Errorf("after it: got index %d, want nothing to be applied any more", got)
	}
}

// An entry is verified again when it is applied.
func TestDamagedEntryIsNotApplied(t *testing.T) {
	l := logged(t, 1, 1, envelope{term: 1}, submit("j1"))
	l.Data[len(l.Data)-1] ^= 1
	a := newApplier(fsm.New())
	var why error
	a.fatal = func(err error) { why = err }
	a.Apply(l)
	if !errors.Is(why, ErrStorage) || a.machine.Index() != 0 {
		t.Errorf("applying it: the node stopped with %v at index %d, want %v at 0", why, a.machine.Index(), ErrStorage)
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	e := envelope{term: 3, frames: []placed{{frameID{1}, 0, 3}}}
	f.Add(e.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := openEnvelope(b)
		if err != nil {
			return
		}
		again, rest2, err := openEnvelope(append(e.append(nil), rest...))
		if err != nil || again.term != e.term || len(again.frames) != len(e.frames) || !bytes.Equal(rest, rest2) {
			t.Errorf("read %+v, wrote and read %+v, %v", e, again, err)
		}
		for _, p := range e.frames {
			p.of(make([]fsm.Answer, 3)) // must not panic
		}
	})
}
