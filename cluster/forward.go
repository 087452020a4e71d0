package cluster

// This file carries a follower's writes and questions to the leader, in batches over one connection.
//
// A leader that leads no more says so, and the follower looks for the next: a call makes one hop.

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// forwarder sends to whoever leads.
type forwarder struct {
	node *Node

	mu      sync.Mutex // guards what follows
	waiting []*pending
	target  target // where waiting is meant for
	turned  turned
	wake    chan struct{}

	dialing slot  // guards link; never taken with mu held
	link    *link // to the latest leader
}

// turned is what a leader had no room for. For a moment the same is turned away here, so that new work does not hold up the frames
// of other work.
type turned struct {
	by   raft.ServerID
	need fsm.Need
	at   time.Time
	err  *fleet.Error
}

// turnedFor is that moment.
const turnedFor = time.Second

func newForwarder(n *Node) *forwarder {
	return &forwarder{node: n, wake: make(chan struct{}, 1), dialing: newSlot()}
}

func (fw *forwarder) enqueue(to target, w *pending) {
	fw.mu.Lock()
	t := fw.turned
	if t.err != nil && t.by == to.id && time.Since(t.at) < turnedFor && fsm.NeedOf(w.proposals[0].Command) >= t.need {
		fw.mu.Unlock()
		w.finish([]fsm.Answer{{Err: t.err}}, errRefused)
		return
	}
	fw.waiting = append(fw.waiting, w)
	fw.target = to
	fw.mu.Unlock()
	if fw.sendAtOnce(to) {
		return
	}
	select {
	case fw.wake <- struct{}{}:
	default:
	}
}

// sendAtOnce sends what waits while nothing is under way to the leader. Else run does it: frames of many calls are cheaper, and a call
// that carries others must not be kept by a dial.
func (fw *forwarder) sendAtOnce(to target) bool {
	if !fw.dialing.TryLock() {
		return false
	}
	l := fw.link
	fw.dialing.Unlock()
	if l == nil || l.to != to.id || !l.idle() {
		return false
	}
	to, group := fw.take()
	if len(group) > 0 {
		fw.send(to, group)
	}
	return true
}

// run sends what waits, many proposals to a frame, until the node closes.
func (fw *forwarder) run() {
	for {
		select {
		case <-fw.wake:
		case <-fw.node.closing:
			fw.mu.Lock()
			waiting := fw.waiting
			fw.waiting = nil
			fw.mu.Unlock()
			fw.dialing.Lock()
			if fw.link != nil {
				fw.link.fail(net.ErrClosed)
			}
			fw.dialing.Unlock()
			for _, w := range waiting {
				w.finish(nil, errNotProposed)
			}
			return
		}
		for {
			to, group := fw.take()
			if len(group) == 0 {
				break
			}
			fw.send(to, group)
		}
	}
}

func (fw *forwarder) take() (target, []*pending) {
	fw.mu.Lock()
	defer fw.mu.Unlock()
	var group []*pending
	commands, size := 0, 0
	for i, w := range fw.waiting {
		if i > 0 && (commands+len(w.proposals) > maxGroupCommands || size+w.size > maxGroupBytes || w.tentative != group[0].tentative) {
			break
		}
		commands, size = commands+len(w.proposals), size+w.size
		group = append(group, w)
	}
	if fw.waiting = fw.waiting[len(group):]; len(fw.waiting) == 0 {
		fw.waiting = nil
	}
	return fw.target, group
}

// send sends a group as one frame.
func (fw *forwarder) send(to target, group []*pending) {
	f := &sentFrame{forwarder: fw, to: to, group: group}
	rand.Read(f.id[:]) // never fails
	payload, count, err := encodeProposals(f.id, to.term, group)
	if err != nil {
		fw.node.log.Error("encoding a proposal", "error", err)
		f.settle(nil, errNotProposed)
		return
	}
	f.count = count
	l, err := fw.connect(to)
	if err != nil {
		fw.node.log.Debug("reaching the leader", "leader", to.id, "error", err)
		f.settle(nil, errNotProposed)
		return
	}
	fw.node.applier.expectFrame(f.id, to.term, f.logged)
	if l.send(framePropose, payload, f.replied) != nil {
		f.giveUp(errNotProposed)
	}
}

