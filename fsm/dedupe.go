package fsm

// This file remembers what keyed calls were answered, so that a repeat gets the same answer and has no second effect.

import (
	"crypto/sha256"
	"strings"

	"github.com/tidwall/btree"

	"github.com/lysnrai/fleet"
)

const (
	rememberSeconds = 600 // what is older counts as gone
	keepSeconds     = 60  // what is younger is never given up for want of room
	maxForgotten    = 1000
)

// The bounds of what a product remembers; a caller may fill a quarter of it. They are variables for tests.
var (
	maxMemoryDocuments int64 = 1_000_000
	maxMemoryBytes     int64 = 256 << 20 // encoded, without bodies
)

// memory is what a product remembers.
type memory struct {
	next     uint64                      // number of the next answer
	answers  summed[string, *remembered] // by memoryKey
	order    btree.Map[uint64, string]   // number → memoryKey, oldest first (derived)
	byCaller *btree.BTreeG[edge]         // caller → number → memoryKey (derived)
	shares   btree.Map[string, share]    // by caller (derived)
	total    share                       // (derived)
	bodies   summed[string, *body]       // free-form texts by their SHA-256
	swept    struct {
		index uint64
		count int
	} // of the entry with this index; means nothing to another
}

// remembered is one answer. It is kept encoded: it takes no part in garbage collection, and its size is known.
type remembered struct {
	n       uint64
	at      fleet.Time
	caller  string
	key     string
	request string
	answer  string // the result with texts replaced by references to bodies
	size    share
	bodies  []string // that the answer refers to, as often as it does
}

// bytes is what it takes of the room, but for its bodies.
func (r *remembered) bytes() int64 {
	return int64(len(r.answer) + len(r.caller) + len(r.key) + len(r.request))
}

// share is what somebody takes of the memory's room.
type share struct{ documents, bytes int64 }

func (s share) plus(o share, sign int64) share {
	return share{s.documents + sign*o.documents, s.bytes + sign*o.bytes}
}

// over reports whether a share passes a part of the bounds.
func (s share) over(part int64) bool {
	return s.documents > maxMemoryDocuments/part || s.bytes > maxMemoryBytes/part
}

// body is a text that remembered answers contain, kept once.
type body struct {
	text  string
	users int64 // (derived)
}

func newMemory() *memory { return &memory{next: 1, byCaller: tree(lessEdge)} }

func (m *memory) fork() *memory {
	f := *m
	f.answers, f.order, f.shares, f.bodies = *m.answers.Copy(), *m.order.Copy(), *m.shares.Copy(), *m.bodies.Copy()
	f.byCaller = m.byCaller.Copy()
	return &f
}

// memoryKey names a caller's key. Neither has a control character.
func memoryKey(caller, key string) string { return caller + "\n" + key }

// memoryKey names the proposal's key, and is empty if it has none.
func (p *Proposal) memoryKey() string {
	if p.Key == "" {
		return ""
	}
	return memoryKey(p.Caller.Actor, p.Key)
}

// find is the answer under a memoryKey, unless it is too old.
func (m *memory) find(key string, now fleet.Time) (*remembered, bool) {
	r, ok := m.answers.Get(key)
	return r, ok && r.at.Add(rememberSeconds) >= now
}

// add remembers an answer under a key that has none, and makes room at the cost of the same caller.
func (m *memory) add(key string, r *remembered) {
	m.index(key, r)
	for m.full(r.caller) {
		oldest, ok := m.oldest(r.caller)
		if !ok || oldest.at.Add(keepSeconds) > r.at {
			return
		}
		m.drop(oldest)
	}
}

// index puts an answer in every table; its bodies are there.
func (m *memory) index(key string, r *remembered) {
	m.answers.Set(key, r)
	m.order.Set(r.n, key)
	m.byCaller.Set(edge{r.caller, r.n, key})
	s, _ := m.shares.Get(r.caller)
	m.shares.Set(r.caller, s.plus(r.size, 1))
	m.total = m.total.plus(r.size, 1)
	for _, hash := range r.bodies {
		b, _ := m.bodies.Get(hash)
		m.bodies.Map.Set(hash, &body{b.text, b.users + 1}) // the text, which is summed, stays
	}
}

