package fsm

// This file is the hash by which replicas are compared: over the snapshot's records, and over every index as it is
// iterated, so that an index that went astray shows although no record differs.

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"github.com/tidwall/btree"

	"github.com/lysnrai/fleet"
)

// hash is equal for any two states that can't be told apart. It takes time in proportion to the state.
func (st *state) hash() [32]byte {
	h := &hasher{h: sha256.New()}
	// The bytes of a snapshot can't fail to be written to a hash; a document that has no bytes changes the hash.
	if _, err := writeSnapshot(h.h, st); err != nil {
		h.texts(err.Error())
	}
	scan(h, &st.hashes, func(id string) { h.texts(id) })
	st.products.Scan(func(_ string, p *product) bool { h.product(p); return true })
	var sum [32]byte
	h.h.Sum(sum[:0])
	return sum
}

// hasher writes values so that different sequences never give the same bytes.
type hasher struct {
	h   hash.Hash
	buf []byte
}

func (h *hasher) texts(list ...string) {
	h.buf = appendTexts(h.buf[:0], list)
	h.h.Write(h.buf)
}

func (h *hasher) numbers(list ...int64) {
	h.buf = h.buf[:0]
	for _, n := range list {
		h.buf = binary.AppendVarint(h.buf, n)
	}
	h.h.Write(h.buf)
}

// scan writes an index: its length, then each key with its value.
func scan[K string | uint64 | int64, V any](h *hasher, m *btree.Map[K, V], value func(v V)) {
	h.numbers(int64(m.Len()))
	m.Scan(func(k K, v V) bool {
		switch k := any(k).(type) {
		case string:
			h.texts(k)
		case uint64:
			h.numbers(int64(k))
		case int64:
			h.numbers(k)
		}
		value(v)
		return true
	})
}

func (h *hasher) edges(t *btree.BTreeG[edge]) {
	h.numbers(int64(t.Len()))
	t.Scan(func(e edge) bool {
		h.texts(e.from, e.to)
		h.numbers(int64(e.seq))
		return true
	})
}

func (h *hasher) product(p *product) {
	id := func(id string) { h.texts(id) }
	scan(h, &p.bySeq, id)
	scan(h, &p.byKey, id)
	for i := range p.stages {
		scan(h, &p.stages[i], id)
	}
	scan(h, &p.parked, id)
	h.edges(p.children)
	h.edges(p.dependents)
	h.edges(p.held)
	h.numbers(int64(p.queue.Len()))
	p.queue.Scan(func(q queued) bool {
		h.texts(q.signature, q.job)
		h.numbers(int64(q.key.tier), q.key.key, int64(q.key.seq))
		return true
	})
	scan(h, &p.signatures, func(s *signature) {
		h.texts(append([]string{s.engine, s.head.job}, s.capabilities...)...)
		h.numbers(s.jobs)
	})
	scan(h, &p.feed, func(e *fleet.Event) {
		h.texts(e.JobID)
		h.numbers(int64(e.Seq), int64(e.Index))
	})
	scan(h, &p.jobs, func(r *record) {
		for _, at := range r.due {
			h.numbers(int64(at))
		}
	})
	scan(h, &p.factories, func(f *factory) { h.numbers(int64(f.silent), int64(f.forget)) })
	h.memory(p.memory)
}

func (h *hasher) memory(m *memory) {
	dir := m.directory()
	h.numbers(dir.total.documents, dir.total.bytes, int64(len(dir.byKey)), int64(len(dir.lines)), int64(len(dir.texts)))
	for _, named := range slices.Sorted(maps.Keys(dir.byKey)) {
		h.texts(named)
		h.numbers(int64(dir.byKey[named]))
	}
	for _, caller := range slices.Sorted(maps.Keys(dir.lines)) {
		l := dir.lines[caller]
		h.texts(caller)
		h.numbers(l.share.documents, l.share.bytes)
		for _, n := range l.numbers {
			if _, there := m.answers.Get(n); there {
				h.numbers(int64(n))
			}
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(dir.texts)) {
		h.texts(hash, dir.texts[hash].name)
		h.numbers(int64(dir.texts[hash].users))
	}
}
