package fsm

// This file lets a backup in without turning fences back: a record in front of the backup's stream says how far all that
// somebody may have seen of a later state must rise, and whoever reads the stream does that before it serves.
//
// It is a pure function of the stream, so every node that is given it, and every start from it, comes to the same state.

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/lysnrai/fleet"
)

const (
	raiseEpochs = 1_000_000     // by which epochs and versions rise with each generation
	raiseFeeds  = 1_000_000_000 // by which the feeds' next index does
	// maxGeneration keeps what was raised within the numbers that every JSON reader keeps exactly.
	maxGeneration = 1_000_000
)

// Backup is what a snapshot that was verified to its last byte says.
type Backup struct {
	Level      int
	Generation uint64
	Index      uint64
	Now        fleet.Time
	Jobs       int
	tokens     []*fleet.Token
}

// ReadBackup verifies a snapshot as Restore would read it, the tables' agreement too: a node can't go on after a
// snapshot that raft has taken and the machine refuses.
func ReadBackup(r io.Reader) (*Backup, error) {
	st, raised, err := readStream(r, inTurn)
	switch {
	case err != nil:
		return nil, err
	case raised != nil:
		return nil, errInvalid("it was taken out of a data directory: only what `snapshot save` wrote can be restored")
	case st.generation >= maxGeneration:
		return nil, errInvalid("it has generation %d, the most is %d", st.generation, maxGeneration)
	}
	b := &Backup{Level: st.level, Generation: st.generation, Index: st.index, Now: st.now}
	st.products.Scan(func(_ string, p *product) bool { b.Jobs += p.jobs.Len(); return true })
	st.tokens.Scan(func(_ string, t *token) bool { b.tokens = append(b.tokens, t.doc); return true })
	return b, nil
}

// Raise is what a cluster adds to a backup when it restores it.
type Raise struct {
	Generation uint64 // the new one
	by         uint64 // how many generations that is after the backup's
	index      uint64 // that the cluster has reached
	now        fleet.Time

	// What the cluster keeps.
	level     int
	clusterID string
	servers   []*Server
	revoked   []string
	feeds     []feedBase
}

// feedBase is the next event index that a product had.
type feedBase struct {
	product string
	next    uint64
}

// Raise plans the restoring of a backup over the machine's state as it is: more is added to the generation that
// follows from both, and now is the time from which the restored state goes on. Nothing may be applied in between.
func (m *Machine) Raise(b *Backup, more uint64, now fleet.Time) (*Raise, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	st := m.st
	if b.Level > st.level {
		return nil, fleet.Errorf(fleet.InvalidSnapshot, "it is of level %d, this cluster is at level %d: first every node must run a release that knows level %d",
			b.Level, st.level, b.Level)
	}
	generation := 1 + max(st.generation, b.Generation)
	if more > maxGeneration || generation+more > maxGeneration {
		return nil, fleet.InvalidField("raise", "this would be generation %d + %d, the most is %d", generation, more, maxGeneration)
	}
	generation += more
	r := &Raise{Generation: generation, by: generation - b.Generation, index: st.index, now: now, level: st.level, clusterID: st.clusterID}
	st.servers.Scan(func(_ string, s *Server) bool { r.servers = append(r.servers, s); return true })
	st.revoked.Scan(func(id string, _ revocation) bool { r.revoked = append(r.revoked, id); return true })
	st.products.Scan(func(id string, p *product) bool { r.feeds = append(r.feeds, feedBase{id, p.nextEvent}); return true })
	return r, nil
}

// Tokens are those of the backup that are valid once it is restored.
func (r *Raise) Tokens(b *Backup) []*fleet.Token {
	tokens := []*fleet.Token{}
	for _, t := range b.tokens {
		if _, revoked := slices.BinarySearch(r.revoked, t.ID); !revoked {
			tokens = append(tokens, t)
		}
	}
	return tokens
}

// IsRaised reports whether a stream that begins with these bytes is a backup with a raise in front: a snapshot's header of any
// level, and the raise's kind.
func IsRaised(head []byte) bool {
	return len(head) >= RaisedHead && string(head[:len(snapshotMagic)]) == snapshotMagic && head[RaisedHead-1] == byte(recordRaise)
}

// RaisedHead is how many bytes IsRaised needs.
const RaisedHead = len(snapshotMagic) + 2