func (m *memory) drop(r *remembered) {
	key := memoryKey(r.caller, r.key)
	m.answers.Delete(key)
	m.order.Delete(r.n)
	m.byCaller.Delete(edge{r.caller, r.n, key})
	s, _ := m.shares.Get(r.caller)
	if s = s.plus(r.size, -1); s == (share{}) {
		m.shares.Delete(r.caller)
	} else {
		m.shares.Set(r.caller, s)
	}
	m.total = m.total.plus(r.size, -1)
	for _, hash := range r.bodies {
		b, _ := m.bodies.Get(hash)
		if b.users == 1 {
			m.bodies.Delete(hash)
		} else {
			m.bodies.Map.Set(hash, &body{b.text, b.users - 1})
		}
	}
}

// full reports whether the product, or the caller's quarter of it, is over its bounds.
func (m *memory) full(caller string) bool {
	s, _ := m.shares.Get(caller)
	return m.total.over(1) || s.over(4)
}

func (m *memory) oldest(caller string) (r *remembered, ok bool) {
	m.byCaller.Ascend(edge{from: caller}, func(e edge) bool {
		if e.from == caller {
			r, ok = m.answers.Get(e.to)
		}
		return false
	})
	return r, ok
}

// sweep takes out what is too old, so much of it in one entry.
func (m *memory) sweep(index uint64, now fleet.Time) {
	if m.swept.index != index {
		m.swept.index, m.swept.count = index, 0
	}
	for ; m.swept.count < maxForgotten; m.swept.count++ {
		_, key, ok := m.order.Min()
		r, _ := m.answers.Get(key)
		if !ok || r.at.Add(rememberSeconds) >= now {
			return
		}
		m.drop(r)
	}
}

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
func (st *state) remembered(p *Proposal, key string) (Answer, bool) {
	if key == "" {
		return Answer{}, false
	}
	product, ok := st.products.Get(p.Command.product())
	if !ok {
		return Answer{}, false
	}
	r, ok := product.memory.find(key, st.now)
	switch {
	case !ok:
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
	fat, _ := exchange(result, product.memory.resolve)
	return Answer{Result: fat, Replayed: true}, true
}

// remember keeps an answer under its proposal's key, and forgets what is too old.
func (tx *tx) remember(p *Proposal, key string, a Answer) {
	if key != "" && memorable(p.Command, a.Result) {
		tx.found()
		m := tx.p.memory
		if old, ok := m.answers.Get(key); ok { // first: the texts of both may be the same
			m.drop(old)
		}
		r := &remembered{n: m.next, at: tx.st.now, caller: p.Caller.Actor, key: p.Key, request: p.Request}
		thin, documents := exchange(a.Result, func(text string) string { return m.intern(r, text) })
		d := digesters.Get().(*digester)
		defer digesters.Put(d)
		b, err := appendResult(d.b[:0], thin)
		d.b = b[:0]
		if err == nil {
			r.answer = string(b) // just as long as it is: there may be a million
			m.next++
			r.size = share{documents, r.bytes()}
			m.add(key, r)
		}
	}
	tx.p.memory.sweep(tx.st.index, tx.st.now)
}

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
func (m *memory) intern(r *remembered, text string) string {
	if len(text) <= shortBodies && !strings.HasPrefix(text, reference) {
		return text
	}
	hash := bodyHash(text)
	if _, ok := m.bodies.Get(hash); !ok {
		m.bodies.Set(hash, &body{text: text})
	}
	r.bodies = append(r.bodies, hash)
	return reference + hash
}

func bodyHash(text string) string {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	b := append(d.b[:0], text...)
	d.b = b[:0]
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// resolve is the text that intern put away.
func (m *memory) resolve(text string) string {
	hash, ok := strings.CutPrefix(text, reference)
	if !ok {
		return text
	}
	b, _ := m.bodies.Get(hash)
	return b.text
}
