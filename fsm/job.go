package fsm

// This file is how one job is changed: its record and documents are copied once per command, its stage moves in one
// place, and every index follows.

import (
	"slices"

	"github.com/lysnrai/fleet"
)

// The documents of a record that a command has copied already.
const (
	freshJob uint8 = 1 << iota
	freshLease
	freshRun
)

// job finds a job of the product for reading.
func (tx *tx) job(id string) (*record, error) {
	r, ok := tx.p.jobs.Get(id)
	if !ok {
		return nil, fleet.Errorf(fleet.NotFound, "there is no job %s in product %s", id, tx.p.id)
	}
	return r, nil
}

// edit is the job's record for writing; the job must exist.
func (tx *tx) edit(id string) *record {
	r, _ := tx.p.jobs.Get(id)
	if r.txn == tx.txn {
		return r
	}
	c := *r
	c.txn, c.fresh = tx.txn, 0
	tx.p.jobs.Set(id, &c)
	note(&tx.jobs, tx.p, r, &c)
	return &c
}

func (tx *tx) editJob(r *record) *fleet.Job {
	if r.fresh&freshJob == 0 {
		c := *r.job
		c.Version++
		c.UpdatedAt = tx.st.now
		r.job = &c
		r.fresh |= freshJob
		tx.changed++
	}
	return r.job
}

func (tx *tx) editLease(r *record) *fleet.Lease {
	if r.fresh&freshLease == 0 {
		c := *r.lease
		c.Version++
		r.lease = &c
		r.fresh |= freshLease
		tx.changed++
	}
	return r.lease
}

// editRun is the job's latest run for writing; there must be one.
func (tx *tx) editRun(r *record) *fleet.Run {
	if r.fresh&freshRun == 0 {
		c := *r.latest
		c.Version++
		r.latest = &c
		r.fresh |= freshRun
		tx.changed++
	}
	return r.latest
}

// open adds a run. There may have been any number of them: none is copied.
func (r *record) open(run *fleet.Run) {
	if r.latest != nil {
		r.earlier = append(r.earlier, r.latest)
	}
	r.latest = run
}

// runs lists them by attempt.
func (r *record) runs() []*fleet.Run {
	if r.latest == nil {
		return nil
	}
	return append(slices.Clip(r.earlier), r.latest)
}

// held reports whether somebody works on the job.
func (r *record) held() bool { return r.lease.Status == fleet.LeaseHeld }

// parked reports whether the job waits at a gate, in review or testing, held by nobody.
func (r *record) parked() bool {
	return (r.job.Stage == fleet.Review || r.job.Stage == fleet.Testing) && r.group == nil && !r.held()
}

// run is the open run, nil if the job is not held.
func (r *record) run() *fleet.Run {
	if !r.held() {
		return nil
	}
	return r.latest
}

// setStage moves a job to a stage and keeps every index of stages. Who else it concerns is told by settle.
func (tx *tx) setStage(r *record, to fleet.Stage) {
	from := r.job.Stage
	if from == to {
		return
	}
	tx.leaveLine(r)
	j, p, st := tx.editJob(r), tx.p, tx.st
	p.stages[from.Index()].Delete(r.seq)
	p.stages[to.Index()].Set(r.seq, j.ID)
	p.parked.Delete(r.seq)
	if from.Terminal() {
		st.ended.Delete(r.ending())
		j.FinishedAt = 0
	}
	j.Stage = to
	switch {
	case to.Terminal():
		j.FinishedAt = st.now
		st.ended.Set(r.ending())
		tx.countEnding(r)
	case to == fleet.Queued:
		j.QueuedAt = st.now
		tx.joinLine(r)
	case r.parked():
		p.parked.Set(r.seq, j.ID)
	}
	tx.moved = append(tx.moved, move{j.ID, j.ParentID, from, to})
}

// ending is the place of an ended job among those that retention looks at.
func (r *record) ending() deadline {
	return deadline{r.job.FinishedAt, dueRetention, r.job.ProductID, r.job.ID}
}

// endingMinutes is how long endings are counted.
const endingMinutes = 120

// countEnding counts the ends of leaves by minute: a composite only repeats what its children did.
func (tx *tx) countEnding(r *record) {
	if r.group != nil {
		return
	}
	minute := int64(tx.st.now) / 60e9
	var n endings
	if old, ok := tx.p.endings.Get(minute); ok {
		n = *old
	}
	if r.job.Stage == fleet.Shipped {
		n.shipped++
	} else {
		n.failed++
	}
	tx.p.endings.Set(minute, &n)
	for {
		first, _, _ := tx.p.endings.Min()
		if first > minute-endingMinutes {
			return
		}
		tx.p.endings.Delete(first)
	}
}

// backInLine returns a job that is done with for now: queued, or blocked while a dependency is unmet.
func (tx *tx) backInLine(r *record, w *waiting) {
	tx.setWaiting(r, tx.laterOf(w, r.job.NotBefore))
	if r.unmet > 0 {
		tx.setStage(r, fleet.Blocked)
	} else {
		tx.setStage(r, fleet.Queued)
	}
}

// laterOf is what keeps a job back: the given, or the submitted notBefore if that is later; nil if neither is to come.
func (tx *tx) laterOf(w *waiting, notBefore fleet.Time) *waiting {
	if w != nil && w.until <= tx.st.now {
		w = nil
	}
	if notBefore > tx.st.now && (w == nil || notBefore > w.until) {
		w = &waiting{notBefore, causeSubmitted}
	}
	return w
}

// setWaiting keeps a job from being claimed until a time, or (nil) no longer.
func (tx *tx) setWaiting(r *record, w *waiting) {
	if r.waiting == nil && w == nil {
		return
	}
	tx.leaveLine(r)
	tx.editJob(r) // notBefore is read differently
	r.waiting = w
	until := fleet.Time(0)
	if w != nil {
		until = w.until
	}
	tx.setDue(r, dueWaiting, until)
	tx.joinLine(r)
}

// setDue moves a deadline of a job; zero removes it.
func (tx *tx) setDue(r *record, kind deadlineKind, at fleet.Time) {
	if r.due[kind] == at {
		return
	}
	d := deadline{r.due[kind], kind, tx.p.id, r.job.ID}
	if d.at != 0 {
		tx.st.deadlines.Delete(d)
	}
	if d.at = at; at != 0 {
		tx.st.deadlines.Set(d)
	}
	r.due[kind] = at
}

// shownJob is the job as it is read: with the time it waits for as notBefore.
func shownJob(r *record) *fleet.Job {
	if r.waiting == nil {
		return r.job
	}
	c := *r.job
	c.NotBefore = r.waiting.until
	return &c
}

// shown is the job as it is after all that followed from the command.
func (tx *tx) shown(id string) *fleet.Job {
	tx.settle()
	r, _ := tx.p.jobs.Get(id)
	return shownJob(r)
}
