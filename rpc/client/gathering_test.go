package client

// This file tests reports that go together, in virtual time.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

// desk is a cluster that takes reports. The first request waits for open; refuse may answer a request instead.
type desk struct {
	client *Client
	open   chan struct{}
	refuse func(method, body string) (*http.Response, error)

	mu   sync.Mutex // guards all below
	came []came
}

// came is a request that came: of one job, or of many.
type came struct {
	method, key, body string
	jobs              []string
}

func newDesk(t *testing.T) *desk {
	d := &desk{open: make(chan struct{})}
	d.client = newClient(t, Config{Addresses: []string{"one:1"}, HTTPClient: &http.Client{Transport: transport(d.serve)}})
	return d
}

func (d *desk) serve(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet { // what became of a lost job
		return response(200, `{"id":"j","stage":"queued","leaseEpoch":4}`), nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c := came{method: r.Method, key: r.Header.Get("Idempotency-Key"), body: string(b)}
	var many struct {
		Reports []fleet.JobReport `json:"reports"`
	}
	switch {
	case r.Method == http.MethodPatch:
		c.jobs = []string{path.Base(r.URL.Path)}
	case json.Unmarshal(b, &many) != nil:
		return problem(400, fleet.InvalidJSON), nil
	}
	var results []string
	for _, report := range many.Reports {
		c.jobs = append(c.jobs, report.JobID)
		result := fmt.Sprintf(`{"jobId":%q,"ok":true,"job":{"id":%q,"stage":%q,"leaseEpoch":3}}`, report.JobID, report.JobID, report.Stage)
		switch report.Reason {
		case "":
		case "none": // ok, and no job
			result = fmt.Sprintf(`{"jobId":%q,"ok":true}`, report.JobID)
		default:
			result = fmt.Sprintf(`{"jobId":%q,"ok":false,"code":%q,"detail":"why","currentEpoch":4}`, report.JobID, report.Reason)
		}
		results = append(results, result)
	}
	d.mu.Lock()
	d.came = append(d.came, c)
	first := len(d.came) == 1
	d.mu.Unlock()
	if first {
		select {
		case <-d.open:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if d.refuse != nil {
		if answer, err := d.refuse(r.Method, c.body); answer != nil || err != nil {
			return answer, err
		}
	}
	if r.Method == http.MethodPatch {
		return response(200, `{"id":"`+c.jobs[0]+`","stage":"shipped","leaseEpoch":3}`), nil
	}
	return response(200, `{"results":[`+strings.Join(results, ",")+`]}`), nil
}

// requests are those that came, in order.
func (d *desk) requests() []came {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.came)
}

// reported is a report and what came of it.
type reported struct {
	held *Held
	err  error
}

// report begins a report on a job, and returns when it is under way or waits.
func (d *desk) report(ctx context.Context, id string, r fleet.Report) <-chan reported {
	h := d.client.hold(context.Background(), fleet.Claim{
		Job: &fleet.Job{ID: id}, Lease: &fleet.Lease{LeaseEpoch: 3, TTLSeconds: 3600}, Run: &fleet.Run{},
	}, time.Now())
	done := make(chan reported, 1)
	go func() {
		_, err := h.Report(ctx, r)
		done <- reported{h, err}
	}()
	synctest.Wait()
	return done
}

var ship = fleet.Report{Stage: fleet.Shipped}

// settled waits for reports that are taken.
func settled(t *testing.T, all ...<-chan reported) {
	t.Helper()
	for _, done := range all {
		if r := <-done; r.err != nil || !errors.Is(context.Cause(r.held.Context()), ErrSettled) {
			t.Errorf("job %s: got %v and %v, want it settled", r.held.Job.ID, r.err, context.Cause(r.held.Context()))
		}
	}
}

// want checks the methods of the requests, and how many jobs each is about.
func (d *desk) want(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, c := range d.requests() {
		got = append(got, fmt.Sprint(c.method, " ", len(c.jobs)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the requests %q, want %q", got, want)
	}
}

// What is reported while a request is under way goes together in the next. One that is alone goes at once, by itself.
func TestReportsGatherWhileOneIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		began := time.Now()
		first := d.report(t.Context(), "j0", ship)
		d.want(t, "PATCH 1")
		var all []<-chan reported
		for i := range 5 {
			all = append(all, d.report(t.Context(), fmt.Sprint("j", i+1), ship))
		}
		d.want(t, "PATCH 1")
		close(d.open)
		settled(t, append(all, first)...)
		settled(t, d.report(t.Context(), "j6", ship))
		d.want(t, "PATCH 1", "POST 5", "PATCH 1")
		if got, want := d.requests()[1].jobs, []string{"j1", "j2", "j3", "j4", "j5"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("got %v, want no waiting for more", took)
		}
	})
}

// Each of many is judged by itself: a fence ends the context of its own job, and no other.
func TestOneOfManyIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		first := d.report(t.Context(), "j0", ship)
		good := d.report(t.Context(), "j1", ship)
		fenced := d.report(t.Context(), "j2", fleet.Report{Stage: fleet.Failed, Reason: string(fleet.StaleEpoch)})
		illegal := d.report(t.Context(), "j3", fleet.Report{Stage: fleet.Failed, Reason: string(fleet.IllegalTransition)})
		silent := d.report(t.Context(), "j4", fleet.Report{Stage: fleet.Failed, Reason: "none"})
		last := d.report(t.Context(), "j5", ship)
		close(d.open)
		settled(t, first, good, last)
		var e *fleet.Error
		r := <-fenced
		if !errors.Is(r.err, fleet.StaleEpoch) || !errors.As(r.err, &e) || e.CurrentEpoch != 4 || e.Detail != "why" {
			t.Errorf("got %v, want stale_epoch with all that goes with it", r.err)
		}
		if cause := context.Cause(r.held.Context()); !errors.Is(cause, fleet.StaleEpoch) {
			t.Errorf("got %v, want the fenced job's context at its end", cause)
		}
		if r := <-illegal; !errors.Is(r.err, fleet.IllegalTransition) || r.held.Context().Err() != nil {
			t.Errorf("got %v and %v, want illegal_transition, and the job still held", r.err, context.Cause(r.held.Context()))
		}
		if r := <-silent; !errors.Is(r.err, errGarbage) {
			t.Errorf("got %v, want %v", r.err, errGarbage)
		}
		d.want(t, "PATCH 1", "POST 5")
	})
}

