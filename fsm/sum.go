package fsm

// This file is the hash by which nodes prove in the log that they hold the same: kept up with every change, and counted
// anew from the documents whenever somebody wants to know whether it is still true of them.
//
// It is a sum modulo 2⁶⁴ of one hash for each thing that a snapshot holds: so a change costs what it changes, and the order
// of changes is no matter. A product's sum goes into the hash of the product's own record. A change takes out the hash of
// what was stored, computed from the stored document again: memory that rotted does not cancel out. xxHash finds
// accidents; whoever can write to a node's memory needs no collision.
//
// The log's index is no part of it: entries that are not the machine's move it.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/btree"
	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

// HashVersion says how the hash is made. Who changes what is hashed, or the encoding of anything that is, raises it:
// hashes of different versions are never compared.
const HashVersion = 1

// ErrDiverged: the documents are not those that the log made.
var ErrDiverged = errors.New("the state is not what the log made of it")

// What is hashed apart from the record that it is in, because it changes, or stays, apart from it. These kinds are in no
// stream; their numbers are part of HashVersion.
const (
	hashedLease    recordKind = 128
	hashedStanding recordKind = 129
	hashedText     recordKind = 130
)

// Which document a text that is hashed apart is of: long ones stay while their documents change.
const (
	textsOfJob byte = iota + 1
	textsOfRun
	textsOfMemory
)

// digester has the room to encode what is hashed, or kept encoded.
type digester struct {
	b      []byte
	job    fleet.Job
	run    fleet.Run
	bodies []string // hashes of what was taken out of it
}

var digesters = sync.Pool{New: func() any { return &digester{b: make([]byte, 0, 2048)} }}

// hashRecord hashes one record.
func hashRecord[T any](d *digester, kind recordKind, v T, fill func(b []byte, v T) ([]byte, error)) uint64 {
	b, err := fill(append(d.b[:0], HashVersion, byte(kind)), v)
	if err != nil { // a document that has no bytes can't be snapshotted either
		b = append(b, err.Error()...)
	}
	d.b = b[:0]
	return xxhash.Sum64(b)
}

// sumOf is hashRecord for one that comes alone.
func sumOf[T any](kind recordKind, v T, fill func(b []byte, v T) ([]byte, error)) uint64 {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	return hashRecord(d, kind, v, fill)
}

func (d *digester) document(kind recordKind, doc msgp.Marshaler) uint64 {
	return hashRecord(d, kind, doc, appendDocument)
}

// sumWith is for a hash that is made in another way.
func sumWith[T any](v T, hash func(d *digester, v T) uint64) uint64 {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	return hash(d, v)
}

// text hashes the n-th text of a document. An empty one is none.
func (d *digester) text(of, n byte, id, text string) uint64 {
	if text == "" {
		return 0
	}
	b := append(append(d.b[:0], HashVersion, byte(hashedText), of, n), id...)
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64String(text))
	d.b = b[:0]
	return xxhash.Sum64(b)
}

// texts are the long ones of a job or a run.
type texts [3]string

// newTexts is by how much a document's texts change the sum. Those that are not touched are the same memory, which !=
// knows without a look at it.
func (d *digester) newTexts(of byte, id string, from, to texts) (sum uint64) {
	for n := range from {
		if from[n] != to[n] {
			sum += d.text(of, byte(n), id, to[n]) - d.text(of, byte(n), id, from[n])
		}
	}
	return sum
}

// jobOf is the hash of a job without its texts, and these. There may be none.
func (d *digester) jobOf(j *fleet.Job) (hash uint64, long texts) {
	if j == nil {
		return 0, texts{}
	}
	d.job = *j
	long = texts{j.BodyMd, string(j.ManifestSnapshot), string(j.Result)}
	d.job.BodyMd, d.job.ManifestSnapshot, d.job.Result = "", "", ""
	return d.document(recordJob, &d.job), long
}

func (d *digester) runOf(r *fleet.Run) (hash uint64, long texts) {
	if r == nil {
		return 0, texts{}
	}
	d.run = *r
	long = texts{string(r.ProfileSnapshot), string(r.VerifyResult), string(r.Result)}
	d.run.ProfileSnapshot, d.run.VerifyResult, d.run.Result = "", "", ""
	return d.document(recordRun, &d.run), long
}

var noRecord record // is only read

// newJob is by how much a record of a job changes the sum: from what was stored, nil for nothing, to what is. Documents that
// stayed where they are have not changed.
func (d *digester) newJob(from, to *record) (sum uint64) {
	if from == nil {
		from = &noRecord
	}
	if to == nil {
		to = &noRecord
	}
	if from.job != to.job {
		was, old := d.jobOf(from.job)
		is, long := d.jobOf(to.job)
		sum += is - was + d.newTexts(textsOfJob, jobID(from, to), old, long)
	}
	if from.lease != to.lease {
		sum += d.lease(to.lease) - d.lease(from.lease)
	}
	sum += d.standing(to) - d.standing(from)
	for i := min(len(from.earlier), len(to.earlier)); i <= max(len(from.earlier), len(to.earlier)); i++ { // those before are the same
		if a, b := from.nth(i), to.nth(i); a != b {
			was, old := d.runOf(a)
			is, long := d.runOf(b)
			sum += is - was + d.newTexts(textsOfRun, runID(a, b), old, long)
		}
	}
	return sum + newest(d, recordEvent, from.events, to.events) + newest(d, recordArtifact, from.artifacts, to.artifacts)
}

