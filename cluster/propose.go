package cluster

// This file is the way of a write: to the leader's proposer, which packs whatever is waiting into one log entry.

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Bounds of one log entry. hashicorp/raft advises at most 512 KiB; one larger command goes alone.
const (
	maxGroupCommands = 1024
	maxGroupBytes    = 512 << 10
	maxCommandBytes  = 4 << 20
)

// leaderWait is how long a call waits for a leader before it answers no_leader: longer than an election.
const leaderWait = 3 * time.Second

// errNotProposed says that a call never reached the log: it is safe to send it again.
var errNotProposed = errors.New("not proposed")

// errUnknown says that a call may have reached the log.
var errUnknown = errors.New("outcome unknown")

// errRefused says that the leader has no room for some of the proposals, or may not propose them yet; the answers name them. None was
// proposed.
var errRefused = errors.New("refused")

// errNothing says that the leader, as far as it knows, has nothing for a tentative claim. Nothing was proposed.
var errNothing = errors.New("nothing to claim")

// pending is some proposals that wait together: one of a local caller, or a frame of a follower.
type pending struct {
	proposals []fsm.Proposal
	size      int     // encoded bytes, about
	frame     frameID // zero: of a local caller
	term      uint64  // of a frame: it may only be proposed in this one
	tentative bool    // claims, which are proposed only if the leader sees something for one of them
	answers   []fsm.Answer
	err       error // errNotProposed, errRefused, errNothing or errUnknown
	done      chan struct{}
	then      func() // called at the end, must not block; nil: nothing
}

// newPending is what a local caller waits for.
func newPending(proposals ...fsm.Proposal) *pending {
	p := &pending{proposals: proposals, done: make(chan struct{})}
	for i := range proposals {
		p.size += proposals[i].Size()
	}
	return p
}

func (p *pending) finish(answers []fsm.Answer, err error) {
	p.answers, p.err = answers, err
	close(p.done)
	if p.then != nil {
		p.then()
	}
}

// Propose puts a command into the log, from any node, and answers what it came to. A refusal is in Answer.Err. The error
// is no_leader or disk_full (nothing was done) or outcome_unknown, each a *fleet.Error, or the context's. It gives up with
// ctx; the command may still be committed then.
func (n *Node) Propose(ctx context.Context, p fsm.Proposal) (fsm.Answer, error) {
	return n.propose(ctx, p, false)
}

// propose is Propose; of a tentative claim the error may also be errNothing.
func (n *Node) propose(ctx context.Context, p fsm.Proposal, tentative bool) (fsm.Answer, error) {
	n.enter()
	defer n.leave()
	began := time.Now()
	defer func() { n.metrics.propose.Observe(time.Since(began).Seconds()) }()
	if size := p.Command.Msgsize(); size > 2*maxCommandBytes {
		return fsm.Answer{}, fleet.Errorf(fleet.TooLarge, "the command has about %d bytes; at most %d fit into one log entry", size, maxCommandBytes)
	}
	if refused := n.aboveLevel([]fsm.Proposal{p}); refused != nil {
		return fsm.Answer{}, refused[0].Err
	}
	for {
		to, err := n.awaitLeader(ctx, leaderWait)
		if err != nil {
			return fsm.Answer{}, err
		}
		w := newPending(p)
		w.tentative = tentative
		switch {
		case !to.self:
			n.forwarder.enqueue(to, w)
		case tentative && !n.promising(w.proposals):
			return fsm.Answer{}, errNothing
		default:
			n.proposer.enqueue(w)
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			return fsm.Answer{}, context.Cause(ctx)
		case <-n.closing:
			return fsm.Answer{}, unknownOutcome("the node stopped")
		}
		switch {
		case w.err == nil:
			return w.answers[0], nil
		case errors.Is(w.err, errRefused):
			return fsm.Answer{}, w.answers[0].Err
		case errors.Is(w.err, errNotProposed):
			if err := n.pauseForLeader(ctx, to); err != nil {
				return fsm.Answer{}, err
			}
		case errors.Is(w.err, errNothing):
			return fsm.Answer{}, errNothing
		default:
			return fsm.Answer{}, unknownOutcome(w.err.Error())
		}
	}
}

