package fsm

// This file is how jobs come in: planned whole against the state as it is, refused whole, or done whole.

import (
	"encoding/hex"
	"strconv"

	"github.com/lysnrai/fleet"
)

func (c *Submit) apply(tx *tx) (Result, error) {
	results, err := tx.submit([]string{c.JobID}, []fleet.Submission{c.Submission}, func(_ int, f string) string { return f })
	if err != nil {
		return nil, err
	}
	return &results[0], nil
}

func (c *SubmitBatch) apply(tx *tx) (Result, error) {
	if len(c.JobIDs) != len(c.Submissions) {
		return nil, fleet.Errorf(fleet.Internal, "%d job ids for %d submissions", len(c.JobIDs), len(c.Submissions))
	}
	results, err := tx.submit(c.JobIDs, c.Submissions, func(i int, f string) string { return "jobs[" + strconv.Itoa(i) + "]." + f })
	if err != nil {
		return nil, err
	}
	return &fleet.SubmitResults{Results: results}, nil
}

// plan is what a submit or a batch is going to do, while nothing has been changed.
type plan struct {
	p          *product
	wanted     []*wanted
	byID       map[string]*wanted  // those that are new or superseded
	keys       map[string]string   // idempotencyKey of the batch → job id
	children   map[string][]string // composite → new children
	added      map[string]int64    // composite → new descendants
	dependents map[string]int      // job → direct dependents, with those of the plan
	signatures map[string]struct{} // that the line does not have yet
}

// wanted is one submission of a plan.
type wanted struct {
	sub     *fleet.Submission
	id      string
	outcome fleet.SubmitOutcome
	content [32]byte
	old     *record // the job that has its key
	deps    []string
	field   func(name string) string
}

func (tx *tx) submit(ids []string, subs []fleet.Submission, field func(int, string) string) ([]fleet.SubmitResult, error) {
	pl := &plan{
		p: tx.p, byID: make(map[string]*wanted, len(subs)), keys: map[string]string{}, children: map[string][]string{},
		added: map[string]int64{}, dependents: map[string]int{}, signatures: map[string]struct{}{},
	}
	for i := range subs {
		sub := subs[i]
		sub.Normalize()
		w := &wanted{sub: &sub, id: ids[i], content: sub.ContentHash(), field: func(f string) string { return field(i, f) }}
		if err := pl.want(w); err != nil {
			return nil, err
		}
	}
	for _, w := range pl.wanted {
		if w.outcome == fleet.Existing {
			continue
		}
		if err := pl.judge(w); err != nil {
			return nil, err
		}
	}
	if err := pl.acyclic(); err != nil {
		return nil, err
	}
	tx.found()
	for _, w := range pl.wanted {
		switch w.outcome {
		case fleet.Created:
			tx.create(w)
		case fleet.Superseded:
			tx.supersede(w)
		}
	}
	tx.settle()
	results := make([]fleet.SubmitResult, len(pl.wanted))
	for i, w := range pl.wanted {
		results[i] = fleet.SubmitResult{Outcome: w.outcome, Job: tx.shown(w.id)}
	}
	return results, nil
}

// want finds out whether a submission is a new job, or one that is there.
func (pl *plan) want(w *wanted) error {
	pl.wanted = append(pl.wanted, w)
	w.outcome = fleet.Created
	if key := w.sub.IdempotencyKey; key != "" {
		if _, twice := pl.keys[key]; twice {
			return fleet.InvalidField(w.field("idempotencyKey"), "%q is used twice in this batch", key)
		}
		if id, ok := pl.p.byKey.Get(key); ok {
			w.id = id
			w.old, _ = pl.p.jobs.Get(id)
			w.outcome = fleet.Superseded
			if w.old.content == w.content {
				w.outcome = fleet.Existing
			}
		}
		pl.keys[key] = w.id
	}
	_, exists := pl.p.jobs.Get(w.id)
	if _, twice := pl.byID[w.id]; w.outcome == fleet.Created && (exists || twice || w.id == "") {
		return fleet.Errorf(fleet.Internal, "job id %q is not new", w.id)
	}
	if w.outcome != fleet.Existing {
		pl.byID[w.id] = w
	}
	if w.outcome == fleet.Created && w.sub.ParentID != "" {
		pl.children[w.sub.ParentID] = append(pl.children[w.sub.ParentID], w.id)
	}
	return nil
}

