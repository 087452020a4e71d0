package fsm

// This file ends jobs from outside and brings them back: cancel and requeue, of a composite with all below it.

import "github.com/lysnrai/fleet"

func (c *Cancel) apply(tx *tx) (Result, error) {
	r, err := tx.job(c.JobID)
	if err != nil {
		return nil, err
	}
	if r.job.Stage.Terminal() {
		return nil, fleet.Errorf(fleet.IllegalTransition, "job %s is %s: it has ended already", c.JobID, r.job.Stage)
	}
	for below := []string{c.JobID}; len(below) > 0; below = below[1:] {
		id := below[0]
		r, _ := tx.p.jobs.Get(id)
		if r.group != nil {
			below = append(below, tx.p.childIDs(id)...)
		}
		if !r.job.Stage.Terminal() {
			tx.cancel(tx.edit(id), c.Reason)
		}
	}
	return tx.shown(c.JobID), nil
}

// cancel ends one job. A composite is not derived any more until it is requeued.
func (tx *tx) cancel(r *record, text string) {
	reason := string(fleet.OutcomeCancelled)
	if r.held() {
		tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeCancelled, reason)
	}
	tx.raiseEpoch(r)
	if r.group != nil {
		g := *r.group
		g.cancelled = true
		r.group = &g
	}
	tx.setWaiting(r, nil)
	tx.editJob(r).Reason = reason
	tx.setStage(r, fleet.Failed)
	tx.record(r, fleet.EventCancelled, object{}.opt("reason", text).end())
}

func (c *Requeue) apply(tx *tx) (Result, error) {
	r, err := tx.job(c.JobID)
	if err != nil {
		return nil, err
	}
	if !dead(r) {
		return nil, fleet.Errorf(fleet.IllegalTransition, "job %s is %s: only one that is failed or dead_letter can be requeued", c.JobID, r.job.Stage)
	}
	if above, ok := tx.p.cancelledAbove(r.job.ParentID); ok {
		return nil, fleet.Errorf(fleet.IllegalTransition, "job %s is below composite %s, which is cancelled: requeue that", c.JobID, above)
	}
	for below := []string{c.JobID}; len(below) > 0; below = below[1:] {
		r, _ := tx.p.jobs.Get(below[0])
		if !dead(r) {
			continue
		}
		if r.group != nil {
			below = append(below, tx.p.childIDs(below[0])...)
		}
		tx.requeue(tx.edit(below[0]))
	}
	return tx.shown(c.JobID), nil
}

func dead(r *record) bool { return r.job.Stage == fleet.Failed || r.job.Stage == fleet.DeadLetter }

// requeue brings one job back as if it had never failed; its checkpoint and its attempts stay.
func (tx *tx) requeue(r *record) {
	j := tx.editJob(r)
	j.Failures, j.LeaseLosses, j.Reason, j.Result, j.NotBefore = 0, 0, "", "", 0
	r.totals = totals{}
	if r.group == nil {
		tx.backInLine(r, nil)
	} else {
		g := *r.group
		g.cancelled = false
		r.group = &g
		to := fleet.Queued
		if g.claimed {
			to = fleet.Building
		}
		tx.setStage(r, to)
	}
	tx.record(r, fleet.EventRequeued, object{}.str("stage", string(r.job.Stage)).end())
}
