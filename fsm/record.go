package fsm

// This file is what each kind of snapshot record holds: how it is written, and beside it how it is read.

import (
	"encoding/binary"
	"fmt"

	"github.com/lysnrai/fleet"
)

// state writes all tables that are not derived from others, in order of their keys.
func (rw *recordWriter) state(st *state) {
	rw.record(recordMeta, func(b []byte) ([]byte, error) { return appendMeta(binary.AppendUvarint(b, st.index), st) })
	st.servers.Scan(func(_ string, s *Server) bool { put(rw, recordServer, s, appendServer); return rw.err == nil })
	st.tokens.Scan(func(_ string, t *token) bool { put(rw, recordToken, t, appendToken); return rw.err == nil })
	st.revoked.Scan(func(id string, _ revocation) bool { put(rw, recordRevoked, id, appendID); return rw.err == nil })
	st.deadlines.Scan(func(d deadline) bool { put(rw, recordDeadline, d, appendDeadline); return rw.err == nil })
	st.ended.Scan(func(d deadline) bool { put(rw, recordEnded, d, appendDeadline); return rw.err == nil })
	st.products.Scan(func(_ string, p *product) bool { rw.product(p); return rw.err == nil })
}

// put writes one record.
func put[T any](rw *recordWriter, kind recordKind, v T, fill func(b []byte, v T) ([]byte, error)) {
	rw.record(kind, func(b []byte) ([]byte, error) { return fill(b, v) })
}

// appendMeta appends what the state is beside its tables, but for the index.
func appendMeta(b []byte, st *state) ([]byte, error) {
	b = appendTime(appendTime(b, st.now), st.leaderSince)
	return binary.AppendUvarint(appendText(b, st.clusterID), st.generation), nil
}

func appendToken(b []byte, t *token) ([]byte, error) {
	return appendDocument(appendText(b, t.hash), t.doc)
}

func appendID(b []byte, id string) ([]byte, error) { return appendText(b, id), nil }

func appendDeadline(b []byte, d deadline) ([]byte, error) {
	b = append(appendTime(b, d.at), byte(d.kind))
	return appendText(appendText(b, d.product), d.id), nil
}

func (rw *recordWriter) product(p *product) {
	rw.record(recordProduct, func(b []byte) ([]byte, error) { return appendProduct(b, p), nil })
	p.profiles.Scan(func(_ string, versions []*fleet.Profile) bool {
		for _, v := range versions {
			rw.document(recordProfile, v)
		}
		return rw.err == nil
	})
	p.factories.Scan(func(_ string, f *factory) bool { put(rw, recordFactory, f, appendFactory); return rw.err == nil })
	p.endings.Scan(func(minute int64, n *endings) bool {
		rw.record(recordEndings, func(b []byte) ([]byte, error) { return appendEndings(b, minute, n), nil })
		return rw.err == nil
	})
	p.jobs.Scan(func(_ string, r *record) bool { rw.job(r); return rw.err == nil })
	p.memory.bodies.Scan(func(_ string, text body) bool { put(rw, recordBody, text, appendBytes); return rw.err == nil })
	p.memory.answers.Scan(func(_ uint64, k memo) bool { put(rw, recordRemembered, k, appendBytes); return rw.err == nil })
}

// appendProduct appends what a product is beside its tables.
func appendProduct(b []byte, p *product) []byte {
	b = appendText(b, p.id)
	for _, n := range []uint64{p.nextSeq, p.nextEvent, p.purged, p.memory.next} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendFactory(b []byte, f *factory) ([]byte, error) {
	return appendDocument(appendText(b, f.owner), f.doc)
}

func appendEndings(b []byte, minute int64, n *endings) []byte {
	return binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, minute), n.shipped), n.failed)
}

// appendBytes appends what is kept as it is in a record.
func appendBytes[T ~string](b []byte, text T) ([]byte, error) { return append(b, text...), nil }

func (rw *recordWriter) job(r *record) {
	rw.record(recordJob, func(b []byte) ([]byte, error) {
		b, err := appendDocument(b, r.job)
		if err != nil {
			return b, err
		}
		if b, err = appendDocument(b, r.lease); err != nil {
			return b, err
		}
		return appendStanding(b, r), nil
	})
	for _, run := range r.runs() {
		rw.document(recordRun, run)
	}
	for _, e := range r.events {
		rw.document(recordEvent, e)
	}
	for _, a := range r.artifacts {
		rw.document(recordArtifact, a)
	}
}

// appendStanding appends what a record of a job has beside its documents.
func appendStanding(b []byte, r *record) []byte {
	b = append(binary.AppendUvarint(b, r.seq), r.content[:]...)
	b = binary.AppendVarint(appendTexts(b, r.deps), int64(r.unmet))
	b = appendBool(b, r.waiting != nil)
	if r.waiting != nil {
		b = appendText(appendTime(b, r.waiting.until), r.waiting.cause)
	}
	b = binary.AppendUvarint(binary.AppendVarint(append(b, r.key.tier), r.key.key), r.key.seq)
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.totals.usd)), r.totals.tokens)
	b = binary.AppendVarint(appendTime(b, r.totals.held), r.remarks)
	b = appendBool(b, r.group != nil)
	if g := r.group; g != nil {
		for _, n := range g.stages {
			b = binary.AppendVarint(b, n)
		}
		b = appendBool(appendBool(b, g.claimed), g.cancelled)
		b = binary.AppendVarint(binary.AppendVarint(b, g.descendants), int64(g.depth))
	}
	return b
}

