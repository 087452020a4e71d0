package fsm

// This file is who holds a job: the grant, the fence that keeps everybody else out, and how a lease ends.

import (
	"strconv"

	"github.com/lysnrai/fleet"
)

// grace is how long after a leader change no lease expires, at most: until then its holder may not have found the new leader.
const grace = 60

// grant leases a queued job to a factory and opens a run.
func (tx *tx) grant(id, factoryID string, seconds int64) fleet.Claim {
	st, p := tx.st, tx.p
	r := tx.edit(id)
	tx.setStage(r, fleet.Assigned)
	j, l := tx.editJob(r), tx.editLease(r)
	j.LeaseEpoch++
	j.Attempt++
	if j.StartedAt == 0 {
		j.StartedAt = st.now
	}
	l.Status, l.HolderFactoryID, l.LeaseEpoch = fleet.LeaseHeld, factoryID, j.LeaseEpoch
	l.ExpiresAt, l.TTLSeconds, l.Renewals = st.now.Add(seconds), seconds, 0
	run := &fleet.Run{
		ID: id + "-" + strconv.FormatInt(j.Attempt, 10), JobID: id, ProductID: p.id, Version: st.firstVersion() + 1, Attempt: j.Attempt,
		FactoryID: factoryID, Engine: j.EngineClass, StartedAt: st.now,
	}
	if profile, ok := p.profile(j.Profile); ok {
		run.ProfileSnapshot = profile.Snapshot
	}
	r.open(run)
	tx.changed++
	p.held.Set(edge{factoryID, r.seq, id})
	tx.setDue(r, dueLease, st.leaseEnd(l))
	tx.setDue(r, dueWall, r.wallEnd())
	f := tx.editFactory(factoryID)
	f.doc.ActiveLeases++
	tx.alive(f)
	data := by(r).str("runId", run.ID).num("leaseEpoch", int64(j.LeaseEpoch))
	tx.record(r, fleet.EventClaimed, data.end())
	tx.settle()
	return fleet.Claim{Job: shownJob(r), Lease: st.shownLease(r), Run: run}
}

// fenced finds a job that a worker may change: held at exactly its epoch, by a factory that the caller may speak for.
//
// There is no look at expiresAt here: a holder that is late but alone keeps its finished work. The epoch fences, not the
// clock (docs/semantics.md, Fencing).
func (tx *tx) fenced(id string, epoch uint64) (*record, error) {
	r, err := tx.job(id)
	if err != nil {
		return nil, err
	}
	if !r.held() || r.job.LeaseEpoch != epoch {
		tx.st.tally.staleEpochs++
		return nil, stale(r.job, epoch)
	}
	f, ok := tx.p.factories.Get(r.lease.HolderFactoryID)
	if !ok {
		return nil, fleet.Errorf(fleet.UnknownFactory, "factory %s, which holds job %s, is not registered", r.lease.HolderFactoryID, id)
	}
	if err := tx.st.speaks(tx.caller, f); err != nil {
		return nil, err
	}
	return r, nil
}

func stale(j *fleet.Job, epoch uint64) error {
	err := fleet.Errorf(fleet.StaleEpoch, "job %s is at epoch %d, you hold %d", j.ID, j.LeaseEpoch, epoch)
	if j.LeaseEpoch == epoch {
		err.Detail = "job " + j.ID + " is at epoch " + strconv.FormatUint(epoch, 10) + ", which nobody holds any more"
	}
	err.CurrentEpoch = j.LeaseEpoch
	return err
}

func (c *Renew) apply(tx *tx) (Result, error) {
	return asResult(tx.renew(c.JobID, c.LeaseEpoch, c.LeaseSeconds))
}