// judge refuses what the state does not allow.
func (pl *plan) judge(w *wanted) error {
	if w.old != nil {
		j := w.old.job
		switch {
		case j.Stage != fleet.Queued && j.Stage != fleet.Blocked:
			return fleet.Errorf(fleet.IdempotencyConflict, "key %q belongs to job %s with other content, which is %s: only a queued or blocked job can be superseded",
				j.IdempotencyKey, j.ID, j.Stage)
		case j.Kind != w.sub.Kind:
			return fleet.Errorf(fleet.IdempotencyConflict, "key %q belongs to job %s of kind %s, which %s can't supersede", j.IdempotencyKey, j.ID, j.Kind, w.sub.Kind)
		case j.ParentID != w.sub.ParentID:
			return fleet.Errorf(fleet.IdempotencyConflict, "key %q belongs to job %s with parentId %q, which %q can't supersede", j.IdempotencyKey, j.ID, j.ParentID, w.sub.ParentID)
		}
	} else if err := pl.judgeParent(w); err != nil {
		return err
	}
	if name := w.sub.Profile; name != "" {
		if _, ok := pl.p.profile(name); !ok {
			err := fleet.Errorf(fleet.UnknownProfile, "there is no profile %s in product %s", name, pl.p.id)
			err.Fields = []fleet.FieldError{{Field: w.field("profile"), Detail: "there is no profile " + name}}
			return err
		}
	}
	if err := pl.resolve(w); err != nil {
		return err
	}
	return pl.judgeSignature(w)
}

func (pl *plan) judgeParent(w *wanted) error {
	id := w.sub.ParentID
	if id == "" {
		return nil
	}
	parent, ok := pl.p.jobs.Get(id)
	if !ok || parent.group == nil {
		err := fleet.Errorf(fleet.UnknownParent, "%s names no composite of product %s", id, pl.p.id)
		err.Fields = []fleet.FieldError{{Field: w.field("parentId"), Detail: id + " names no composite"}}
		return err
	}
	if parent.job.Stage == fleet.Shipped {
		return fleet.Errorf(fleet.IllegalTransition, "composite %s is shipped: it takes no more children", id)
	}
	if above, ok := pl.p.cancelledAbove(id); ok {
		return fleet.Errorf(fleet.IllegalTransition, "composite %s is cancelled: it takes no children until it is requeued", above)
	}
	if w.sub.Kind == fleet.Composite && parent.group.depth+1 >= fleet.MaxDepth {
		return fleet.InvalidField(w.field("parentId"), "composites are at most %d deep, and %s is the %dth", fleet.MaxDepth, id, parent.group.depth+1)
	}
	for up := id; up != ""; {
		r, ok := pl.p.jobs.Get(up)
		if !ok {
			break
		}
		if pl.added[up]++; r.group.descendants+pl.added[up] > fleet.MaxDescendants {
			return fleet.InvalidField(w.field("parentId"), "composite %s has %d descendants, the most is %d", up, r.group.descendants, fleet.MaxDescendants)
		}
		up = r.job.ParentID
	}
	return nil
}

func (pl *plan) judgeSignature(w *wanted) error {
	if w.sub.Kind == fleet.Composite {
		return nil
	}
	s := signatureOf(w.sub)
	if _, ok := pl.p.signatures.Get(s); ok {
		return nil
	}
	pl.signatures[s] = struct{}{}
	if n := pl.p.signatures.Len() + len(pl.signatures); n > fleet.MaxSignatures {
		err := fleet.Errorf(fleet.QuotaExceeded, "the queued jobs of product %s would have %d different requirements, the most is %d", pl.p.id, n, fleet.MaxSignatures)
		err.RetryAfterSeconds = quotaRetrySeconds
		return err
	}
	return nil
}