func appendTime(b []byte, t fleet.Time) []byte { return binary.AppendVarint(b, int64(t)) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// loader is a new state, and what the next record belongs to.
type loader struct {
	st *state
	p  *product
	r  *record
}

// load puts a record in that was decoded.
func (l *loader) load(kind recordKind, put func(*loader)) error {
	if kind >= recordProfile && kind <= recordRemembered && l.p == nil || kind >= recordRun && kind <= recordArtifact && l.r == nil {
		return fmt.Errorf("%w: a record of kind %d belongs to nothing", ErrCorrupt, kind)
	}
	put(l)
	return nil
}

// decode reads one record, which may be done before those in front of it are loaded, and returns what puts it into a state. d.err says
// what is wrong with it.
func (d *reader) decode(kind recordKind) (put func(l *loader)) {
	switch kind {
	case recordMeta:
		index, now, since, id, generation := d.uvarint(), d.time(), d.time(), d.text(), uint64(0)
		if len(d.b) > 0 { // there were none before backups could be restored
			generation = d.uvarint()
		}
		return func(l *loader) {
			l.st.index, l.st.now, l.st.leaderSince, l.st.clusterID, l.st.generation = index, now, since, id, generation
		}
	case recordServer:
		s := d.server()
		return func(l *loader) { l.st.servers.Set(s.ID, s) }
	case recordToken:
		t := &token{hash: d.text(), doc: &fleet.Token{}}
		d.document(t.doc)
		return func(l *loader) { l.st.tokens.Set(t.doc.ID, t) }
	case recordRevoked:
		id := d.text()
		return func(l *loader) { l.st.revoked.Set(id, revocation{}) }
	case recordDeadline:
		at := d.deadline()
		return func(l *loader) { l.st.deadlines.Set(at) }
	case recordEnded:
		at := d.deadline()
		return func(l *loader) { l.st.ended.Set(at) }
	case recordProduct:
		id, nextSeq, nextEvent, purged, nextAnswer := d.text(), d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()
		return func(l *loader) {
			p := newProduct(id, l.st.gen)
			p.nextSeq, p.nextEvent, p.purged, p.memory.next = nextSeq, nextEvent, purged, nextAnswer
			l.st.products.Set(id, p)
			l.p, l.r = p, nil
		}
	case recordProfile:
		v := &fleet.Profile{}
		d.document(v)
		return func(l *loader) {
			versions, _ := l.p.profiles.Get(v.Name)
			l.p.profiles.Set(v.Name, append(versions, v))
		}
	case recordFactory:
		f := &factory{owner: d.text(), doc: &fleet.Factory{}}
		d.document(f.doc)
		return func(l *loader) { l.p.factories.Set(f.doc.FactoryID, f) }
	case recordEndings:
		minute, n := d.varint(), &endings{d.varint(), d.varint()}
		return func(l *loader) { l.p.endings.Set(minute, n) }
	case recordJob:
		r := d.job()
		return func(l *loader) {
			l.r = r
			l.p.jobs.Load(r.job.ID, r) // they come in order
		}
	case recordRun:
		run := &fleet.Run{}
		d.document(run)
		return func(l *loader) { l.r.open(run) }
	case recordEvent:
		e := &fleet.Event{}
		d.document(e)
		return func(l *loader) { l.r.events = append(l.r.events, e) }
	case recordArtifact:
		a := &fleet.Artifact{}
		d.document(a)
		return func(l *loader) { l.r.artifacts = append(l.r.artifacts, a) }
	case recordBody:
		text := string(d.take(uint64(len(d.b))))
		hash := bodyHash(text)
		return func(l *loader) { l.p.memory.bodies.Set(string(hash[:]), body(text)) }
	case recordRemembered:
		k := memo(d.take(uint64(len(d.b))))
		r, ok := k.parse()
		if !ok {
			d.fail(ErrCorrupt)
		}
		return func(l *loader) { l.p.memory.answers.Set(r.n, k) }
	}
	d.fail(fmt.Errorf("%w: records of kind %d are unknown", ErrFormat, kind))
	return nil
}

func appendServer(b []byte, s *Server) ([]byte, error) {
	return appendBool(appendTexts(b, []string{s.ID, s.Name, s.HTTPAddr, s.NodeAddr, s.Version}), s.Removed), nil
}

func (d *reader) server() *Server {
	f := d.texts()
	removed := d.bool()
	if len(f) != 5 {
		d.fail(ErrCorrupt)
		return &Server{}
	}
	return &Server{ID: f[0], Name: f[1], HTTPAddr: f[2], NodeAddr: f[3], Version: f[4], Removed: removed}
}

func (d *reader) deadline() deadline {
	return deadline{at: d.time(), kind: deadlineKind(d.byte()), product: d.text(), id: d.text()}
}

func (d *reader) job() *record {
	r := &record{job: &fleet.Job{}, lease: &fleet.Lease{}}
	d.document(r.job)
	d.document(r.lease)
	r.seq = d.uvarint()
	copy(r.content[:], d.take(uint64(len(r.content))))
	r.deps, r.unmet = d.texts(), int(d.varint())
	if d.bool() {
		r.waiting = &waiting{d.time(), d.text()}
	}
	r.key = sortKey{d.byte(), d.varint(), d.uvarint()}
	r.totals = totals{fleet.USD(d.varint()), d.varint(), d.time()}
	r.remarks = d.varint()
	if d.bool() {
		g := &group{}
		for i := range g.stages {
			g.stages[i] = d.varint()
		}
		g.claimed, g.cancelled, g.descendants, g.depth = d.bool(), d.bool(), d.varint(), int(d.varint())
		r.group = g
	}
	return r
}
