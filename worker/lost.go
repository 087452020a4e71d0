package worker

// This file is why a job must not be worked on any more, and the word for it that a command finds.

import (
	"errors"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// stopWord is what a command finds in FLEET_STOP_FILE.
type stopWord string

// Why a command is stopped.
const (
	stopCancelled stopWord = "cancelled"
	stopBudget    stopWord = "budget_exceeded"
	stopTimeout   stopWord = "timeout" // budget.wall, which a job file calls timeout
	stopLeaseLost stopWord = "lease_lost"
	stopFactory   stopWord = "released" // the factory itself stops
)

// stopWord is the word for the cause with which the task's context ended.
func (t *Task) stopWord(cause error) stopWord {
	var lost *client.Lost
	switch {
	case errors.Is(cause, errStopped):
		return stopFactory
	case !errors.As(cause, &lost) || lost.Job == nil || lost.Job.Stage != fleet.Failed:
		return stopLeaseLost
	}
	switch stopWord(lost.Job.Reason) {
	case stopCancelled:
		return stopCancelled
	case stopBudget:
		if t.outOfTime(lost.Job) {
			return stopTimeout
		}
		return stopBudget
	}
	return stopLeaseLost
}

// outOfTime reports whether time is the part of its budget that a job has passed. Earlier runs count too, and are not
// known here: a job that is bounded by nothing else can only be out of time.
func (t *Task) outOfTime(job *fleet.Job) bool {
	b := job.Budget
	if b == nil || b.Wall == nil {
		return false
	}
	return b.USD == nil && b.Tokens == nil || job.FinishedAt.Sub(t.Run.StartedAt) >= time.Duration(*b.Wall)*time.Second
}

// fenced reports whether the cluster has said that a job is not ours any more.
func fenced(cause error) bool {
	return errors.Is(cause, fleet.StaleEpoch) || errors.Is(cause, fleet.NotFound)
}

// gone reports whether there is nothing left to say of a job: it is another's, or the handler has said it itself.
func gone(cause error) bool { return fenced(cause) || errors.Is(cause, client.ErrSettled) }