// jobID is the id of two records of a job, of which one may be empty.
func jobID(a, b *record) string {
	if a.job != nil {
		return a.job.ID
	}
	return b.job.ID
}

// runID is that of two documents of a run, of which one may be missing.
func runID(a, b *fleet.Run) string {
	if a != nil {
		return a.ID
	}
	return b.ID
}

// nth is the run at this place, nil behind the latest.
func (r *record) nth(i int) *fleet.Run {
	switch {
	case i < len(r.earlier):
		return r.earlier[i]
	case i == len(r.earlier):
		return r.latest
	}
	return nil
}

// newest is by how much a list changes the sum that only ever grows, or goes as a whole.
func newest[T msgp.Marshaler](d *digester, kind recordKind, from, to []T) (sum uint64) {
	for i := len(from); i < len(to); i++ {
		sum += d.document(kind, to[i])
	}
	for i := len(to); i < len(from); i++ {
		sum -= d.document(kind, from[i])
	}
	return sum
}

func (d *digester) lease(l *fleet.Lease) uint64 {
	if l == nil {
		return 0
	}
	return d.document(hashedLease, l)
}

// standing hashes what a record has beside its documents.
func (d *digester) standing(r *record) uint64 {
	if r.job == nil {
		return 0
	}
	return hashRecord(d, hashedStanding, r, func(b []byte, r *record) ([]byte, error) {
		return appendStanding(appendText(b, r.job.ID), r), nil
	})
}

// newFactory is by how much a factory changes the sum, nil for none.
func (d *digester) newFactory(from, to *factory) (sum uint64) {
	if from != nil && to != nil && from.doc == to.doc && from.owner == to.owner {
		return 0
	}
	if from != nil {
		sum -= hashRecord(d, recordFactory, from, appendFactory)
	}
	if to != nil {
		sum += hashRecord(d, recordFactory, to, appendFactory)
	}
	return sum
}

// product hashes a product's own record with the sum of all that is in it.
func (d *digester) product(p *product) uint64 {
	return d.productOf(p, p.sum+p.endings.sum+p.memory.answers.sum+p.memory.bodies.sum)
}

func (d *digester) productOf(p *product, sum uint64) uint64 {
	return hashRecord(d, recordProduct, p, func(b []byte, p *product) ([]byte, error) {
		return binary.LittleEndian.AppendUint64(appendProduct(b, p), sum), nil
	})
}

// change is a document that an entry has changed: what was stored before, nil for nothing, and what is now.
type change[T any] struct {
	p        *product
	from, to *T
}

// note remembers a change for the end of the entry. One that goes on from the last is the same.
func note[T any](list *[]change[T], p *product, from, to *T) {
	if n := len(*list); n > 0 && from != nil && (*list)[n-1].to == from {
		(*list)[n-1].to = to
		return
	}
	*list = append(*list, change[T]{p, from, to})
}

// touched is a product that an entry may have changed, with its hash before.
type touched struct {
	p    *product
	hash uint64
}

// touch notes a stored product before anything in it changes.
func (tx *tx) touch(p *product, isNew bool) {
	if p.entry == tx.entry {
		return
	}
	p.entry = tx.entry
	t := touched{p: p}
	if !isNew {
		t.hash = sumWith(p, (*digester).product)
	}
	tx.products = append(tx.products, t)
}

// sumUp brings the sum to what the entry has left. Documents are only encoded now, once for many commands.
func (tx *tx) sumUp() {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	for _, c := range tx.jobs {
		c.p.sum += d.newJob(c.from, c.to)
	}
	for _, c := range tx.factories {
		c.p.sum += d.newFactory(c.from, c.to)
	}
	for _, t := range tx.products {
		tx.st.sum += d.product(t.p) - t.hash
	}
}

// own is the hash of what the state is beside its tables.
func (st *state) own() uint64 {
	return sumOf(recordMeta, st, func(b []byte, st *state) ([]byte, error) {
		return appendMeta(binary.AppendUvarint(b, uint64(st.level)), st)
	})
}

// digest is the hash of the state as it was kept.
func (st *state) digest() uint64 {
	return st.own() + st.sum + st.servers.sum + st.tokens.sum + st.revoked.sum + st.deadlines.sum + st.ended.sum
}

// summed is a table whose values are replaced whole. It keeps the sum of their hashes.
type summed[K string | int64 | uint64, V interface{ sum(K) uint64 }] struct {
	btree.Map[K, V]
	sum uint64
}

