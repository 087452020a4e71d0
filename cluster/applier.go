package cluster

// This file is the thin adapter between raft and the state machine: it verifies, decodes and applies what is committed,
// and tells those who wait for it.

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// applier is raft's view of the machine. Raft calls Apply, StoreConfiguration, Snapshot and Restore one at a time.
type applier struct {
	machine *fsm.Machine
	fatal   func(error)           // ends the node; called at most once
	news    func(fsm.News)        // called after each entry, must not block
	granted func(p *fsm.Proposal) // called with each keyed claim that got something, must not block
	renewed func()                // called when a snapshot has replaced the whole state, must not block
	applied func(d time.Duration) // measures an entry
	// slowly makes a snapshot be written in calls' spare time.
	slowly func(io.Writer) io.Writer
	// persisted is called when a snapshot is written, but not yet in force.
	persisted func(size int64, took time.Duration)
	confirm   func(index uint64)     // called with each index applied: a restore below it is confirmed
	level     int                    // the newest that this node knows
	failed    bool                   // after a fatal error nothing is applied any more
	bytes     func(n int)            // counts what the log has grown by
	judge     func(*fsm.Entry) error // holds an entry against the state before it is applied; an error ends the node
	passed    func(index uint64)     // called with the index of each entry of the machine's own, must not block

	mu      sync.Mutex // guards what follows
	waiters map[*indexWaiter]struct{}
	groups  map[[16]byte]*groupWaiter
	frames  map[frameID]*frameWaiter
	// restored is the index of the last snapshot restored: what the log had below it was not seen.
	restored uint64
	settled  uint64 // up to this index those who wait have been told; the machine may be a little further
	term     uint64 // of the last entry applied
}

// indexWaiter waits until the machine has applied an index.
type indexWaiter struct {
	index uint64
	done  chan struct{}
}

// groupWaiter waits for the group that a leader proposed, or for proof that it can never be committed.
type groupWaiter struct {
	index   uint64             // where it was dispatched, 0 while that is not known
	settle  func(*groupWaiter) // called once, at the end, with the applier's lock held
	answers []fsm.Answer       // set if it was applied
	passed  bool               // the log went past its index without it
}

// outcome is what became of a group, once it is settled.
func (g *groupWaiter) outcome() ([]fsm.Answer, error) {
	switch {
	case g.answers != nil:
		return g.answers, nil
	case g.passed:
		return nil, errNotProposed
	}
	return nil, errUnknown // a snapshot carried this node over the index
}

// frameWaiter waits for a frame that this node has sent to the leader of a term, or for proof that it can never be committed.
type frameWaiter struct {
	term    uint64
	settle  func(*frameWaiter) // called once, at the end, with the applier's lock held
	answers []fsm.Answer       // set if it was applied
	passed  bool               // a later term's entry was applied, and none of its own term had it
	blurred bool               // a snapshot was restored meanwhile: it may be in there
}

func newApplier(machine *fsm.Machine) *applier {
	return &applier{
		machine: machine, level: fsm.MaxLevel, fatal: func(error) {}, news: func(fsm.News) {}, granted: func(*fsm.Proposal) {}, renewed: func() {},
		applied: func(time.Duration) {}, bytes: func(int) {},
		slowly: func(w io.Writer) io.Writer { return w }, persisted: func(int64, time.Duration) {}, confirm: func(uint64) {}, passed: func(uint64) {},
		judge:   func(*fsm.Entry) error { return nil },
		waiters: map[*indexWaiter]struct{}{}, groups: map[[16]byte]*groupWaiter{}, frames: map[frameID]*frameWaiter{},
	}
}

// A configuration reaches the machine as an index only.
var _ raft.ConfigurationStore = (*applier)(nil)

// Apply applies one committed entry and answers []fsm.Answer. An entry that is damaged or of a newer format ends the
// node before it is acknowledged.
func (a *applier) Apply(l *raft.Log) any {
	if a.failed {
		return nil
	}
	if err := verifyLog(l); err != nil {
		a.failed = true
		a.fatal(fmt.Errorf("%w: applying entry %d: %w", ErrStorage, l.Index, err))
		return nil
	}
	head, data, err := openEnvelope(l.Data)
	var e *fsm.Entry
	if err == nil {
		e, err = fsm.DecodeEntry(data)
	}
	if err == nil && e.Level() > a.level {
		err = fmt.Errorf("%w: it is of level %d, this node knows %d", fsm.ErrFormat, e.Level(), a.level)
	}
	if errors.Is(err, fsm.ErrFormat) {
		err = fmt.Errorf("%w: %s", err, newerRelease)
	}
	if err != nil {
		a.failed = true
		a.fatal(fmt.Errorf("%w: decoding entry %d: %w", ErrStorage, l.Index, err))
		return nil
	}
	a.bytes(len(l.Data))
	a.confirm(l.Index) // before it shows: who waits for this index may read at once

	if head.term != l.Term { // its leader lost leadership and won it again between stamping and appending: who sent a frame in has given it up
		a.machine.Skip(l.Index)
		a.voided(e.Group)
		a.reached(l.Index, l.Term)
		return nil
	}
	if err := a.judge(e); err != nil {
		a.failed = true
		a.fatal(err)
		return nil
	}
	began := time.Now()
	answers, news := a.machine.Apply(l.Index, e)
	a.applied(time.Since(began))
	a.passed(l.Index)
	a.answered(l.Index, e.Group, head.frames, answers)
	a.reached(l.Index, l.Term)
	for i := range e.Proposals {
		if p := &e.Proposals[i]; p.Key != "" && isGrant(answers[i]) {
			a.granted(p)
		}
	}
	a.news(news)
	return answers
}

