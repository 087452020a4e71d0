package cluster

// This file lets claims wait for work: in their order of arrival, and no more of them are woken than there are jobs for.

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// leaderlessWait is how long a waiting claim goes on without a leader.
const leaderlessWait = 5 * time.Second

// Claim proposes a claim (p.Command is *fsm.Claim or *fsm.ClaimBatch), or waits up to wait for something to claim. What
// can't be granted anything is answered from a linearizable read (Result is an empty *fleet.Claim or *fleet.Claims, or Err
// the refusal) and writes nothing. Waiters are served in their order of arrival, and no more of them are woken than there
// are jobs for. Errors are those of Propose.
func (n *Node) Claim(ctx context.Context, p fsm.Proposal, wait time.Duration) (fsm.Answer, error) {
	w := &waiter{proposal: &p, woken: make(chan struct{}, 1)}
	switch c := p.Command.(type) {
	case *fsm.Claim:
		w.product, w.factory, w.nothing = c.ProductID, c.FactoryID, &fleet.Claim{}
	case *fsm.ClaimBatch:
		w.product, w.factory, w.nothing = c.ProductID, c.FactoryID, &fleet.Claims{Claims: []fleet.Claim{}}
	}
	// What this node has applied may promise a job; whether it still is there is for the log to say.
	if promising := n.lookLocally(w); promising {
		a, err := n.Propose(ctx, p)
		if err != nil || !isNothing(a) {
			return a, err
		}
	}
	if wait > 0 {
		n.waiters.add(w)
		defer n.waiters.remove(w)
	}
	a, found, err := n.lookLinearizably(ctx, w)
	if err != nil {
		return a, err
	}
	if found {
		if a, err = n.Propose(ctx, p); err != nil {
			return a, err
		}
	}
	if !isNothing(a) || wait <= 0 {
		return a, nil
	}
	return n.await(ctx, w, wait, a)
}

// await proposes whenever the waiter is woken, until it gets something or its time is over. Then the answer is the last one that said
// that there is nothing: at this moment there may be a job that another waiter was woken for.
func (n *Node) await(ctx context.Context, w *waiter, wait time.Duration, nothing fsm.Answer) (fsm.Answer, error) {
	n.metrics.waiting.Inc()
	defer n.metrics.waiting.Dec()
	over := time.NewTimer(wait)
	defer over.Stop()
	var leaderless <-chan time.Time // runs while no leader is known
	woken := false
	for {
		changed := n.leaderChanged()
		if _, ok := n.leader(); !ok {
			if leaderless == nil {
				leaderless = time.After(leaderlessWait)
			}
		} else if leaderless = nil; woken {
			a, err := n.take(ctx, w)
			switch {
			case errors.Is(err, fleet.NoLeader): // it keeps what it was promised, and waits for news of a leader
			case err != nil:
				return a, err
			case !isNothing(a) && !passedOver(a):
				return a, nil
			default:
				if isNothing(a) {
					nothing = a
				}
				woken = false
				n.waiters.handOn(w)
				continue
			}
		}
		select {
		case <-w.woken:
			woken = true
		case <-changed:
		case <-over.C:
			return nothing, nil
		case <-leaderless:
			return nothing, nil
		case <-n.draining:
			return nothing, nil
		case <-ctx.Done():
			return fsm.Answer{}, context.Cause(ctx)
		}
	}
}

// take proposes a waiter's claim. If it was woken to hear that it is refused, it hears so from a read, and nothing is written.
func (n *Node) take(ctx context.Context, w *waiter) (fsm.Answer, error) {
	if n.waiters.refused(w) {
		if a, found, err := n.lookLinearizably(ctx, w); err != nil || !found {
			return a, err
		}
	}
	return n.Propose(ctx, *w.proposal)
}

// passedOver reports whether a woken waiter was refused for something that may change: it goes on waiting.
func passedOver(a fsm.Answer) bool {
	return a.Err != nil && (a.Err.Code == fleet.SeatsExhausted || a.Err.Code == fleet.FactoryDown)
}

// isNothing reports whether a claim was granted nothing.
func isNothing(a fsm.Answer) bool {
	switch r := a.Result.(type) {
	case *fleet.Claim:
		return r.Job == nil
	case *fleet.Claims:
		return len(r.Claims) == 0
	}
	return false
}

// lookLocally reports whether a proposal is worth it by what this node has: a job, or a remembered answer.
func (n *Node) lookLocally(w *waiter) (promising bool) {
	n.machine.View(func(v fsm.View) {
		if _, remembered := v.Remembered(w.proposal); remembered {
			promising = true
			return
		}
		_, found, err := v.Claimable(w.proposal.Caller, w.product, w.factory, nil)
		promising = err == nil && found
	})
	return promising
}