// Set replaces what the key had.
func (t *summed[K, V]) Set(key K, value V) (V, bool) {
	old, replaced := t.Map.Set(key, value)
	if replaced {
		t.sum -= old.sum(key)
	}
	t.sum += value.sum(key)
	return old, replaced
}

// Delete removes what the key has.
func (t *summed[K, V]) Delete(key K) (V, bool) {
	old, deleted := t.Map.Delete(key)
	if deleted {
		t.sum -= old.sum(key)
	}
	return old, deleted
}

// Clear removes all.
func (t *summed[K, V]) Clear() {
	t.Map.Clear()
	t.sum = 0
}

// Copy shares the table until either side changes.
func (t *summed[K, V]) Copy() *summed[K, V] { return &summed[K, V]{*t.Map.Copy(), t.sum} }

func (t *summed[K, V]) recount() (sum uint64) {
	t.Scan(func(key K, value V) bool {
		sum += value.sum(key)
		return true
	})
	return sum
}

func (s *Server) sum(string) uint64     { return sumOf(recordServer, s, appendServer) }
func (t *token) sum(string) uint64      { return sumOf(recordToken, t, appendToken) }
func (revocation) sum(id string) uint64 { return sumOf(recordRevoked, id, appendID) }
func (n *endings) sum(minute int64) uint64 {
	return sumOf(recordEndings, n, func(b []byte, n *endings) ([]byte, error) { return appendEndings(b, minute, n), nil })
}
func (k memo) sum(uint64) uint64 { return sumOf(recordRemembered, k, appendBytes) }
func (b body) sum(hash string) uint64 {
	return sumWith(b, func(d *digester, b body) uint64 { return d.text(textsOfMemory, 0, hash, string(b)) })
}

// schedule is a table of deadlines, with the sum of their hashes.
type schedule struct {
	*btree.BTreeG[deadline]
	kind recordKind
	sum  uint64
}

func newSchedule(kind recordKind) schedule { return schedule{BTreeG: tree(lessDeadline), kind: kind} }

// Set adds a deadline, if it is not there.
func (s *schedule) Set(d deadline) {
	if _, there := s.BTreeG.Set(d); !there {
		s.sum += sumOf(s.kind, d, appendDeadline)
	}
}

// Delete removes a deadline.
func (s *schedule) Delete(d deadline) {
	if old, there := s.BTreeG.Delete(d); there {
		s.sum -= sumOf(s.kind, old, appendDeadline)
	}
}

// Copy shares the table until either side changes.
func (s *schedule) Copy() schedule { return schedule{s.BTreeG.Copy(), s.kind, s.sum} }

func (s *schedule) recount() (sum uint64) {
	s.Scan(func(d deadline) bool {
		sum += sumOf(s.kind, d, appendDeadline)
		return true
	})
	return sum
}

// count sets the sums of a state that was just read. Those of tables that are replaced whole are there.
func (st *state) count() {
	d := &digester{}
	st.sum = 0
	st.products.Scan(func(_ string, p *product) bool {
		p.sum = d.documents(p, nil)
		st.sum += d.product(p)
		return true
	})
}

// documents is the sum of a product's jobs, factories and profiles. pace, unless it is nil, is called now and then, and may
// give it up.
func (d *digester) documents(p *product, pace func() bool) (sum uint64) {
	p.jobs.Scan(func(_ string, r *record) bool {
		sum += d.newJob(nil, r)
		return pace == nil || pace()
	})
	p.factories.Scan(func(_ string, f *factory) bool {
		sum += d.newFactory(nil, f)
		return true
	})
	p.profiles.Scan(func(_ string, versions []*fleet.Profile) bool {
		for _, v := range versions {
			sum += d.document(recordProfile, v)
		}
		return true
	})
	return sum
}

// StateHash is the hash of the frozen state, as it was kept.
func (h *Handle) StateHash() uint64 { return h.st.digest() }

// Verify counts the hash anew from every document and says ErrDiverged if it is not the one that was kept. It calls pace
// after each job, so that a caller may take its time, or give up by false.
func (h *Handle) Verify(pace func() bool) error {
	d, st, given := &digester{}, h.st, true
	going := func() bool { given = given && pace(); return given }
	sum := uint64(0)
	st.products.Scan(func(_ string, p *product) bool {
		documents := d.documents(p, going) // no copy of p: Apply, when it forks it, writes to the tables' heads
		if !given {
			return false
		}
		sum += d.productOf(p, documents+p.endings.recount()+p.memory.answers.recount()+p.memory.bodies.recount())
		return going()
	})
	if !given {
		return nil
	}
	sum += st.own() + st.servers.recount() + st.tokens.recount() + st.revoked.recount() + st.deadlines.recount() + st.ended.recount()
	if kept := st.digest(); kept != sum {
		return fmt.Errorf("%w: at index %d its hash was kept as %016x, its documents come to %016x", ErrDiverged, st.index, kept, sum)
	}
	return nil
}