// One that was put off, for the log entry was full, is sent again.
func TestReportPutOffIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		first := d.report(t.Context(), "j0", ship)
		full := d.report(t.Context(), "j1", fleet.Report{Stage: fleet.Failed, Reason: string(fleet.RateLimited)})
		good := d.report(t.Context(), "j2", ship)
		close(d.open)
		settled(t, first, full, good)
		d.want(t, "PATCH 1", "POST 2", "PATCH 1")
	})
}

// After a lost answer the same words are said again under the same key.
func TestLostAnswerToReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		lost := 0
		d.refuse = func(method, _ string) (*http.Response, error) {
			if method == http.MethodPost && lost < 2 {
				lost++
				return nil, syscall.ECONNRESET
			}
			return nil, nil
		}
		first := d.report(t.Context(), "j0", ship)
		one, other := d.report(t.Context(), "j1", ship), d.report(t.Context(), "j2", ship)
		close(d.open)
		synctest.Wait()
		late := d.report(t.Context(), "j3", ship)
		settled(t, first, one, other, late)
		d.want(t, "PATCH 1", "POST 2", "POST 2", "POST 2", "PATCH 1")
		began := d.requests()[1]
		for _, c := range d.requests()[2:4] {
			if c.key == "" || c.key != began.key || c.body != began.body {
				t.Errorf("got %q under %q, want %q under %q", c.body, c.key, began.body, began.key)
			}
		}
	})
}

// A request that is refused for one report in it is no refusal of the others: each goes alone.
func TestUnreadableReportSpoilsNoOther(t *testing.T) {
	for _, code := range []fleet.Code{fleet.InvalidJSON, fleet.Invalid, fleet.TooLarge, fleet.NotFound} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.refuse = func(method, body string) (*http.Response, error) {
					if method == http.MethodPost || strings.Contains(body, "deep") {
						return problem(400, code), nil
					}
					return nil, nil
				}
				first := d.report(t.Context(), "j0", ship)
				good := d.report(t.Context(), "j1", ship)
				bad := d.report(t.Context(), "j2", fleet.Report{Stage: fleet.Shipped, Result: `"deep"`})
				close(d.open)
				settled(t, first, good)
				if r := <-bad; !errors.Is(r.err, code) {
					t.Errorf("got %v, want %s", r.err, code)
				}
				d.want(t, "PATCH 1", "POST 2", "PATCH 1", "PATCH 1")
			})
		})
	}
}

// A request has no more than the cluster takes. What is too large for a request of its own has no company to be let in by.
func TestReportsStayWithinTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		sized := func(n int) fleet.Report {
			return fleet.Report{Stage: fleet.Shipped, Result: fleet.JSON(`"` + strings.Repeat("x", n) + `"`)}
		}
		first := d.report(t.Context(), "first", ship)
		var all []<-chan reported
		for i := range 5 {
			all = append(all, d.report(t.Context(), fmt.Sprint("large", i), sized(fleet.MaxBody-200)))
		}
		settled(t, d.report(t.Context(), "huge", sized(fleet.MaxBody)))
		for i := range fleet.MaxBatch {
			all = append(all, d.report(t.Context(), fmt.Sprint("small", i), ship))
		}
		close(d.open)
		settled(t, append(all, first)...)
		d.want(t, "PATCH 1", "PATCH 1", "POST 4", "POST 1000", "PATCH 1")
		for _, c := range d.requests() {
			if len(c.body) > fleet.MaxBatchBody {
				t.Errorf("got a body of %d bytes, want at most %d", len(c.body), fleet.MaxBatchBody)
			}
		}
	})
}

// Who goes does not take others along: a report that waited is not sent any more, a request ends when all have gone.
func TestGoingWhileReportsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.refuse = func(string, string) (*http.Response, error) { return nil, syscall.ECONNREFUSED }
		going, leave := context.WithCancel(t.Context())
		brief, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		long, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		first := d.report(brief, "j0", ship)
		gone := d.report(going, "j1", ship)
		one, other := d.report(brief, "j2", ship), d.report(long, "j3", ship)
		leave()
		if r := <-gone; !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v, want it canceled", r.err)
		}
		close(d.open)
		<-first
		if r := <-one; !errors.Is(r.err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("got %v after %v, want the deadline after 3 s", r.err, time.Since(began))
		}
		if r := <-other; !errors.Is(r.err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("got %v after %v, want the deadline after a minute", r.err, time.Since(began))
		}
		synctest.Wait()
		all, tries := d.requests(), 0
		for _, c := range all {
			if len(c.jobs) == 2 {
				tries++
			}
			if slices.Contains(c.jobs, "j1") {
				t.Errorf("got %s of %q, want nothing of the job whose report was given up", c.method, c.jobs)
			}
		}
		if tries < 20 {
			t.Errorf("got %d tries for two, want them to go on as long as one of them waits", tries)
		}
		time.Sleep(time.Minute)
		if more := len(d.requests()) - len(all); more != 0 {
			t.Errorf("got %d more requests, want none when nobody waits", more)
		}
	})
}
