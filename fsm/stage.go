package fsm

// This file is how a job moves on: what its holder reports, and what an operator decides about one that nobody holds.

import (
	"slices"
	"strconv"

	"github.com/lysnrai/fleet"
)

// maxReported is how many documents an entry may have changed before further reports are put off.
const maxReported = 20_000

func (c *Patch) apply(tx *tx) (Result, error) { return asResult(tx.patch(c.JobID, &c.Report)) }

func (c *Report) apply(tx *tx) (Result, error) {
	results := make([]fleet.ReportResult, len(c.Reports))
	for i := range c.Reports {
		q := &c.Reports[i]
		var job *fleet.Job
		var err error
		if tx.changed >= maxReported {
			err = fleet.Errorf(fleet.RateLimited, "this log entry has changed %d documents, the most is %d: send the report again", tx.changed, maxReported)
		} else {
			tx.part()
			job, err = tx.patch(q.JobID, &q.Report)
		}
		results[i] = fleet.ReportResult{JobID: q.JobID, OK: err == nil, Job: job}
		if err != nil {
			e := refusal(err).Err
			results[i].Code, results[i].Detail, results[i].CurrentEpoch = e.Code, e.Detail, e.CurrentEpoch
		}
	}
	return &fleet.ReportResults{Results: results}, nil
}

// patch is what the holder of a job reports.
func (tx *tx) patch(id string, q *fleet.Report) (*fleet.Job, error) {
	old, err := tx.job(id)
	if err != nil {
		return nil, err
	}
	if q.LeaseEpoch == nil {
		return nil, fleet.InvalidField("leaseEpoch", "is required")
	}
	if _, err := tx.fenced(id, *q.LeaseEpoch); err != nil {
		return nil, err
	}
	if err := holderMay(old.job, q); err != nil {
		return nil, err
	}
	r := tx.edit(id)
	tx.note(r, q, by(r))
	if what := r.exceeded(tx.st.now); what != "" {
		tx.exceed(r, what)
		return tx.shown(id), nil
	}
	data := by(r).str("from", string(r.job.Stage))
	switch to := q.Stage; {
	case to == "" || to == r.job.Stage:
	case to == fleet.Shipped:
		tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeShipped, "")
		tx.ship(r, data)
	case to == fleet.Failed:
		tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeFailed, q.Reason)
		tx.retry(r, q.Reason, data)
	default:
		if to.Index() > r.job.Stage.Index() {
			tx.editJob(r).LeaseLosses = 0
		}
		tx.setStage(r, to)
		tx.record(r, fleet.EventStageChanged, data.str("to", string(to)).end())
	}
	return tx.shown(id), nil
}

// holderMay judges the stage that a holder names.
func holderMay(j *fleet.Job, q *fleet.Report) error {
	switch q.Stage {
	case "", j.Stage, fleet.Building, fleet.Review, fleet.Testing, fleet.Shipped:
		return nil
	case fleet.Failed:
		if q.Reason == "" {
			return fleet.InvalidField("reason", "is required with stage failed")
		}
		return nil
	}
	return illegal(j, q.Stage)
}

func illegal(j *fleet.Job, to fleet.Stage) error {
	return fleet.Errorf(fleet.IllegalTransition, "job %s is %s: it can't be moved to %s", j.ID, j.Stage, to)
}

// note keeps what a report says beside the stage.
func (tx *tx) note(r *record, q *fleet.Report, data object) {
	if c := q.Checkpoint; c != nil && (r.job.Checkpoint == nil || *r.job.Checkpoint != *c) {
		j := tx.editJob(r)
		j.Checkpoint, j.LeaseLosses = c, 0
		data = data.opt("wipBranch", c.WipBranch).opt("wipBase", c.WipBase).opt("wipCommit", c.WipCommit)
		tx.record(r, fleet.EventCheckpointSaved, data.end())
	}
	if q.Result != "" {
		tx.editJob(r).Result = q.Result
	}
	if r.latest == nil || q.Exit == nil && q.VerifyResult == "" && q.Insights == nil && (q.Result == "" || !r.held()) {
		return
	}
	run := tx.editRun(r)
	if q.Exit != nil {
		run.Exit = q.Exit
	}
	if q.VerifyResult != "" {
		run.VerifyResult = q.VerifyResult
	}
	if q.Result != "" && r.held() {
		run.Result = q.Result
	}
	if q.Insights != nil {
		tx.measure(r, run, q.Insights)
	}
}

// ship ends a job well.
func (tx *tx) ship(r *record, data object) {
	tx.setStage(r, fleet.Shipped)
	j := tx.editJob(r)
	j.Reason, j.LeaseLosses = "", 0
	tx.record(r, fleet.EventShipped, data.end())
}

func (c *OperatorPatch) apply(tx *tx) (Result, error) {
	r, err := tx.job(c.JobID)
	if err != nil {
		return nil, err
	}
	if err := c.IfMatch.judge(r.job); err != nil {
		return nil, err
	}
	q := &c.Report
	if err := operatorMay(r, q); err != nil {
		return nil, err
	}
	r = tx.edit(c.JobID)
	tx.note(r, q, object{})
	data := object{}.str("from", string(r.job.Stage))
	switch to := q.Stage; {
	case to == "" || to == r.job.Stage:
	case to == fleet.Shipped:
		tx.ship(r, data)
	case to == fleet.Failed:
		tx.editJob(r).Reason = q.Reason
		tx.setStage(r, fleet.Failed)
		tx.record(r, fleet.EventFailed, data.opt("reason", q.Reason).end())
	case to == fleet.Queued:
		tx.backInLine(r, nil)
		tx.record(r, fleet.EventStageChanged, data.str("to", string(r.job.Stage)).end())
	default:
		tx.setStage(r, to)
		tx.record(r, fleet.EventStageChanged, data.str("to", string(to)).end())
	}
	return tx.shown(c.JobID), nil
}

// judge refuses a call whose caller has not seen the job as it is.
func (m IfMatch) judge(j *fleet.Job) error {
	switch {
	case m.Any || slices.Contains(m.Versions, j.Version):
		return nil
	case len(m.Versions) == 0:
		return fleet.Errorf(fleet.PreconditionRequired, "job %s is at version %d: send If-Match with the version that you decided on", j.ID, j.Version)
	}
	return fleet.Errorf(fleet.VersionMismatch, "job %s is at version %d, If-Match names %s", j.ID, j.Version, strconv.FormatUint(m.Versions[0], 10))
}

// operatorMay judges what an operator wants of a job: nobody may hold it, and only a parked one is moved.
func operatorMay(r *record, q *fleet.Report) error {
	j := r.job
	switch {
	case r.held():
		return fleet.Errorf(fleet.IllegalTransition, "job %s is held by %s at epoch %d: only its holder may change it", j.ID, r.lease.HolderFactoryID, j.LeaseEpoch)
	case q.Exit != nil:
		return fleet.InvalidField("exit", "only the holder of a job reports it")
	case q.Insights != nil:
		return fleet.InvalidField("insights", "only the holder of a job reports them")
	case q.VerifyResult != "" && r.latest == nil:
		return fleet.InvalidField("verifyResult", "job %s has no run", j.ID)
	case q.Stage == "" || q.Stage == j.Stage:
		return nil
	case !r.parked():
		return illegal(j, q.Stage)
	}
	switch q.Stage {
	case fleet.Review, fleet.Testing, fleet.Shipped, fleet.Failed, fleet.Queued:
		return nil
	}
	return illegal(j, q.Stage)
}
