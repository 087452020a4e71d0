package fsm

// This file is what follows a failure that a worker reported: another try, or the end.

import (
	"slices"

	"github.com/lysnrai/fleet"
)

// maxLosses is which lost lease in a row is too many: a job that kills its host must not go through the whole fleet.
func maxLosses(j *fleet.Job) int64 {
	if j.Retry != nil && j.Retry.MaxLeaseLosses != nil {
		return *j.Retry.MaxLeaseLosses
	}
	return fleet.DefaultLeaseLosses
}

// retry counts a reported failure, and decides by the job's policy what comes of it.
func (tx *tx) retry(r *record, reason string, data object) {
	j := tx.editJob(r)
	j.Failures++
	j.Reason = reason
	data = data.str("reason", reason).num("failures", j.Failures)
	p := j.Retry
	switch {
	case p == nil || len(p.On) > 0 && !slices.Contains(p.On, reason):
		tx.setStage(r, fleet.Failed)
		tx.record(r, fleet.EventFailed, data.end())
	case j.Failures > p.Max:
		tx.setStage(r, fleet.DeadLetter)
		tx.record(r, fleet.EventDeadLettered, data.end())
	default:
		until := tx.st.now.Add(backoff(p.Backoff, j.Failures))
		tx.backInLine(r, &waiting{until, causeBackoff})
		tx.record(r, fleet.EventRetryScheduled, data.time("notBefore", until).end())
	}
}

// backoff doubles with each failure, in seconds, up to an hour.
func backoff(first, failures int64) int64 {
	for ; failures > 1 && first < fleet.MaxBackoffSeconds; failures-- {
		if first == 0 {
			return 0
		}
		first *= 2
	}
	return min(first, fleet.MaxBackoffSeconds)
}