// lookLinearizably answers a claim that can be granted nothing; found says that a proposal is worth it.
func (n *Node) lookLinearizably(ctx context.Context, w *waiter) (a fsm.Answer, found bool, err error) {
	a.Result = w.nothing
	err = n.Read(ctx, Linearizable, 0, func(v fsm.View) {
		a.Index = v.Index()
		if _, remembered := v.Remembered(w.proposal); remembered {
			found = true
			return
		}
		var refused error
		if _, found, refused = v.Claimable(w.proposal.Caller, w.product, w.factory, nil); refused != nil {
			found = false
			if e, ok := refused.(*fleet.Error); ok { //nolint:errorlint // Claimable refuses with the error itself
				a.Err, a.Result = e, nil
			}
		}
	})
	return a, found, err
}

// waiter is one claim that waits.
type waiter struct {
	proposal         *fsm.Proposal
	product, factory string
	nothing          fsm.Result
	woken            chan struct{} // holds one wake-up
	promised         string        // the job it was woken for, or refusal; guarded by waiters.mu
}

// waiters are the claims that wait on this node, by product, in their order of arrival.
type waiters struct {
	node *Node

	mu      sync.Mutex // guards what follows
	lines   map[string][]*waiter
	news    map[string]struct{} // products to look at
	changed chan struct{}
}

func newWaiters(n *Node) *waiters {
	return &waiters{node: n, lines: map[string][]*waiter{}, news: map[string]struct{}{}, changed: make(chan struct{}, 1)}
}

func (ws *waiters) add(w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.lines[w.product] = append(ws.lines[w.product], w)
}

// refusal is what a waiter is promised that is refused for good.
const refusal = " "

func (ws *waiters) refused(w *waiter) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return w.promised == refusal
}

// remove takes a waiter out of the line. If it leaves with a wake-up that it did not use, the next one gets it.
func (ws *waiters) remove(w *waiter) {
	ws.mu.Lock()
	line := slices.DeleteFunc(ws.lines[w.product], func(other *waiter) bool { return other == w })
	if len(line) == 0 {
		delete(ws.lines, w.product)
	} else {
		ws.lines[w.product] = line
	}
	unused := w.promised != ""
	ws.mu.Unlock()
	if unused {
		ws.notify(w.product)
	}
}

// handOn gives up what a waiter was promised, and lets the next one be woken; the waiter keeps its place.
func (ws *waiters) handOn(w *waiter) {
	ws.mu.Lock()
	w.promised = ""
	ws.mu.Unlock()
	ws.notify(w.product)
}

// notifyAll says that there may be something to claim everywhere.
func (ws *waiters) notifyAll() {
	ws.mu.Lock()
	products := slices.Collect(maps.Keys(ws.lines))
	ws.mu.Unlock()
	ws.notify(products...)
}

// notify says that there may be something to claim in these products. It does not block.
func (ws *waiters) notify(products ...string) {
	if len(products) == 0 {
		return
	}
	ws.mu.Lock()
	for _, p := range products {
		if len(ws.lines[p]) > 0 {
			ws.news[p] = struct{}{}
		}
	}
	ws.mu.Unlock()
	select {
	case ws.changed <- struct{}{}:
	default:
	}
}

// run wakes waiters until the node closes.
func (ws *waiters) run() {
	for {
		select {
		case <-ws.changed:
		case <-ws.node.closing:
			return
		}
		ws.mu.Lock()
		products := ws.news
		ws.news = map[string]struct{}{}
		ws.mu.Unlock()
		for product := range products {
			ws.wake(product)
		}
	}
}

// wake walks a product's line and promises each job to the first waiter that can take it.
func (ws *waiters) wake(product string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	line := ws.lines[product]
	if len(line) == 0 {
		return
	}
	promised := map[string]bool{}
	for _, w := range line {
		if w.promised != "" {
			promised[w.promised] = true
		}
	}
	ws.node.machine.View(func(v fsm.View) {
		nothingFor := map[string]bool{} // what a factory can do, joined: there is nothing for its like
		for _, w := range line {
			if w.promised != "" {
				continue
			}
			if v.Authorize(w.proposal.Caller, fleet.RoleFactory, product) != nil { // whatever there is for its like
				w.promised = refusal
				w.wake()
				continue
			}
			like := ""
			if f, ok := v.Factory(product, w.factory); ok {
				like = strings.Join(f.Capabilities, "\x00") + "\x01" + strings.Join(f.Engines, "\x00")
			}
			if nothingFor[like] {
				continue
			}
			job, found, err := v.Claimable(w.proposal.Caller, product, w.factory, func(id string) bool { return promised[id] })
			switch {
			case err == nil && found:
				promised[job], w.promised = true, job
			case err == nil:
				nothingFor[like] = true
				continue
			case passedOver(fsm.Answer{Err: asRefusal(err)}):
				continue
			default: // it is refused for good: let it hear so
				w.promised = refusal
			}
			w.wake()
		}
	})
}

// wake does not block: one wake-up is as good as two.
func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func asRefusal(err error) *fleet.Error {
	e, _ := err.(*fleet.Error) //nolint:errorlint // Claimable refuses with the error itself
	return e
}
