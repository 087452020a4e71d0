package check

// This file records what clients asked and what they were told, on one clock.

import (
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Never is the return of a call whose end nobody saw.
const Never = math.MaxInt64

// History is the calls of all clients of a test. Its clock counts calls and returns: of two that happened one after the
// other the later has the larger number, also at one instant of virtual time. All methods may be called at once.
type History struct {
	mu     sync.Mutex // guards what follows, and every Operation
	clock  int64
	ops    []*Operation
	events map[string]map[uint64]*sight // by product and feed index
}

// Operation is one call, over all its tries.
type Operation struct {
	Client   int
	Proposal fsm.Proposal // its Command is nil for a read
	Query    Query        // of a read
	Call     int64        // the first try
	Return   int64        // Never while it is unknown
	Answer   fsm.Answer
	// Unknown: it may have happened, at any time since Call, or not. NoEffect: the answer promised that nothing was done.
	Unknown, NoEffect bool

	history *History
	last    int64 // the call of the last try
	unsure  bool  // an earlier try may have happened
	repeats []fsm.Answer
	logged  fsm.Answer // what the log answers to one that is unknown
}

// sight is an event and when it was first seen.
type sight struct {
	event *fleet.Event
	at    int64
}

// NewHistory is a history without calls.
func NewHistory() *History { return &History{events: map[string]map[uint64]*sight{}} }

func (h *History) tick() int64 {
	h.clock++
	return h.clock
}

// Propose records that a client calls. A proposal without a Key needs a Request that no other has, to be found in the log.
func (h *History) Propose(client int, p fsm.Proposal) *Operation {
	return h.begin(&Operation{Client: client, Proposal: p})
}

// Read records that a client reads, linearizably.
func (h *History) Read(client int, q Query) *Operation {
	return h.begin(&Operation{Client: client, Query: q})
}

func (h *History) begin(o *Operation) *Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.history, o.Call, o.Return, o.Unknown = h, h.tick(), Never, true
	o.last = o.Call
	h.ops = append(h.ops, o)
	return o
}

// Retry records that a try ended with an error and that the next one begins, under the same Key.
func (o *Operation) Retry(err error) {
	o.history.mu.Lock()
	defer o.history.mu.Unlock()
	o.unsure = o.unsure || !promisesNothing(err)
	o.last = o.history.tick()
}

// Done records the end of the last try. A client whose operation ends unknown should go on under another number.
func (o *Operation) Done(a fsm.Answer, err error) {
	h := o.history
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.tick()
	switch {
	case err == nil && (a.Err != nil || nothing(a.Result)) && o.unsure:
		// What is not remembered, a refusal or a claim that found nothing, is the last try's alone: an earlier one may still happen.
		earlier := *o
		h.ops = append(h.ops, &earlier)
		o.Call, o.unsure = o.last, false
		fallthrough
	case err == nil:
		o.Answer, o.Return, o.Unknown = a, now, false
	case promisesNothing(err) && !o.unsure:
		o.Return, o.Unknown, o.NoEffect = now, false, true
	}
}

// Repeated records the answer to the same request under the same Key, after it had succeeded.
func (o *Operation) Repeated(a fsm.Answer) {
	o.history.mu.Lock()
	defer o.history.mu.Unlock()
	o.repeats = append(o.repeats, a)
}

// Saw records events of a product's feed that somebody was shown.
func (h *History) Saw(events ...*fleet.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.tick()
	for _, e := range events {
		feed := h.events[e.ProductID]
		if feed == nil {
			feed = map[uint64]*sight{}
			h.events[e.ProductID] = feed
		}
		if feed[e.Index] == nil {
			feed[e.Index] = &sight{e, now}
		}
	}
}

// Operations are all calls so far, in the order in which they began.
func (h *History) Operations() []*Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(h.ops), func(a, b *Operation) int { return int(a.Call - b.Call) })
}

// Counts says how many calls there are, of how many writes it is unknown whether they happened, and how many calls promised to
// have done nothing. A read that was given up is no such unknown: it does nothing.
func (h *History) Counts() (all, unknown, nothing int) {
	for _, o := range h.Operations() {
		all++
		if o.Unknown && o.Proposal.Command != nil {
			unknown++
		}
		if o.NoEffect {
			nothing++
		}
	}
	return all, unknown, nothing
}

// promisesNothing reports whether an error says that nothing was done: what no node answers after it has proposed.
func promisesNothing(err error) bool {
	for _, code := range []fleet.Code{
		fleet.NoLeader, fleet.DiskFull, fleet.Behind, fleet.RateLimited, fleet.Unauthenticated, fleet.TooLarge,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// tag is what finds a proposal again in the log.
func tag(p *fsm.Proposal) string {
	if p.Key != "" {
		return "key " + p.Caller.Actor + " " + p.Key
	}
	if p.Request != "" {
		return "request " + p.Request
	}
	return ""
}
