package cluster

// This file is a frame of proposals on its way to the leader. What became of it is what the leader says, or else what this node sees in
// its own log (docs/decisions/003-unknown-outcomes.md): a leader that is cut off or stopped says nothing. No goroutine waits for either:
// whoever brings the news settles it.

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lysnrai/fleet/fsm"
)

var errLost = fmt.Errorf("%w: the connection to the leader was lost", errUnknown)

// sentFrame is a frame on its way. It has an id of its own, by which this node knows it when it comes back through the log.
type sentFrame struct {
	forwarder *forwarder
	to        target
	id        frameID
	group     []*pending
	count     int // of proposals

	settling
	silent, blind atomic.Bool // the leader, the log has nothing to say any more
}

// replied takes the leader's reply, or that there is none.
func (f *sentFrame) replied(reply frame, answered bool) {
	if answered {
		if answers, err := decodeAnswers(reply.payload, f.count); !errors.Is(err, errUnknown) {
			f.forwarder.node.applier.unexpectFrame(f.id)
			f.settle(answers, err)
			return
		}
	}
	f.after(resolveWait, func() { f.giveUp(errLost) })
	if f.silent.Store(true); f.blind.Load() {
		f.settle(nil, errLost)
	}
}

// logged takes what the log says.
func (f *sentFrame) logged(w *frameWaiter) {
	switch {
	case len(w.answers) == f.count:
		f.settle(w.answers, nil)
		return
	case w.passed:
		f.settle(nil, errNotProposed)
		return
	}
	if f.blind.Store(true); f.silent.Load() {
		f.settle(nil, errLost)
	}
}

// giveUp settles it without the log.
func (f *sentFrame) giveUp(err error) {
	f.forwarder.node.applier.unexpectFrame(f.id)
	f.settle(nil, err)
}

// settle tells each of the group what came of it. Only the first call counts.
func (f *sentFrame) settle(answers []fsm.Answer, err error) {
	if !f.first() {
		return
	}
	for _, w := range f.group {
		if err != nil && !errors.Is(err, errRefused) {
			w.finish(nil, err)
			continue
		}
		share := answers[:len(w.proposals):len(w.proposals)]
		answers = answers[len(w.proposals):]
		switch {
		case err == nil:
			w.finish(share, nil)
		case share[0].Err != nil: // what a node forwards is one call's, and one proposal
			f.forwarder.turnedAway(f.to, w.proposals[0].Command, share[0].Err)
			w.finish(share, errRefused)
		default:
			w.finish(nil, errNotProposed)
		}
	}
}
