package cluster

// This file is the thin adapter between raft and the state machine: it verifies, decodes and applies what is committed,
// and tells those who wait for it.

import (
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
	applied func(d time.Duration) // measures an entry
	failed  bool                  // after a fatal error nothing is applied any more
	bytes   func(n int)           // counts what the log has grown by

	mu      sync.Mutex // guards what follows
	waiters map[*indexWaiter]struct{}
	groups  map[[16]byte]*groupWaiter
	// restored is the index of the last snapshot restored: what the log had below it was not seen.
	restored uint64
}

// indexWaiter waits until the machine has applied an index.
type indexWaiter struct {
	index uint64
	done  chan struct{}
}

// groupWaiter waits for the group that a leader proposed, or for proof that it can never be committed.
type groupWaiter struct {
	index   uint64 // where it was dispatched, 0 while that is not known
	done    chan struct{}
	answers []fsm.Answer // set if it was applied
	passed  bool         // the log went past its index without it
}

// term and membership entries reach the machine as indexes only.
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
	e, err := fsm.DecodeEntry(l.Data)
	if err != nil {
		a.failed = true
		a.fatal(fmt.Errorf("%w: decoding entry %d: %w", ErrStorage, l.Index, err))
		return nil
	}
	began := time.Now()
	answers, news := a.machine.Apply(l.Index, e)
	a.applied(time.Since(began))
	a.bytes(len(l.Data))
	a.reached(l.Index, e.Group, answers)
	a.news(news)
	return answers
}

// StoreConfiguration moves the machine's index over a committed change of membership.
func (a *applier) StoreConfiguration(index uint64, _ raft.Configuration) {
	if a.failed {
		return
	}
	a.machine.Skip(index)
	a.reached(index, [16]byte{}, nil)
}

// reached wakes those who wait for this index or for this group.
func (a *applier) reached(index uint64, group [16]byte, answers []fsm.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.waiters {
		if w.index <= index {
			delete(a.waiters, w)
			close(w.done)
		}
	}
	if g, ok := a.groups[group]; ok && answers != nil {
		delete(a.groups, group)
		g.answers = answers
		close(g.done)
	}
	for id, g := range a.groups {
		if g.index != 0 && g.index <= index {
			delete(a.groups, id)
			g.passed = g.index > a.restored
			close(g.done)
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

// expect registers a group before it is proposed, so that its answers are not missed.
func (a *applier) expect(group [16]byte) *groupWaiter {
	g := &groupWaiter{done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups[group] = g
	return g
}

// dispatched tells where an expected group was put into the log.
func (a *applier) dispatched(group [16]byte, g *groupWaiter, index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, waiting := a.groups[group]; !waiting {
		return
	}
	if g.index = index; a.machine.Index() >= index { // it was passed before this was known
		delete(a.groups, group)
		g.passed = index > a.restored
		close(g.done)
	}
}

// unexpect gives a group up.
func (a *applier) unexpect(group [16]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.groups, group)
}

// Snapshot freezes the machine in O(1); Persist writes while Apply goes on.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.failed {
		return nil, ErrStorage
	}
	return &frozen{a.machine.Handle()}, nil
}

// Restore replaces the machine's state by a snapshot's.
func (a *applier) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	if err := a.machine.Restore(rc); err != nil {
		return fmt.Errorf("restoring a snapshot: %w", err)
	}
	index := a.machine.Index()
	a.mu.Lock()
	a.restored = index
	a.mu.Unlock()
	a.reached(index, [16]byte{}, nil)
	return nil
}

type frozen struct{ handle *fsm.Handle }

// Persist writes the snapshot to raft's sink.
func (f *frozen) Persist(sink raft.SnapshotSink) error {
	if _, err := f.handle.WriteTo(sink); err != nil {
		_ = sink.Cancel() // the error that matters is the one above
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	return sink.Close()
}

// Release has nothing to give back: the frozen state is garbage once nobody reads it.
func (f *frozen) Release() {}