// StoreConfiguration moves the machine's index over a committed change of membership.
func (a *applier) StoreConfiguration(index uint64, _ raft.Configuration) {
	if a.failed {
		return
	}
	a.machine.Skip(index)
	a.reached(index, 0)
}

// answered gives an entry's answers to those who proposed it here.
func (a *applier) answered(index uint64, group [16]byte, frames []placed, answers []fsm.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if g, ok := a.groups[group]; ok {
		delete(a.groups, group)
		g.index, g.answers = index, answers
		g.settle(g)
	}
	for _, f := range frames {
		if w, ok := a.frames[f.id]; ok {
			delete(a.frames, f.id)
			w.answers, _ = f.of(answers)
			w.settle(w)
		}
	}
}

// voided tells the proposer of an entry that it counts for nothing.
func (a *applier) voided(group [16]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if g, ok := a.groups[group]; ok {
		delete(a.groups, group)
		g.passed = true
		g.settle(g)
	}
}

// reached wakes those who wait for this index, and those whose entry can't come any more. Terms never fall along the log, so the
// first entry of a later term proves that no more of an earlier one's follow. A term of 0 is not known.
func (a *applier) reached(index, term uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settled = index
	for w := range a.waiters {
		if w.index <= index {
			delete(a.waiters, w)
			close(w.done)
		}
	}
	for id, g := range a.groups {
		if g.index != 0 && g.index <= index {
			delete(a.groups, id)
			g.passed = g.index > a.restored
			g.settle(g)
		}
	}
	if term <= a.term {
		return
	}
	a.term = term
	for id, w := range a.frames {
		if w.term < term {
			delete(a.frames, id)
			w.passed = !w.blurred
			w.settle(w)
		}
	}
}

// wait returns a waiter for an index; its channel is closed at once if that was applied already.
func (a *applier) wait(index uint64) *indexWaiter {
	w := &indexWaiter{index: index, done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.machine.Index() >= index {
		close(w.done)
	} else {
		a.waiters[w] = struct{}{}
	}
	return w
}

// forget gives a waiter up.
func (a *applier) forget(w *indexWaiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiters, w)
}

// expect registers a group before it is proposed, so that its answers are not missed. Settle is called when it is known what became of
// it, with the applier's lock held.
func (a *applier) expect(group [16]byte, settle func(*groupWaiter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups[group] = &groupWaiter{settle: settle}
}

// dispatched tells where an expected group was put into the log.
func (a *applier) dispatched(group [16]byte, index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, waiting := a.groups[group]
	if !waiting {
		return
	}
	if g.index = index; a.settled >= index { // it was passed before this was known
		delete(a.groups, group)
		g.passed = index > a.restored
		g.settle(g)
	}
}

// unexpect gives a group up.
func (a *applier) unexpect(group [16]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.groups, group)
}

// expectFrame registers a frame before it is sent to the leader of a term. Settle is called when it is known what became of it, with
// the applier's lock held; that may be before this returns.
func (a *applier) expectFrame(id frameID, term uint64, settle func(*frameWaiter)) {
	w := &frameWaiter{term: term, settle: settle}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.term > term {
		w.passed = true // whoever leads now turns it away
		w.settle(w)
	} else {
		a.frames[id] = w
	}
}

// unexpectFrame gives a frame up.
func (a *applier) unexpectFrame(id frameID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.frames, id)
}

// Snapshot freezes the machine in O(1); Persist writes while Apply goes on.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.failed {
		return nil, ErrStorage
	}
	return &frozen{a.machine.Handle(), a.slowly, a.persisted}, nil
}

// Restore replaces the machine's state by a snapshot's. One of a newer format ends the node.
func (a *applier) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	err := a.machine.RestoreAhead(rc, decodeAhead)
	if err == nil && a.machine.Level() > a.level {
		err = fmt.Errorf("%w: it is of level %d, this node knows %d", fsm.ErrFormat, a.machine.Level(), a.level)
	}
	if errors.Is(err, fsm.ErrFormat) { // raft would try an older one, or try for ever
		a.failed = true
		err = fmt.Errorf("%w: restoring a snapshot: %w: %s", ErrStorage, err, newerRelease)
		a.fatal(err)
		return err
	}
	if err != nil {
		return fmt.Errorf("restoring a snapshot: %w", err)
	}
	index := a.machine.Index()
	a.mu.Lock()
	a.restored = index
	for _, w := range a.frames {
		w.blurred = true
	}
	a.mu.Unlock()
	a.reached(index, 0)
	a.renewed()
	return nil
}

// frozen is the state at one index.
type frozen struct {
	handle    *fsm.Handle
	slowly    func(io.Writer) io.Writer
	persisted func(size int64, took time.Duration)
}

// Persist writes the snapshot to raft's sink, which raft closes, or cancels after an error.
func (f *frozen) Persist(sink raft.SnapshotSink) error {
	began := time.Now()
	size, err := f.handle.WriteTo(f.slowly(sink))
	if err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	f.persisted(size, time.Since(began))
	return nil
}

// Release has nothing to give back: the frozen state is garbage once nobody reads it.
func (f *frozen) Release() {}
