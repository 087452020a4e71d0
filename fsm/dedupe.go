package fsm

// This file remembers what keyed calls were answered, so that a repeat gets the same answer and has no second effect.

import (
	"strings"

	"github.com/lysnrai/fleet"
)

const (
	rememberSeconds = 600 // what is older counts as gone
	keepSeconds     = 60  // what is younger is never given up for want of room
	maxForgotten    = 1000
)

// appendKey appends what names the proposal's key among those of all callers, and nothing if it has none.
func (p *Proposal) appendKey(b []byte) []byte {
	if p.Key == "" {
		return b
	}
	return appendText(appendText(b, p.Caller.Actor), p.Key)
}

// keyRoom is enough for most callers and keys.
const keyRoom = 96

// The bounds of what a product remembers; a caller may fill a quarter of it. They are variables for tests.
var (
	maxMemoryDocuments int64 = 1_000_000
	maxMemoryBytes     int64 = 256 << 20 // encoded, without bodies
)

// refuse is the refusal of a submit that there is no room to remember, nil if there is.
func (m *memory) refuse(p *Proposal, now fleet.Time) *fleet.Error {
	switch p.Command.(type) {
	case *Submit, *SubmitBatch:
	default:
		return nil
	}
	if !m.full(p.Caller.Actor) {
		return nil
	}
	err := fleet.Errorf(fleet.RateLimited, "the last minute's calls of %s with an Idempotency-Key fill the room to remember them", p.Caller.Actor)
	err.RetryAfterSeconds = keepSeconds
	if oldest, ok := m.oldest(p.Caller.Actor); ok {
		wait := oldest.at.Add(keepSeconds) - now
		if wait <= 0 {
			return nil
		}
		err.RetryAfterSeconds = (int64(wait) + 1e9 - 1) / 1e9
	}
	return err
}

// remembered finds what a proposal was answered before, or refuses its key.
func (st *state) remembered(p *Proposal, key []byte) (Answer, bool) {
	if len(key) == 0 {
		return Answer{}, false
	}
	product, ok := st.products.Get(p.Command.product())
	if !ok {
		return Answer{}, false
	}
	r, ok := product.memory.find(key)
	switch {
	case !ok || r.faded(st.now):
		if err := product.memory.refuse(p, st.now); err != nil {
			return Answer{Err: err}, true
		}
		return Answer{}, false
	case r.request != p.Request:
		return Answer{Err: fleet.Errorf(fleet.IdempotencyKeyReused, "Idempotency-Key %q was used for another request", p.Key)}, true
	}
	d := &reader{b: []byte(r.answer)}
	result := d.result()
	if d.err != nil {
		return refusal(d.err), true
	}
	fat, _ := exchange(result, exchanger{text: product.memory.resolve})
	return Answer{Result: fat, Replayed: true}, true
}

// remember keeps an answer under its proposal's key, and forgets what is too old.
func (tx *tx) remember(p *Proposal, key []byte, a Answer) {
	if len(key) > 0 && memorable(p.Command, a.Result) {
		tx.found()
		m := tx.p.memory
		if old, ok := m.find(key); ok { // first: the texts of both may be the same
			m.drop(&old)
		}
		m.add(p, a.Result, tx.st.now)
	}
	tx.p.memory.sweep(tx.st.index, tx.st.now)
}

// add remembers the answer to a proposal whose key has none, and makes room at the cost of the same caller.
func (m *memory) add(p *Proposal, answer Result, now fleet.Time) {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	r := remembered{n: m.next, at: now, caller: p.Caller.Actor, key: p.Key, request: p.Request}
	d.bodies = d.bodies[:0]
	thin, documents := exchange(answer, exchanger{text: func(text string) string { return m.intern(d, text) }, job: &d.job, run: &d.run})
	b, err := appendResult(d.b[:0], thin)
	d.b = b[:0]
	if err != nil { // a document that has no bytes can't be snapshotted either
		return
	}
	n := len(b)
	b = appendRemembered(b, &r, b[:n], documents, d.bodies)
	d.b = b[:0]
	m.next++
	m.keep(memo(b[n:])) // just as long as it is: there may be a million
	for m.full(r.caller) {
		oldest, ok := m.oldest(r.caller)
		if !ok || oldest.at.Add(keepSeconds) > now {
			return
		}
		m.drop(&oldest)
	}
}

// sweep takes out what is too old, so much of it in one entry.
func (m *memory) sweep(index uint64, now fleet.Time) {
	if m.swept.index != index {
		m.swept.index, m.swept.count = index, 0
	}
	for ; m.swept.count < maxForgotten; m.swept.count++ {
		_, k, ok := m.answers.Min()
		if !ok {
			return
		}
		r := k.open()
		if !r.faded(now) {
			return
		}
		m.drop(&r)
	}
}

// faded reports whether an answer is too old to be given.
func (r *remembered) faded(now fleet.Time) bool { return r.at.Add(rememberSeconds) < now }

// memorable reports whether a repeat of the command could do harm, and came to something.
func memorable(c Command, r Result) bool {
	switch c.(type) {
	case *Renew, *Heartbeat:
		return false
	}
	switch r := r.(type) {
	case *fleet.Claim:
		return r.Job != nil
	case *fleet.Claims:
		return len(r.Claims) > 0
	}
	return true
}

// A reference to a body is reference and its hash, in the place of the text. A text that begins so itself is referred
// to whatever its length.
const (
	reference   = "\x00"
	shortBodies = 64 // bytes up to which a text is not worth a reference
)

// intern puts a text among the bodies and gives what stands for it.
func (m *memory) intern(d *digester, text string) string {
	if len(text) <= shortBodies && !strings.HasPrefix(text, reference) {
		return text
	}
	name := m.body(text)
	d.bodies = append(d.bodies, name[len(reference):])
	return name
}

// resolve is the text that intern put away.
func (m *memory) resolve(text string) string {
	hash, ok := strings.CutPrefix(text, reference)
	if !ok {
		return text
	}
	b, _ := m.bodies.Get(hash)
	return string(b)
}
