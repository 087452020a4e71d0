package client

// This file lets reports that are made at about the same time go together: while one request is under way the next gathers.
// Nothing waits for others to come, and a report that is alone goes as Report sends it.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

// errAlone: the request of many could not tell; the report is to go alone. Nothing was done about it.
var errAlone = errors.New("to be reported alone")

// gathering is the reports that wait for the request that is under way.
type gathering struct {
	mu       sync.Mutex // guards all below
	underWay bool
	waiting  []*gathered
}

// gathered is a report that somebody waits for.
type gathered struct {
	ctx    context.Context
	client *Client // with the patience of who waits
	jobID  string
	report fleet.Report
	entry  []byte          // it, in a request of many
	answer chan reportDone // has room for it
}

// reportDone is what Report returns.
type reportDone struct {
	job *fleet.Job
	err error
}

// reportGathered is Report, together with what is reported at the same time.
func (c *Client) reportGathered(ctx context.Context, id string, r fleet.Report) (*fleet.Job, error) {
	entry, err := json.Marshal(fleet.JobReport{JobID: id, Report: r})
	if err != nil || len(entry) > fleet.MaxBody { // whether it is taken must not hang on the company it is in
		return c.Report(ctx, id, r)
	}
	g := &c.shared.reports
	w := &gathered{ctx: ctx, client: c, jobID: id, report: r, entry: entry, answer: make(chan reportDone, 1)}
	if first := g.join(w); first {
		defer g.handOver()
		return c.Report(ctx, id, r)
	}
	select {
	case a := <-w.answer:
		if errors.Is(a.err, errAlone) {
			return c.Report(ctx, id, r)
		}
		return a.job, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for what came of a report on job %s: %w", id, context.Cause(ctx))
	}
}

// join lets a report wait, or tells it to go first: no request is under way.
func (g *gathering) join(w *gathered) (first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.underWay {
		g.underWay = true
		return true
	}
	g.waiting = append(g.waiting, w)
	return false
}

// handOver follows a request with the one that has gathered meanwhile.
func (g *gathering) handOver() {
	if batch := g.next(); len(batch) > 0 {
		go func() {
			defer g.handOver()
			sendGathered(batch)
		}()
	}
}

// What is around the entries of a request, and between them.
var reportsHead, reportsComma, reportsTail = []byte(`{"reports":[`), []byte(`,`), []byte(`]}`)

// next takes as many of the waiting as one request may have, oldest first. None: no request is under way any more.
func (g *gathering) next() []*gathered {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(w *gathered) bool { return w.ctx.Err() != nil }) // who has gone
	n, size := 0, len(reportsHead)+len(reportsTail)
	for n < min(len(g.waiting), fleet.MaxBatch) {
		if size += len(g.waiting[n].entry) + len(reportsComma); size > fleet.MaxBatchBody {
			break
		}
		n++
	}
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	g.underWay = n > 0
	return batch
}

// sendGathered makes one request of a batch and tells everybody what came of theirs.
func sendGathered(batch []*gathered) {
	if len(batch) == 1 {
		w := batch[0]
		job, err := w.client.Report(w.ctx, w.jobID, w.report)
		w.answer <- reportDone{job, err}
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(batch[0].ctx))
	defer cancel()
	go func() {
		defer cancel() // nobody waits any more
		for _, w := range batch {
			select {
			case <-w.ctx.Done():
			case <-ctx.Done():
				return
			}
		}
	}()
	entries := make([][]byte, len(batch))
	for i, w := range batch {
		entries[i] = w.entry
	}
	in := post("/fleet/reports")
	in.body = slices.Concat(reportsHead, bytes.Join(entries, reportsComma), reportsTail)
	c := slices.MaxFunc(batch, func(a, b *gathered) int { return cmp.Compare(a.client.config.Patience, b.client.config.Patience) }).client
	answer, err := post1[fleet.ReportResults](ctx, c, in, nil)
	switch {
	case refusedForOne(err):
		err = errAlone
	case err == nil && len(answer.Results) != len(batch):
		err = fmt.Errorf("reading the answer to POST %s: %w: it has %d results of %d", in.path, errGarbage, len(answer.Results), len(batch))
	}
	for i, w := range batch {
		if err != nil {
			w.answer <- reportDone{nil, err}
			continue
		}
		job, err := w.judge(&answer.Results[i])
		w.answer <- reportDone{job, err}
	}
}

// refusedForOne reports whether a request was refused as a whole, and nothing was done, for what may be wrong with one report
// in it, such as a result that is nested too deep. It is not_found at a node that has no such route.
func refusedForOne(err error) bool {
	for _, code := range []fleet.Code{fleet.InvalidJSON, fleet.Invalid, fleet.TooLarge, fleet.NotFound} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// judge is what one report would have been answered with by itself.
func (w *gathered) judge(r *fleet.ReportResult) (*fleet.Job, error) {
	switch {
	case r.JobID != w.jobID || r.OK && r.Job == nil:
		return nil, fmt.Errorf("reading the answer to POST /fleet/reports: %w: it has no result for job %s", errGarbage, w.jobID)
	case r.OK:
		return r.Job, nil
	case r.Code == fleet.RateLimited, r.Code == fleet.Invalid: // the log entry was full; alone it hears of every field
		return nil, errAlone
	}
	return nil, &fleet.Error{Code: r.Code, Detail: r.Detail, CurrentEpoch: r.CurrentEpoch}
}