// Front is what goes in front of the backup's own bytes.
func (r *Raise) Front() []byte {
	payload := binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, r.Generation), r.by), r.index)
	payload = appendText(appendTime(payload, r.now), r.clusterID)
	payload = binary.AppendUvarint(payload, uint64(len(r.servers)))
	for _, s := range r.servers {
		payload, _ = appendServer(payload, s) // never fails
	}
	payload = appendTexts(payload, r.revoked)
	payload = binary.AppendUvarint(payload, uint64(len(r.feeds)))
	for _, f := range r.feeds {
		payload = binary.AppendUvarint(appendText(payload, f.product), f.next)
	}
	return append(append([]byte(snapshotMagic), byte(r.level)), seal(recordRaise, payload)...)
}

func (d *reader) raise() *Raise {
	r := &Raise{Generation: d.uvarint(), by: d.uvarint(), index: d.uvarint(), now: d.time(), clusterID: d.text()}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		r.servers = append(r.servers, d.server())
	}
	r.revoked = d.texts()
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		r.feeds = append(r.feeds, feedBase{d.text(), d.uvarint()})
	}
	return r
}

// raise lifts a state that was just read, and that nobody else has seen yet.
func (st *state) raise(r *Raise) {
	st.level = max(st.level, r.level)
	st.generation, st.index = r.Generation, max(st.index, r.index)
	st.clusterID = r.clusterID
	st.servers.Clear()
	for _, s := range r.servers {
		st.servers.Set(s.ID, s)
	}
	for _, id := range r.revoked {
		st.dropToken(id)
		st.revoked.Set(id, revocation{})
	}
	for _, f := range r.feeds { // also of a product that the backup does not know: somebody may follow its feed
		p := st.writable(f.product)
		p.nextEvent = max(p.nextEvent, f.next)
	}
	tx := &tx{st: st, caller: Caller{ActorFleet}}
	tx.part()
	var ids []string
	st.products.Scan(func(id string, p *product) bool {
		ids = append(ids, id)
		p.nextEvent += r.by * raiseFeeds
		p.raise(r.by*raiseEpochs, tx.txn)
		return true
	})
	// The leases end at the backup's own time: what lies between it and now nobody has worked on these jobs in this history.
	for _, id := range ids {
		tx.enter(id)
		var held []string
		tx.p.held.Scan(func(e edge) bool { held = append(held, e.to); return true })
		for _, job := range held {
			tx.returnRestored(tx.edit(job))
		}
	}
	st.now, st.leaderSince = r.now, r.now // nobody could heartbeat or renew before
}

// raise lifts what fences and what ETags are made of. Each job's documents count as copied by this command: a version
// rises once.
func (p *product) raise(by, txn uint64) {
	p.jobs.Scan(func(_ string, r *record) bool {
		r.job.LeaseEpoch += by
		r.lease.LeaseEpoch = r.job.LeaseEpoch
		r.job.Version += by
		r.lease.Version += by
		for _, run := range r.runs() {
			run.Version += by
		}
		r.txn, r.fresh = txn, freshJob|freshLease|freshRun
		return true
	})
	p.factories.Scan(func(_ string, f *factory) bool { f.doc.Version += by; return true })
}

// firstVersion is below that of a document whose id may have been used before a restore that took it away: a run's, a
// factory's. A job's id never comes again.
func (st *state) firstVersion() uint64 { return st.generation * raiseEpochs }

// returnRestored takes a job from its holder, who is fenced already, and counts no loss.
func (tx *tx) returnRestored(r *record) {
	data := by(r)
	tx.endLease(r, fleet.LeaseExpired, fleet.OutcomeLeaseExpired, string(fleet.EventLeaseExpired))
	j := tx.editJob(r)
	j.Reason = string(fleet.EventLeaseExpired)
	j.UpdatedAt = tx.st.now
	tx.record(r, fleet.EventLeaseExpired, data.num("leaseEpoch", int64(j.LeaseEpoch)).num("leaseLosses", j.LeaseLosses).end())
	tx.backInLine(r, nil)
	tx.settle()
}

// Refound plans the raise with which the machine's own state becomes that of a new cluster of one server: a cluster that lost its
// quorum goes on from what one survivor has (docs/operations.md). The servers before count as removed.
func (m *Machine) Refound(clusterID string, founder Server) (*Raise, error) {
	own := &Backup{}
	m.View(func(v View) { own.Generation, own.Now = v.st.generation, v.st.now })
	r, err := m.Raise(own, 0, own.Now)
	if err != nil {
		return nil, err
	}
	for i, s := range r.servers {
		removed := *s
		removed.Removed = true
		r.servers[i] = &removed
	}
	r.clusterID, r.servers = clusterID, append(r.servers, &founder)
	return r, nil
}
