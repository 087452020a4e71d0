package rpc

// This file is the calls about jobs: submitting, finding, moving, cancelling and bringing them back.

import (
	"context"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// submission is a job as it is submitted alone.
type submission struct{ fleet.Submission }

func (s *submission) Validate() []fleet.FieldError { return s.Submission.Validate("") }

// submit asks for one job. Its id is made here, so that it is part of the command.
func (a *API) submit(ctx context.Context, c *call[submission]) (*fleet.SubmitResult, error) {
	s := c.Body.Submission
	s.Normalize()
	return propose[*fleet.SubmitResult](ctx, a, c.request, &fsm.Submit{ProductID: c.product, JobID: a.ids.next(), Submission: s})
}

// batch is many jobs that are submitted together.
type batch struct {
	Jobs []fleet.Submission `json:"jobs"`
}

func (b *batch) Validate() []fleet.FieldError {
	if len(b.Jobs) == 0 {
		return []fleet.FieldError{{Field: "jobs", Detail: "must have at least one job"}}
	}
	return fleet.ValidateBatch(b.Jobs)
}

func (a *API) submitBatch(ctx context.Context, c *call[batch]) (*fleet.SubmitResults, error) {
	ids := make([]string, len(c.Body.Jobs))
	for i := range c.Body.Jobs {
		c.Body.Jobs[i].Normalize()
		ids[i] = a.ids.next()
	}
	return propose[*fleet.SubmitResults](ctx, a, c.request, &fsm.SubmitBatch{ProductID: c.product, JobIDs: ids, Submissions: c.Body.Jobs})
}

// jobList is one page of jobs.
type jobList struct {
	Jobs       []*fleet.Job `json:"jobs"`
	NextCursor string       `json:"nextCursor,omitzero"`
}

func (a *API) listJobs(ctx context.Context, c *request) (*jobList, error) {
	filter, err := c.query.jobFilter()
	if err != nil {
		return nil, err
	}
	limit, err := c.query.page()
	if err != nil {
		return nil, err
	}
	after, err := c.query.cursor(c.product)
	if err != nil {
		return nil, err
	}
	var page jobList
	err = a.read(ctx, c, func(v fsm.View) error {
		var next uint64
		page.Jobs, next = v.Jobs(c.product, filter, after, limit)
		page.NextCursor = newCursor(c.product, next)
		return nil
	})
	return &page, err
}

func (a *API) job(ctx context.Context, c *request) (job *fleet.Job, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if job, found = v.Job(c.product, c.vars["id"]); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return job, err
}

// patch is a worker's report if it has a leaseEpoch, which fences it; else an operator's decision, which If-Match guards.
func (a *API) patch(ctx context.Context, c *call[fleet.Report]) (*fleet.Job, error) {
	c.Body.Normalize()
	if c.Body.LeaseEpoch != nil {
		return propose[*fleet.Job](ctx, a, c.request, &fsm.Patch{ProductID: c.product, JobID: c.vars["id"], Report: c.Body})
	}
	return propose[*fleet.Job](ctx, a, c.request, &fsm.OperatorPatch{
		ProductID: c.product, JobID: c.vars["id"], IfMatch: c.ifMatch, Report: c.Body,
	})
}

// cancellation says why a job is cancelled.
type cancellation struct {
	Reason string `json:"reason"`
}

func (r *cancellation) Validate() []fleet.FieldError { return fleet.ValidateText("reason", r.Reason) }

func (a *API) cancel(ctx context.Context, c *call[cancellation]) (*fleet.Job, error) {
	return propose[*fleet.Job](ctx, a, c.request, &fsm.Cancel{ProductID: c.product, JobID: c.vars["id"], Reason: c.Body.Reason})
}

func (a *API) requeue(ctx context.Context, c *call[none]) (*fleet.Job, error) {
	return propose[*fleet.Job](ctx, a, c.request, &fsm.Requeue{ProductID: c.product, JobID: c.vars["id"]})
}

func (a *API) why(ctx context.Context, c *request) (why *fleet.Why, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if why, found = v.Why(c.product, c.vars["id"]); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return why, err
}
