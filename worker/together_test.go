package worker

// This file tests that reports which are made at about the same time go together, in virtual time.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc/client"
)

// together is a factory whose jobs end at almost the same moment: the one in seat 0 is first, and its report is held up until
// those of the others wait. It returns the jobs and how many reports each request had.
func together(t *testing.T, s *shop, outcome func(task *Task) Outcome, before func(ids []string)) (ids []string, counts []int) {
	t.Helper()
	const count = 5
	ids = s.submitAll(count)
	var (
		mu   sync.Mutex // guards counts
		late atomic.Bool
	)
	s.at(func(_ http.ResponseWriter, r *http.Request) bool {
		n := 0
		switch {
		case r.Method == http.MethodPatch:
			n = 1
		case r.URL.Path == "/fleet/reports":
			b, err := io.ReadAll(r.Body)
			var body struct{ Reports []json.RawMessage }
			if err != nil || json.Unmarshal(b, &body) != nil {
				t.Error("got reports that can't be read")
			}
			r.Body, n = io.NopCloser(strings.NewReader(string(b))), len(body.Reports)
		default:
			return false
		}
		mu.Lock()
		counts = append(counts, n)
		mu.Unlock()
		if late.CompareAndSwap(false, true) {
			time.Sleep(time.Second)
		}
		return false
	})
	c := s.handled(func(ctx context.Context, task *Task) (Outcome, error) {
		select {
		case <-ctx.Done():
			return Outcome{}, context.Cause(ctx)
		case <-time.After(5*time.Second + time.Duration(min(task.Seat, 1))*100*time.Millisecond):
			return outcome(task), nil
		}
	})
	c.Seats = count
	r := s.start(c)
	time.Sleep(5*time.Second + 500*time.Millisecond) // the first report is under way
	before(ids)
	time.Sleep(10 * time.Second)
	r.drained()
	return ids, counts
}

// Jobs that end at about the same time are reported by two requests: the first by itself, and those that waited for it.
func TestReportsGoTogether(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		outcome := func(task *Task) Outcome { return Outcome{Result: fleet.JSON(`{"job":"` + task.Job.ID + `"}`)} }
		ids, counts := together(t, s, outcome, func([]string) {})
		s.all(ids, fleet.Shipped)
		for _, id := range ids {
			if run := s.last(id); run.Result != fleet.JSON(`{"job":"`+id+`"}`) {
				t.Errorf("got the result %s of job %s, want its own", run.Result, id)
			}
		}
		if !slices.Equal(counts, []int{1, 4}) {
			t.Errorf("got requests of %v reports, want 1 and 4", counts)
		}
	})
}

// One of many reports may come too late: its job is lost, with the word why. The others land.
func TestOneOfManyReportsIsFenced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		var tasks sync.Map // by job id
		outcome := func(task *Task) Outcome {
			tasks.Store(task.Job.ID, task)
			return Outcome{}
		}
		ids, counts := together(t, s, outcome, func(ids []string) { s.cancel(ids[4]) })
		if job := s.job(ids[4]); job.Stage != fleet.Failed || job.Reason != "cancelled" || !slices.Equal(counts, []int{1, 4}) {
			t.Errorf("got %s, reason %q, after requests of %v reports, want it cancelled", job.Stage, job.Reason, counts)
		}
		s.all(ids[:4], fleet.Shipped)
		for i, id := range ids {
			task, _ := tasks.Load(id)
			cause := context.Cause(task.(*Task).Context())
			if fenced(cause) != (i == 4) || !fenced(cause) && !errors.Is(cause, client.ErrSettled) {
				t.Errorf("got job %d ended by %v, want the last fenced and the others settled", i, cause)
			}
		}
	})
}

// What the cluster does not take is settled as bad_result, whatever it was said together with.
func TestUnacceptableReportAmongOthers(t *testing.T) {
	deep := strings.Repeat("[", fleet.MaxNesting) + strings.Repeat("]", fleet.MaxNesting)
	for name, bad := range map[string]Outcome{
		"too large":     {Result: fleet.JSON(`"` + strings.Repeat("x", fleet.MaxBody) + `"`)},
		"nested deep":   {Result: fleet.JSON(deep)},
		"invalid":       {Stage: fleet.Failed, Reason: strings.Repeat("x", fleet.MaxText+1)},
		"illegal stage": {Stage: fleet.Queued},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
				var spoilt atomic.Value // the id of the job
				outcome := func(task *Task) Outcome {
					if task.Seat == 3 {
						spoilt.Store(task.Job.ID)
						return bad
					}
					return Outcome{}
				}
				ids, _ := together(t, s, outcome, func([]string) {})
				id, _ := spoilt.Load().(string)
				if job := s.job(id); job.Stage != fleet.Failed || job.Reason != reasonBadResult {
					t.Errorf("got %s, reason %q, want failed with %s", job.Stage, job.Reason, reasonBadResult)
				}
				s.all(slices.DeleteFunc(ids, func(other string) bool { return other == id }), fleet.Shipped)
			})
		})
	}
}

// A gate is passed on together with others: the job is parked there, for a human.
func TestParkedTogether(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		ids, _ := together(t, s, func(*Task) Outcome { return Outcome{Stage: fleet.Review} }, func([]string) {})
		s.all(ids, fleet.Review)
		for _, id := range ids {
			if run := s.last(id); run.Outcome != fleet.OutcomeParked {
				t.Errorf("got %s, want parked", run.Outcome)
			}
		}
	})
}

// Reports whose answer was lost are made once.
func TestLostAnswerToManyReports(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		ids := s.submitAll(6)
		var lost atomic.Int64
		s.at(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Method == http.MethodPatch:
				time.Sleep(time.Second)
			case r.URL.Path == "/fleet/reports" && lost.Add(1) <= 2:
				return s.unheard(w, r)
			}
			return false
		})
		c := s.handled(asLong(5 * time.Second))
		c.Seats = 6
		r := s.start(c)
		time.Sleep(time.Minute)
		s.all(ids, fleet.Shipped)
		for _, id := range ids {
			if n := len(s.data(id, fleet.EventShipped)); n != 1 {
				t.Errorf("got job %s shipped %d times", id, n)
			}
		}
		if lost.Load() < 3 {
			t.Errorf("got %d requests, want the reports said again", lost.Load())
		}
		r.drained()
	})
}