// proposeInternal proposes one of the leader's own commands. It never leaves this node: the error wraps errNotProposed if this node
// does not lead.
func (n *Node) proposeInternal(ctx context.Context, c fsm.Command) (fsm.Answer, error) {
	w := newPending(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: c})
	n.proposer.enqueue(w)
	select {
	case <-w.done:
	case <-ctx.Done():
		return fsm.Answer{}, context.Cause(ctx)
	case <-n.closing:
		return fsm.Answer{}, errUnknown
	}
	switch {
	case errors.Is(w.err, errRefused):
		return fsm.Answer{}, w.answers[0].Err
	case w.err != nil:
		return fsm.Answer{}, w.err
	case w.answers[0].Err != nil:
		return w.answers[0], w.answers[0].Err
	}
	return w.answers[0], nil
}

// enter and leave count the calls in flight.
func (n *Node) enter() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
}

func (n *Node) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.calls--; n.calls == 0 && n.silence != nil {
		close(n.silence)
		n.silence = nil
	}
}

// quiet is closed when no call is in flight.
func (n *Node) quiet() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	silence := make(chan struct{})
	if n.calls == 0 {
		close(silence)
	} else if n.silence == nil {
		n.silence = silence
	} else {
		silence = n.silence
	}
	return silence
}

func unknownOutcome(why string) *fleet.Error {
	return fleet.Errorf(fleet.OutcomeUnknown, "%s before the outcome was known: it may have been committed; send the same request with the same Idempotency-Key to learn it", why)
}

// proposer is the group commit of a leader. Its depth is 1: while an entry is in flight, the next one gathers. Who comes when none is in
// flight launches one at once.
type proposer struct {
	node *Node
	busy slot // held while an entry is made and in flight

	mu      sync.Mutex // guards what follows
	open    bool       // this node leads and its leader-change entry is applied
	waiting []*pending
	latest  *flight
	wake    chan struct{}
}

func newProposer(n *Node) *proposer {
	return &proposer{node: n, busy: newSlot(), wake: make(chan struct{}, 1)}
}

// enqueue hands proposals to the next entry, or fails them if this node does not lead, has no room for them, or may not propose them yet.
func (pr *proposer) enqueue(w *pending) {
	refused := pr.node.aboveLevel(w.proposals)
	pr.mu.Lock()
	open := pr.open
	if open && refused == nil {
		refused = pr.node.space.admit(w.proposals)
	}
	if open && refused == nil {
		pr.waiting = append(pr.waiting, w)
	}
	pr.mu.Unlock()
	if !open {
		w.finish(nil, errNotProposed)
		return
	}
	if refused != nil {
		w.finish(refused, errRefused)
		return
	}
	pr.advance()
}

// setOpen lets proposals in, or turns away all that wait.
func (pr *proposer) setOpen(open bool) {
	pr.mu.Lock()
	pr.open = open
	var turned []*pending
	if !open {
		turned, pr.waiting = pr.waiting, nil
	}
	pr.mu.Unlock()
	for _, w := range turned {
		w.finish(nil, errNotProposed)
	}
}

// take removes what goes into the next entry.
func (pr *proposer) take() (group []*pending) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	commands, size := 0, 0
	for i, w := range pr.waiting {
		if i > 0 && (commands+len(w.proposals) > maxGroupCommands || size+w.size > maxGroupBytes) {
			break
		}
		commands, size = commands+len(w.proposals), size+w.size
		group = append(group, w)
	}
	pr.waiting = pr.waiting[len(group):]
	if len(pr.waiting) == 0 {
		pr.waiting = nil // let go of what was sent
	}
	return group
}

// advance launches what waits, unless an entry is in flight: then its landing does. It does not wait for the entry.
func (pr *proposer) advance() {
	for pr.gathered() && pr.busy.TryLock() {
		group := pr.take()
		if len(group) == 0 { // somebody else was quicker; more may have come since
			pr.busy.Unlock()
			continue
		}
		f := pr.node.launch(group, func(error) { pr.release() })
		pr.mu.Lock()
		pr.latest = f
		pr.mu.Unlock()
		return
	}
}

func (pr *proposer) gathered() bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return len(pr.waiting) > 0
}

// release lets go of busy, and has the next entry launched. It does not do that itself: raft's own goroutine, which may bring the news of
// the last one, must not wait for raft.
func (pr *proposer) release() {
	pr.busy.Unlock()
	if !pr.gathered() {
		return
	}
	select {
	case pr.wake <- struct{}{}:
	default:
	}
}

// run launches what has gathered, until the node closes.
func (pr *proposer) run() {
	for {
		select {
		case <-pr.wake:
			pr.advance()
		case <-pr.node.closing:
			pr.setOpen(false)
			pr.mu.Lock()
			f := pr.latest
			pr.mu.Unlock()
			if f != nil {
				f.giveUp(errUnknown)
			}
			return
		}
	}
}
