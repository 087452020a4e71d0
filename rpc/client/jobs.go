package client

// This file is the calls about jobs: submitting, finding, moving, cancelling and bringing them back.

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/lysnrai/fleet"
)

// Submit asks for one job. Under an IdempotencyKey it finds or supersedes the job that has it.
func (c *Client) Submit(ctx context.Context, s fleet.Submission) (*fleet.SubmitResult, error) {
	s.Normalize()
	var job fleet.Job
	a, err := c.do(ctx, post("/fleet/jobs"), s, &job)
	if err != nil {
		return nil, err
	}
	return &fleet.SubmitResult{Outcome: fleet.SubmitOutcome(a.header.Get("Fleet-Outcome")), Job: &job}, nil
}

// SubmitBatch asks for many jobs, all or none. The answer is in the order of the call.
func (c *Client) SubmitBatch(ctx context.Context, jobs []fleet.Submission) ([]fleet.SubmitResult, error) {
	body := struct {
		Jobs []fleet.Submission `json:"jobs"`
	}{make([]fleet.Submission, len(jobs))}
	for i := range jobs {
		body.Jobs[i] = jobs[i]
		body.Jobs[i].Normalize()
	}
	results, err := post1[fleet.SubmitResults](ctx, c, post("/fleet/jobs/batch"), body)
	if err != nil {
		return nil, err
	}
	return results.Results, nil
}

// JobFilter narrows a list of jobs; a zero member narrows nothing.
type JobFilter struct {
	Stage          fleet.Stage
	IdempotencyKey string
	ParentID       string
	FactoryID      string
	Parked         *bool
	Label          fleet.Label
	Limit          int    // of a page, 1 to 1000; zero: 100
	Cursor         string // the NextCursor of the page before
}

func (f JobFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"stage": string(f.Stage), "idempotencyKey": f.IdempotencyKey, "parentId": f.ParentID,
		"factoryId": f.FactoryID, "cursor": f.Cursor,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.Parked != nil {
		q.Set("parked", strconv.FormatBool(*f.Parked))
	}
	if f.Label.Key != "" {
		q.Set("label", f.Label.Key+":"+f.Label.Value)
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// JobPage is some jobs in the order in which they were submitted. NextCursor is empty on the last page.
type JobPage struct {
	Jobs       []*fleet.Job `json:"jobs"`
	NextCursor string       `json:"nextCursor,omitzero"`
}

// JobPage reads one page of jobs.
func (c *Client) JobPage(ctx context.Context, f JobFilter, options ...ReadOption) (*JobPage, error) {
	var page JobPage
	if err := c.get(ctx, "/fleet/jobs", f.query(), &page, options); err != nil {
		return nil, err
	}
	return &page, nil
}

// Jobs reads all pages, one after the other, from f.Cursor on. After an error it ends.
func (c *Client) Jobs(ctx context.Context, f JobFilter, options ...ReadOption) iter.Seq2[*fleet.Job, error] {
	return func(yield func(*fleet.Job, error) bool) {
		for {
			page, err := c.JobPage(ctx, f, options...)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, job := range page.Jobs {
				if !yield(job, nil) {
					return
				}
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return
			}
		}
	}
}

// Job reads one job.
func (c *Client) Job(ctx context.Context, id string, options ...ReadOption) (*fleet.Job, error) {
	return get1[fleet.Job](ctx, c, jobPath(id, ""), options)
}

// Why says why a job is not running.
func (c *Client) Why(ctx context.Context, id string, options ...ReadOption) (*fleet.Why, error) {
	return get1[fleet.Why](ctx, c, jobPath(id, "/why"), options)
}

// Report says what its holder has to say of a job; LeaseEpoch is needed. The answer is the job as it has become.
func (c *Client) Report(ctx context.Context, id string, r fleet.Report) (*fleet.Job, error) {
	return post1[fleet.Job](ctx, c, &call{method: http.MethodPatch, path: jobPath(id, "")}, r)
}

// Decide is an operator's word about a job that nobody holds, based on this version of it.
func (c *Client) Decide(ctx context.Context, id string, version uint64, r fleet.Report) (*fleet.Job, error) {
	r.LeaseEpoch = nil
	header := http.Header{"If-Match": {`"` + strconv.FormatUint(version, 10) + `"`}}
	return post1[fleet.Job](ctx, c, &call{method: http.MethodPatch, path: jobPath(id, ""), header: header}, r)
}

// Reports says something of many jobs at once, each judged on its own. The answer is in the order of the call.
func (c *Client) Reports(ctx context.Context, reports []fleet.JobReport) ([]fleet.ReportResult, error) {
	body := struct {
		Reports []fleet.JobReport `json:"reports"`
	}{reports}
	results, err := post1[fleet.ReportResults](ctx, c, post("/fleet/reports"), body)
	if err != nil {
		return nil, err
	}
	return results.Results, nil
}

// Cancel ends a job, and a composite's children with it. The reason goes into the event.
func (c *Client) Cancel(ctx context.Context, id, reason string) (*fleet.Job, error) {
	body := struct {
		Reason string `json:"reason,omitzero"`
	}{reason}
	return post1[fleet.Job](ctx, c, post(jobPath(id, "/cancel")), body)
}

// Requeue brings a failed or dead-letter job back.
func (c *Client) Requeue(ctx context.Context, id string) (*fleet.Job, error) {
	return post1[fleet.Job](ctx, c, post(jobPath(id, "/requeue")), none{})
}

// Stats counts what the product has where.
func (c *Client) Stats(ctx context.Context, options ...ReadOption) (*fleet.Stats, error) {
	return get1[fleet.Stats](ctx, c, "/fleet/stats", options)
}
