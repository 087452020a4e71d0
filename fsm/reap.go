package fsm

// This file works off deadlines: leases, waiting, budgets of time, silence, tokens, retention. Nothing becomes due by
// itself; it is due once a Reap meets it.

import "github.com/lysnrai/fleet"

// defaultReapLimit is how many documents a Reap changes if it does not say.
const defaultReapLimit = 1000

func (c *Reap) apply(tx *tx) (Result, error) {
	limit := c.Limit
	if limit <= 0 {
		limit = defaultReapLimit
	}
	before, met := tx.changed, int64(0)
	defer tx.enter("")
	for {
		d, retention, ok := tx.st.overdue(c.RetentionSeconds)
		if !ok {
			return &Reaped{Changed: tx.changed - before}, nil
		}
		// A deadline that is only moved counts too, or one Reap could move a million.
		if max(tx.changed-before, met) >= limit {
			return &Reaped{Changed: tx.changed - before, More: true}, nil
		}
		met++
		if retention {
			tx.st.ended.Delete(d)
		} else {
			tx.st.deadlines.Delete(d)
		}
		tx.enter(d.product)
		tx.part()
		tx.meet(d)
		tx.settle()
	}
}

// overdue is the first deadline that has passed, strictly. What ended counts from when its retention is over.
func (st *state) overdue(retentionSeconds int64) (d deadline, retention, ok bool) {
	d, ok = st.deadlines.Min()
	ok = ok && d.at < st.now
	if retentionSeconds <= 0 {
		return d, false, ok
	}
	if e, some := st.ended.Min(); some {
		due := e
		due.at = e.at.Add(retentionSeconds)
		if due.at < st.now && (!ok || lessDeadline(due, d)) {
			return e, true, true
		}
	}
	return d, false, ok
}

// meet works off one deadline that has left the index.
func (tx *tx) meet(d deadline) {
	switch d.kind {
	case dueLease, dueWaiting, dueWall:
		r := tx.edit(d.id)
		r.due[d.kind] = 0
		tx.meetJob(r, d.kind)
	case dueFactory:
		f := *must(tx.p.factories.Get(d.id))
		f.silent = 0
		tx.p.factories.Set(d.id, &f)
		if at := tx.st.silentAt(f.doc); at >= tx.st.now {
			tx.setSilent(&f, at)
		} else if !f.doc.Stale {
			tx.editFactory(d.id).doc.Stale = true
		}
	case dueForget:
		f := *must(tx.p.factories.Get(d.id))
		f.forget = 0
		tx.p.factories.Set(d.id, &f)
		if f.doc.ActiveLeases > 0 {
			return // the end of its last lease puts it back
		}
		if at := tx.st.forgetAt(f.doc); at >= tx.st.now {
			tx.setForget(&f)
			return
		}
		tx.setSilent(&f, 0)
		tx.p.factories.Delete(d.id)
		mention(&tx.news.Factories, tx.p.id) // whoever claims for it is to hear so
		mention(&tx.news.Products, tx.p.id)
		note(&tx.factories, tx.p, &f, nil)
		tx.changed++
	case dueToken:
		tx.endToken(d.id)
		tx.changed++
	case dueRetention:
		tx.purge(d.id)
	}
}

// must drops the found flag of what an index promises to be there.
func must[T any](v T, _ bool) T { return v }

func (tx *tx) meetJob(r *record, kind deadlineKind) {
	switch kind {
	case dueLease:
		if end := tx.st.leaseEnd(r.lease); end >= tx.st.now {
			tx.setDue(r, dueLease, end)
			return
		}
		tx.expire(r)
	case dueWall:
		tx.exceed(r, "wall")
	case dueWaiting:
		tx.setWaiting(r, nil)
	}
}

// purge removes a whole job that ended. One that somebody still refers to is left; whatever frees it puts it back.
func (tx *tx) purge(id string) {
	p := tx.p
	r, ok := p.jobs.Get(id)
	if !ok || !p.purgeable(r) {
		return
	}
	j := r.job
	tx.unlink(r)
	p.jobs.Delete(id)
	note(&tx.jobs, p, r, nil)
	p.bySeq.Delete(r.seq)
	p.stages[j.Stage.Index()].Delete(r.seq)
	p.children.Delete(edge{j.ParentID, r.seq, id}) // its own children keep theirs: parentId stays as a word
	if owner, ok := p.byKey.Get(j.IdempotencyKey); ok && owner == id {
		p.byKey.Delete(j.IdempotencyKey)
	}
	for _, child := range p.childIDs(id) {
		if c, _ := p.jobs.Get(child); c.job.Stage.Terminal() {
			tx.st.ended.Set(c.ending())
		}
	}
	for _, e := range r.events {
		p.feed.Delete(e.Index)
		p.purged = max(p.purged, e.Index)
	}
	tx.changed += int64(2 + len(r.runs()) + len(r.events) + len(r.artifacts))
}

// purgeable reports whether nothing that exists still needs an ended job.
func (p *product) purgeable(r *record) bool {
	if _, ok := p.jobs.Get(r.job.ParentID); ok {
		return false
	}
	if p.countDependents(r.job.ID) > 0 {
		return false
	}
	if r.group == nil {
		return true
	}
	for _, s := range fleet.Stages {
		if !s.Terminal() && r.group.stages[s.Index()] > 0 {
			return false
		}
	}
	return true
}