func (fw *forwarder) turnedAway(to target, c fsm.Command, err *fleet.Error) {
	fw.mu.Lock()
	defer fw.mu.Unlock()
	need, now := fsm.NeedOf(c), time.Now()
	if t := fw.turned; t.by == to.id && now.Sub(t.at) < turnedFor {
		need = min(need, t.need)
	}
	fw.turned = turned{to.id, need, now, err}
}

// ask sends one small frame to the leader and waits for its reply.
func (fw *forwarder) ask(ctx context.Context, to target, kind byte, payload []byte) ([]byte, error) {
	l, err := fw.connect(to)
	if err != nil {
		return nil, errNotProposed
	}
	reply := make(chan frame, 1)
	then := func(f frame, answered bool) {
		if answered {
			reply <- f
		}
		close(reply)
	}
	if l.send(kind, payload, then) != nil {
		return nil, errNotProposed
	}
	for {
		news := fw.node.leaderChanged()
		if now, ok := fw.node.leader(); ok && now.id != to.id {
			return nil, errUnknown // it leads no more, and may never answer
		}
		select {
		case f, ok := <-reply:
			if !ok {
				return nil, errUnknown
			}
			return f.payload, nil
		case <-news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-fw.node.closing:
			return nil, errUnknown
		}
	}
}

// connect returns the link to the leader, dialled anew if it is another one or was lost. It gives up when there is news of who leads.
func (fw *forwarder) connect(to target) (*link, error) {
	fw.dialing.Lock()
	defer fw.dialing.Unlock()
	if l := fw.link; l != nil {
		if l.to == to.id && l.alive() {
			return l, nil
		}
		l.fail(net.ErrClosed)
		fw.link = nil
	}
	ctx, cancel := context.WithTimeout(fw.node.lifetime, 2*time.Second)
	defer cancel()
	news := fw.node.leaderChanged()
	if now, ok := fw.node.leader(); !ok || now.id != to.id {
		return nil, errNotProposed
	}
	go func() {
		select {
		case <-news:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := fw.node.transport.dialForward(ctx, to.id, string(to.addr))
	if err != nil {
		return nil, err
	}
	fw.link = newLink(to.id, conn)
	return fw.link, nil
}

// askLeader sends a small frame to the leader, wherever it is, until it is answered.
func (n *Node) askLeader(ctx context.Context, kind byte, payload []byte, here func(context.Context) error) ([]byte, error) {
	for {
		to, err := n.awaitLeader(ctx, leaderWait)
		if err != nil {
			return nil, err
		}
		if to.self {
			if err := here(ctx); !errors.Is(err, errNotProposed) {
				return nil, err
			}
			if err := n.pauseForLeader(ctx, to); err != nil {
				return nil, err
			}
			continue
		}
		b, err := n.forwarder.ask(ctx, to, kind, payload)
		switch {
		case err != nil && !errors.Is(err, errNotProposed):
			if ctx.Err() != nil {
				return nil, err
			}
			if kind != frameReadIndex { // a read can be asked again, a change can't
				return nil, unknownOutcome("the connection to the leader was lost")
			}
		case err == nil && len(b) > 0 && b[0] == replyOK:
			return b[1:], nil
		case err == nil && len(b) > 0 && b[0] == replyRefused:
			if a, _, err := fsm.DecodeAnswer(b[1:]); err == nil && a.Err != nil {
				return nil, a.Err
			}
		}
		if err := n.pauseForLeader(ctx, to); err != nil {
			return nil, err
		}
	}
}
