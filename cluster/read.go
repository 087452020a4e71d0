package cluster

// This file decides how fresh a read is: linearizable reads wait for an index that was committed after they began.

import (
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Consistency is how fresh a read must be.
type Consistency int

// A linearizable read sees every write that was answered before it began, on any node; a stale one what this node has.
const (
	Linearizable Consistency = iota
	Stale
)

// minIndexWait is how long a read waits for the index that its caller has seen, or that the leader has named.
const minIndexWait = 5 * time.Second

// Read calls fn with a view that is as fresh as asked and not older than minIndex. It waits up to 5 s for that,
// else it fails with behind; without a leader a linearizable read fails with no_leader.
func (n *Node) Read(ctx context.Context, c Consistency, minIndex uint64, fn func(fsm.View)) error {
	if c == Linearizable {
		index, err := n.reads.index(ctx)
		if err != nil {
			return err
		}
		minIndex = max(minIndex, index)
	}
	if err := n.awaitIndex(ctx, minIndex); err != nil {
		return err
	}
	var refused error
	n.machine.View(func(v fsm.View) { // the mark is there before the state that it is about
		if refused = n.restoring.refusal(); refused == nil {
			fn(v)
		}
	})
	return refused
}

// View calls fn with what this node has, at once: a stale read that can't fail.
func (n *Node) View(fn func(fsm.View)) { n.machine.View(fn) }

// awaitIndex waits until this node has applied an index, 5 s at most: it may be cut off, or far behind.
func (n *Node) awaitIndex(ctx context.Context, index uint64) error {
	if n.machine.Index() >= index {
		return nil
	}
	w := n.applier.wait(index)
	defer n.applier.forget(w)
	timer := time.NewTimer(minIndexWait)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-timer.C:
		e := fleet.Errorf(fleet.Behind, "this node has applied index %d, not yet %d; try again, or another node", n.machine.Index(), index)
		e.RetryAfterSeconds = 1
		return e
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.closing:
		return fleet.Errorf(fleet.NoLeader, "this node is stopping; try another one")
	}
}

// reads finds read indexes, one round for all reads that wait. A read never joins a round that began before it.
type reads struct {
	node  *Node
	round func() (uint64, error)

	mu      sync.Mutex // guards what follows
	next    *readRound
	running bool
}

type readRound struct {
	done  chan struct{}
	index uint64
	err   error
}

// index is one that every write answered before the call is at or below.
func (r *reads) index(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &readRound{done: make(chan struct{})}
	}
	round := r.next
	if !r.running {
		r.running = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-round.done:
		return round.index, round.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-r.node.closing:
		return 0, fleet.Errorf(fleet.NoLeader, "this node is stopping; try another one")
	}
}

func (r *reads) run() {
	for {
		r.mu.Lock()
		round := r.next
		r.next = nil
		if round == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		round.index, round.err = r.round()
		close(round.done)
	}
}

// readIndex is one round of this node's own reads: here if this node leads, else at the leader.
func (n *Node) readIndex() (index uint64, err error) {
	ctx, cancel := context.WithTimeout(n.lifetime, leaderWait)
	defer cancel()
	b, err := n.askLeader(ctx, frameReadIndex, nil, func(ctx context.Context) error {
		index, err = n.confirms.index(ctx)
		return err
	})
	switch {
	case err != nil && ctx.Err() != nil, errors.Is(err, errNotProposed):
		e := fleet.Errorf(fleet.NoLeader, "no leader confirmed its leadership in time; try again, or read with consistency=stale")
		e.RetryAfterSeconds = 1
		return 0, e
	case err != nil:
		return 0, err
	case len(b) >= 8:
		return binary.BigEndian.Uint64(b), nil
	}
	return index, nil
}

// confirmedIndex is one round of the leader's: for its own reads and for those of the followers. It takes the commit index first and
// confirms leadership after (hashicorp/raft #603). All entries of this term at or above the leader-change entry reach the machine, so
// that it can be waited for. With a non-voter in the configuration raft's own confirmation counts it as if it could vote, so an empty
// command is committed instead. Every error is errNotProposed: a read can be asked again.
func (n *Node) confirmedIndex() (uint64, error) {
	ctx, cancel := context.WithTimeout(n.lifetime, leaderWait)
	defer cancel()
	if !n.leading.Load() {
		return 0, errNotProposed
	}
	if n.hasNonvoter() {
		a, err := n.proposeInternal(ctx, &fsm.Noop{})
		if err != nil {
			return 0, errNotProposed
		}
		return a.Index, nil
	}
	index := n.raft.CommitIndex()
	verified := make(chan error, 1)
	go func() { // a leader whose disk hangs never answers
		f := n.raft.VerifyLeader()
		endWith(f, n.closing)
		verified <- f.Error()
	}()
	select {
	case err := <-verified:
		if err == nil {
			return index, nil
		}
	case <-ctx.Done():
	case <-n.closing:
	}
	return 0, errNotProposed
}

// endWith has a future's Error return raft.ErrRaftShutdown once the channel is closed. Raft forgets a confirmation that is under way when it
// shuts down (hashicorp/raft v1.7.3 leaves it in a queue), and who waits for it would wait for ever. All futures have the field for that, but
// raft sets it for some only. Call it before anybody calls Error.
func endWith(f raft.Future, closed chan struct{}) {
	if v := reflect.ValueOf(f); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("ShutdownCh"); field.IsValid() && field.CanSet() && field.Type() == reflect.TypeOf(closed) {
			field.Set(reflect.ValueOf(closed))
		}
	}
}