// create stores a new job with its lease.
func (tx *tx) create(w *wanted) {
	p, st := tx.p, tx.st
	r := &record{txn: tx.txn, fresh: freshJob | freshLease, seq: p.nextSeq, content: w.content}
	p.nextSeq++
	r.job = &fleet.Job{ID: w.id, ProductID: p.id, Version: 1, Submission: *w.sub, CreatedAt: st.now, UpdatedAt: st.now}
	r.lease = &fleet.Lease{JobID: w.id, ProductID: p.id, Version: 1, Status: fleet.LeaseReleased}
	tx.changed += 2
	p.jobs.Set(w.id, r)
	note(&tx.jobs, p, nil, r)
	p.bySeq.Set(r.seq, w.id)
	if key := w.sub.IdempotencyKey; key != "" {
		p.byKey.Set(key, w.id)
	}
	if w.sub.Kind == fleet.Composite {
		r.group = &group{}
	}
	if w.sub.ParentID != "" {
		p.children.Set(edge{w.sub.ParentID, r.seq, w.id})
		tx.adopted(r)
	}
	r.key = keyOf(r)
	tx.link(r, w.deps)
	tx.place(r)
	p.stages[r.job.Stage.Index()].Set(r.seq, w.id)
	tx.record(r, fleet.EventSubmitted, object{}.str("stage", string(r.job.Stage)).end())
	tx.moved = append(tx.moved, move{w.id, w.sub.ParentID, "", r.job.Stage})
}

// adopted counts a new descendant up through the composites above it.
func (tx *tx) adopted(r *record) {
	for up := r.job.ParentID; up != ""; {
		if _, ok := tx.p.jobs.Get(up); !ok {
			return
		}
		parent := tx.edit(up)
		g := *parent.group
		g.descendants++
		parent.group = &g
		if r.group != nil && up == r.job.ParentID {
			r.group.depth = g.depth + 1
		}
		up = parent.job.ParentID
	}
}

// place gives a new or superseded job its stage and its place in line.
func (tx *tx) place(r *record) {
	r.job.Stage = fleet.Queued
	if r.unmet > 0 {
		r.job.Stage = fleet.Blocked
	}
	if r.job.Stage == fleet.Queued && r.job.QueuedAt == 0 {
		r.job.QueuedAt = tx.st.now
	}
	if r.group == nil { // a composite is never claimed: there is nothing to wait with
		tx.setWaiting(r, tx.laterOf(r.waiting, r.job.NotBefore))
	}
	tx.joinLine(r)
}

// supersede replaces what was asked for by a job that nobody has begun.
func (tx *tx) supersede(w *wanted) {
	r := tx.edit(w.id)
	tx.leaveLine(r)
	from, old := r.job.Stage, r.content
	j := tx.editJob(r)
	j.Submission = *w.sub
	j.Failures, j.LeaseLosses, j.Reason = 0, 0, ""
	if r.waiting != nil && r.waiting.cause != causeReleased {
		tx.setWaiting(r, nil)
		tx.leaveLine(r)
	}
	r.content = w.content
	r.key = keyOf(r)
	tx.unlink(r)
	tx.link(r, w.deps)
	if r.group != nil {
		j.Stage = from // derived, not placed
	} else {
		tx.place(r)
	}
	if to := r.job.Stage; to != from {
		tx.p.stages[from.Index()].Delete(r.seq)
		tx.p.stages[to.Index()].Set(r.seq, w.id)
		tx.moved = append(tx.moved, move{w.id, j.ParentID, from, to})
	}
	tx.record(r, fleet.EventSuperseded, object{}.str("contentHash", hex.EncodeToString(old[:])).str("stage", string(r.job.Stage)).end())
}
