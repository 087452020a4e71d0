package cluster

// This file is an entry on its way: a group of proposals that is put into raft's log, and settled when the state machine here has
// applied it, or when it is known what else became of it (docs/decisions/003-unknown-outcomes.md). No goroutine waits for that: whoever
// brings the news settles it.

import (
	"crypto/rand"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// askAfter is how long an entry may take before raft is asked whether it was refused, or given up. Most are applied sooner.
const askAfter = 5 * time.Millisecond

// resolveWait bounds how long a call waits to learn its outcome: an election and a little catching up.
const resolveWait = 8 * time.Second

// flight is one entry on its way.
type flight struct {
	node   *Node
	id     [16]byte
	term   uint64
	change bool // a leader change comes first
	group  []*pending
	taken  []placed    // which of the entry's proposals each of the group is
	landed func(error) // called once it is settled; must not block
	settling
}

// launch puts a group into one entry. Each of it hears what came of it, and then landed, which must not block: nil, or errNotProposed, or
// an error that wraps errUnknown.
func (n *Node) launch(group []*pending, landed func(error)) *flight {
	head := envelope{term: n.raft.CurrentTerm()}
	stamp, change := n.clock.next()
	f := &flight{node: n, term: head.term, change: change, group: group, landed: landed, taken: make([]placed, 0, len(group))}
	e := &fsm.Entry{Stamp: stamp}
	if change { // first, so that nothing sees the new time without it
		e.Proposals = append(e.Proposals, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.LeaderChange{}})
	}
	for _, w := range group {
		at := placed{w.frame, uint64(len(e.Proposals)), uint64(len(w.proposals))}
		if w.term != 0 && w.term != head.term {
			at.count = 0 // its sender is about to hear of a later term, and sends it again
			w.finish(nil, errNotProposed)
		} else {
			e.Proposals = append(e.Proposals, w.proposals...)
			if w.frame != (frameID{}) {
				head.frames = append(head.frames, at)
			}
		}
		f.taken = append(f.taken, at)
	}
	if len(e.Proposals) == 0 { // all have been turned away
		f.settle(nil, nil)
		return f
	}
	n.metrics.batch.Observe(float64(len(e.Proposals)))
	if c := n.prover.take(); c != nil { // last, so that nobody's place moves
		e.Proposals = append(e.Proposals, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: c})
	}
	rand.Read(e.Group[:]) // never fails
	f.id = e.Group
	data, err := fsm.AppendEntry(head.append(nil), e)
	if err != nil {
		n.log.Error("encoding an entry", "error", err)
		f.settle(nil, errNotProposed)
		return f
	}
	n.applier.expect(f.id, f.applied)
	future := n.raft.Apply(data, 0)
	f.after(askAfter, func() { f.ask(future) })
	return f
}

// commit launches a group and waits for what comes of it.
func (n *Node) commit(group []*pending) error {
	outcome := make(chan error, 1)
	n.launch(group, func(err error) { outcome <- err })
	select {
	case err := <-outcome:
		return err
	case <-n.closing:
		return errUnknown
	}
}

// applied settles it by what the log has at its index.
func (f *flight) applied(g *groupWaiter) {
	answers, err := g.outcome()
	if err == nil {
		if f.change {
			f.node.clock.changed()
		}
		f.node.nudger.tell(g.index, f.term)
	}
	f.settle(answers, err)
}

// ask learns from raft that the entry was refused or given up. Raft leaves futures unanswered at its shutdown: this goroutine may stay
// until the process ends.
func (f *flight) ask(future raft.ApplyFuture) {
	switch err := future.Error(); {
	case err == nil: // it was applied
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		f.giveUp(errNotProposed)
	case !errors.Is(err, raft.ErrLeadershipLost):
		f.giveUp(errUnknown)
	default: // a node that lost leadership keeps following, so it sees soon whether this entry or another one stands at its index
		f.after(resolveWait, func() { f.giveUp(errUnknown) })
		f.node.applier.dispatched(f.id, future.Index())
	}
}

// giveUp settles it without the log.
func (f *flight) giveUp(err error) {
	f.node.applier.unexpect(f.id)
	f.settle(nil, err)
}

// settle gives each of the group its share of the answers, or the error. Only the first call counts.
func (f *flight) settle(answers []fsm.Answer, err error) {
	if !f.first() {
		return
	}
	for i, w := range f.group {
		switch share, ok := f.taken[i].of(answers); {
		case f.taken[i].count == 0:
		case err != nil:
			w.finish(nil, err)
		case !ok:
			w.finish(nil, errUnknown)
		default:
			w.finish(share, nil)
		}
	}
	f.landed(err)
}