// asResult keeps a nil document from becoming a Result that is not nil.
func asResult[T Result](doc T, err error) (Result, error) {
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// renew moves a lease's end; 0 seconds keep its ttl.
func (tx *tx) renew(id string, epoch uint64, seconds int64) (*fleet.Lease, error) {
	if _, err := tx.fenced(id, epoch); err != nil {
		return nil, err
	}
	r := tx.edit(id)
	l := tx.editLease(r)
	if seconds != 0 {
		l.TTLSeconds = seconds
	}
	l.ExpiresAt = tx.st.now.Add(l.TTLSeconds)
	l.Renewals++
	tx.setDue(r, dueLease, tx.st.leaseEnd(l))
	return tx.st.shownLease(r), nil
}

func (c *Release) apply(tx *tx) (Result, error) {
	if _, err := tx.fenced(c.JobID, c.LeaseEpoch); err != nil {
		return nil, err
	}
	r := tx.edit(c.JobID)
	stage := r.job.Stage
	data := by(r).str("stage", string(stage))
	if r.job.LeaseLosses != 0 {
		tx.editJob(r).LeaseLosses = 0
	}
	if what := r.exceeded(tx.st.now); what != "" {
		tx.exceed(r, what)
	} else if stage == fleet.Review || stage == fleet.Testing {
		tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeParked, "")
		tx.editJob(r)
		tx.p.parked.Set(r.seq, c.JobID)
		tx.record(r, fleet.EventReleased, data.raw("parked", "true").end())
	} else {
		tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeReleased, "")
		var w *waiting
		if c.DelaySeconds > 0 {
			w = &waiting{tx.st.now.Add(c.DelaySeconds), causeReleased}
		}
		tx.backInLine(r, w)
		tx.record(r, fleet.EventReleased, data.end())
	}
	tx.settle()
	return tx.st.shownLease(r), nil
}

// endLease closes the run of a held job and frees its holder's seat.
func (tx *tx) endLease(r *record, status fleet.LeaseStatus, outcome fleet.Outcome, reason string) {
	run := tx.editRun(r)
	run.EndedAt, run.Outcome, run.Reason = tx.st.now, outcome, reason
	r.totals.held += run.EndedAt - run.StartedAt
	tx.st.tally.closed(run)
	l := tx.editLease(r)
	tx.p.held.Delete(edge{l.HolderFactoryID, r.seq, r.job.ID})
	if _, ok := tx.p.factories.Get(l.HolderFactoryID); ok {
		f := tx.editFactory(l.HolderFactoryID)
		f.doc.ActiveLeases--
		tx.setForget(f)
	}
	l.Status, l.HolderFactoryID, l.ExpiresAt = status, "", 0
	tx.setDue(r, dueLease, 0)
	tx.setDue(r, dueWall, 0)
	mention(&tx.news.Products, tx.p.id)
}

// raiseEpoch fences whoever held the job.
func (tx *tx) raiseEpoch(r *record) {
	j, l := tx.editJob(r), tx.editLease(r)
	j.LeaseEpoch++
	l.LeaseEpoch = j.LeaseEpoch
}

// expire takes a job from a holder whose lease ran out, and returns it or gives it up.
func (tx *tx) expire(r *record) {
	data := by(r)
	over := r.exceeded(tx.st.now)
	tx.endLease(r, fleet.LeaseExpired, fleet.OutcomeLeaseExpired, string(fleet.EventLeaseExpired))
	tx.raiseEpoch(r)
	j := tx.editJob(r)
	j.Reason = string(fleet.EventLeaseExpired)
	j.LeaseLosses++
	tx.record(r, fleet.EventLeaseExpired, data.num("leaseEpoch", int64(j.LeaseEpoch)).num("leaseLosses", j.LeaseLosses).end())
	switch {
	case over != "":
		j.Reason = string(fleet.OutcomeBudgetExceeded)
		tx.setStage(r, fleet.Failed)
		tx.record(r, fleet.EventBudgetExceeded, object{}.str("budget", over).end())
	case j.LeaseLosses >= maxLosses(j):
		tx.setStage(r, fleet.DeadLetter)
		tx.record(r, fleet.EventDeadLettered, object{}.str("reason", j.Reason).num("leaseLosses", j.LeaseLosses).end())
	default:
		tx.backInLine(r, nil)
	}
}

// leaseEnd is when a held lease can really expire: not within min(ttl, 60 s) of a leader change.
func (st *state) leaseEnd(l *fleet.Lease) fleet.Time {
	if st.leaderSince == 0 {
		return l.ExpiresAt
	}
	return max(l.ExpiresAt, st.leaderSince.Add(min(l.TTLSeconds, grace)))
}

// shownLease is the lease as it is read: with the time at which it can really expire.
func (st *state) shownLease(r *record) *fleet.Lease {
	if !r.held() {
		return r.lease
	}
	end := st.leaseEnd(r.lease)
	if end == r.lease.ExpiresAt {
		return r.lease
	}
	c := *r.lease
	c.ExpiresAt = end
	return &c
}
