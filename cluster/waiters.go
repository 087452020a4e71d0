package cluster

// This file lets claims wait for work: in their order of arrival, and no more of them are woken than there are jobs for.

import (
	"cmp"
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
	// What the leader has applied may promise a job; whether it still is there is for the log to say. This node may be behind, by the very
	// job that its caller has just submitted.
	a, err := n.propose(ctx, p, true)
	if nothing := errors.Is(err, errNothing) || err == nil && isNothing(a); !nothing {
		return a, err
	}
	w := newWaiter(&p)
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

// isGrant reports whether a claim was granted something.
func isGrant(a fsm.Answer) bool {
	switch a.Result.(type) {
	case *fleet.Claim, *fleet.Claims:
		return !isNothing(a)
	}
	return false
}

// promising reports whether one of these claims is worth it by what this node has: a job, or a remembered answer.
func (n *Node) promising(claims []fsm.Proposal) (promising bool) {
	n.machine.View(func(v fsm.View) {
		for i := range claims {
			if _, promising = v.Remembered(&claims[i]); promising {
				return
			}
			product, factory, _ := claimed(claims[i].Command)
			_, found, err := v.Claimable(claims[i].Caller, product, factory, nil)
			if promising = err == nil && found; promising {
				return
			}
		}
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

	// Guarded by waiters.mu.
	arrival  uint64 // its place in line
	can      string // what its factory can do, as the line knows it
	promised string // the job it was woken for, or refusal
}

// refusal is what a waiter is promised that is refused for good.
const refusal = " "

func newWaiter(p *fsm.Proposal) *waiter {
	w := &waiter{proposal: p, woken: make(chan struct{}, 1)}
	w.product, w.factory, w.nothing = claimed(p.Command)
	return w
}

// claimed is where a claim is made, and for whom, and what it is answered with if there is nothing.
func claimed(c fsm.Command) (product, factory string, nothing fsm.Result) {
	switch c := c.(type) {
	case *fsm.Claim:
		return c.ProductID, c.FactoryID, &fleet.Claim{}
	case *fsm.ClaimBatch:
		return c.ProductID, c.FactoryID, &fleet.Claims{Claims: []fleet.Claim{}}
	}
	return "", "", nil
}

// waiters are the claims that wait on this node.
type waiters struct {
	node *Node

	mu       sync.Mutex // guards what follows, and is taken before the state's lock
	arrivals uint64
	lines    map[string]*line      // by product
	repeats  map[callKey][]*waiter // who waits under a key: mostly one
	news     map[string]bool       // products to look at: true if each waiter is to be judged anew, not only who is first
	changed  chan struct{}
}

// callKey names a caller's Idempotency-Key in a product. A caller that lost a call's answer asks again under it, perhaps at another node, and
// both may wait: what one is granted is the answer to the other.
type callKey struct{ product, actor, key string }

func (w *waiter) callKey() callKey {
	return callKey{w.product, w.proposal.Caller.Actor, w.proposal.Key}
}

// line is who waits in a product. Where there is nothing for a factory there is nothing for another that can do the same: so whatever
// comes, one waiter of each kind is looked at, and those behind it only if it takes something.
type line struct {
	kinds    map[string][]*waiter // who is promised nothing, by what its factory can do, in order of arrival
	promised map[string]bool      // jobs that waiters were woken for
}

func newWaiters(n *Node) *waiters {
	return &waiters{node: n, lines: map[string]*line{}, repeats: map[callKey][]*waiter{}, news: map[string]bool{}, changed: make(chan struct{}, 1)}
}

func (ws *waiters) add(w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.arrivals++
	w.arrival = ws.arrivals
	if w.proposal.Key != "" {
		ws.repeats[w.callKey()] = append(ws.repeats[w.callKey()], w)
	}
	ws.join(w)
}

// granted wakes who waits under the key of a claim that was granted something: it is remembered, and so the answer to all of them.
func (ws *waiters) granted(p *fsm.Proposal) {
	product, _, _ := claimed(p.Command)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.repeats[callKey{product, p.Caller.Actor, p.Key}] {
		w.wake()
	}
}

func (ws *waiters) refused(w *waiter) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return w.promised == refusal
}

// remove takes a waiter out of the line. If it leaves with a wake-up that it did not use, the next one gets it.
func (ws *waiters) remove(w *waiter) {
	ws.mu.Lock()
	unused := w.promised != ""
	ws.leave(w)
	if key := w.callKey(); w.proposal.Key != "" {
		others := slices.DeleteFunc(ws.repeats[key], func(o *waiter) bool { return o == w })
		if ws.repeats[key] = others; len(others) == 0 {
			delete(ws.repeats, key)
		}
	}
	ws.mu.Unlock()
	if unused {
		ws.notify(false, w.product)
	}
}

// handOn gives up what a waiter was promised, and lets the next one be woken; the waiter keeps its place.
func (ws *waiters) handOn(w *waiter) {
	ws.mu.Lock()
	ws.leave(w)
	ws.join(w)
	ws.mu.Unlock()
	ws.notify(false, w.product)
}

// join puts a waiter in its place in line.
func (ws *waiters) join(w *waiter) {
	l, ok := ws.lines[w.product]
	if !ok {
		l = &line{kinds: map[string][]*waiter{}, promised: map[string]bool{}}
		ws.lines[w.product] = l
	}
	ws.node.machine.View(func(v fsm.View) { l.place(w, v) })
}

// leave is the end of a waiter's place, or of what it was promised.
func (ws *waiters) leave(w *waiter) {
	l, ok := ws.lines[w.product]
	if !ok {
		return // it was promised a refusal, and nobody else is there
	}
	if w.promised == "" {
		l.take(w)
	}
	delete(l.promised, w.promised)
	w.promised = ""
	if len(l.kinds)+len(l.promised) == 0 {
		delete(ws.lines, w.product)
	}
}

func byArrival(a, b *waiter) int { return cmp.Compare(a.arrival, b.arrival) }

func first(a, b []*waiter) int { return byArrival(a[0], b[0]) }

// place lets a waiter stand behind those of its kind that came before it, or hear that it may not claim.
func (l *line) place(w *waiter, v fsm.View) {
	if !w.allowed(v) {
		w.promised = refusal
		w.wake()
		return
	}
	w.can = w.ability(v)
	kind := l.kinds[w.can]
	i, _ := slices.BinarySearchFunc(kind, w, byArrival)
	l.kinds[w.can] = slices.Insert(kind, i, w)
}

func (l *line) take(w *waiter) {
	kind := l.kinds[w.can]
	if i, _ := slices.BinarySearchFunc(kind, w, byArrival); i == 0 { // most are first, and the others need not move up
		kind[0], kind = nil, kind[1:]
	} else {
		kind = slices.Delete(kind, i, i+1)
	}
	if l.kinds[w.can] = kind; len(kind) == 0 {
		delete(l.kinds, w.can)
	}
}

func (w *waiter) allowed(v fsm.View) bool {
	return v.Authorize(w.proposal.Caller, fleet.RoleFactory, w.product) == nil
}

// ability is what a waiter's factory can do, in one word; empty if the factory is not known.
func (w *waiter) ability(v fsm.View) string {
	f, ok := v.Factory(w.product, w.factory)
	if !ok {
		return ""
	}
	return strings.Join(f.Capabilities, "\x00") + "\x01" + strings.Join(f.Engines, "\x00")
}

// notifyAll says that everywhere there may be something to claim, and each waiter is to be judged anew.
func (ws *waiters) notifyAll() {
	ws.mu.Lock()
	products := slices.Collect(maps.Keys(ws.lines))
	ws.mu.Unlock()
	ws.notify(true, products...)
}

// notify says that there may be something to claim in these products, or, if each, that each waiter is to be judged anew. It does not block.
func (ws *waiters) notify(each bool, products ...string) {
	if len(products) == 0 {
		return
	}
	ws.mu.Lock()
	for _, p := range products {
		if ws.lines[p] != nil {
			ws.news[p] = ws.news[p] || each
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
		ws.news = map[string]bool{}
		ws.mu.Unlock()
		for product, each := range products {
			ws.wake(product, each)
		}
	}
}

// wake promises each job to the first in a product's line who can take it.
func (ws *waiters) wake(product string, each bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	l, ok := ws.lines[product]
	if !ok {
		return
	}
	ws.node.machine.View(func(v fsm.View) {
		if each {
			l.judge(v)
		}
		var served []*waiter // they leave when all is looked at
		next := slices.SortedFunc(maps.Values(l.kinds), first)
		for len(next) > 0 {
			w, behind := next[0][0], next[0][1:]
			next = next[1:]
			job, found, err := v.Claimable(w.proposal.Caller, product, w.factory, func(id string) bool { return l.promised[id] })
			switch {
			case err == nil && found:
				l.promised[job], w.promised = true, job
				served = append(served, w)
			case err == nil:
				continue // nor for those behind it
			case passedOver(fsm.Answer{Err: asRefusal(err)}):
			default: // it is refused for good: let it hear so
				w.promised = refusal
				served = append(served, w)
			}
			if len(behind) > 0 {
				i, _ := slices.BinarySearchFunc(next, behind, first)
				next = slices.Insert(next, i, behind)
			}
		}
		for _, w := range served {
			l.take(w)
			w.wake()
		}
	})
}

// judge finds those who may not claim any more, whatever there is for their kind, and those who are of another kind now.
func (l *line) judge(v fsm.View) {
	var changed []*waiter
	for can, kind := range l.kinds {
		for _, w := range kind {
			if !w.allowed(v) || w.ability(v) != can {
				changed = append(changed, w)
			}
		}
	}
	for _, w := range changed {
		l.take(w)
		l.place(w, v)
	}
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
