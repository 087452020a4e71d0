package worker

// This file tests how a factory of many seats claims for all free ones at once, in virtual time.

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
)

// submitAll submits so many jobs at once, and returns their ids.
func (s *shop) submitAll(count int) (ids []string) {
	s.t.Helper()
	submissions := make([]fleet.Submission, count)
	for i := range submissions {
		submissions[i] = fleet.Submission{BodyMd: "Fix it.", Capabilities: []string{"sh"}}
	}
	results, err := s.client.SubmitBatch(s.t.Context(), submissions)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		ids = append(ids, r.Job.ID)
	}
	return ids
}

// all checks where all of these jobs are, each at its first attempt.
func (s *shop) all(ids []string, stage fleet.Stage) {
	s.t.Helper()
	for _, id := range ids {
		if job := s.job(id); job.Stage != stage || job.LeaseEpoch > 1 {
			s.t.Errorf("got job %s %s, reason %q, at epoch %d, want it %s at its first", id, job.Stage, job.Reason, job.LeaseEpoch, stage)
		}
	}
}

// drained stops a factory by one signal and waits for its end.
func (r *running) drained() {
	r.t.Helper()
	r.signals <- syscall.SIGTERM
	r.ok()
}

// unheard lets a request be done, and its answer be lost.
func (s *shop) unheard(w http.ResponseWriter, r *http.Request) bool {
	s.api.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
	return hangUp(w, r)
}

// Free seats are claimed for together, by one request, and each job is worked on in a seat of its own. Seats that got
// none are claimed for again.
func TestSeveralSeatsClaimTogether(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		var mu sync.Mutex // guards all below
		var paths []string
		working, most, seats := 0, 0, map[int]bool{}
		s.at(func(_ http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(r.URL.Path, "/fleet/claim") {
				paths = append(paths, r.URL.Path)
			}
			return false
		})
		ids := s.submitAll(3)
		c := s.handled(func(ctx context.Context, task *Task) (Outcome, error) {
			mu.Lock()
			working++
			most, seats[task.Seat] = max(most, working), true
			mu.Unlock()
			defer func() {
				mu.Lock()
				working--
				mu.Unlock()
			}()
			return asLong(time.Minute)(ctx, task)
		})
		c.Seats = 4
		r := s.start(c)
		time.Sleep(10 * time.Second)
		mu.Lock()
		if want := []string{"/fleet/claim/batch", "/fleet/claim"}; !slices.Equal(paths, want) || working != 3 || len(seats) != 3 {
			t.Errorf("got %d jobs in the seats %v by %q, want 3 by one request, and one for the seat that is left", working, seats, paths)
		}
		mu.Unlock()
		ids = append(ids, s.submitAll(9)...) // more than there are seats
		time.Sleep(5 * time.Minute)
		s.all(ids, fleet.Shipped)
		mu.Lock()
		if most != 4 || len(seats) != 4 {
			t.Errorf("got %d jobs at once in the seats %v, want 4 in 4", most, seats)
		}
		mu.Unlock()
		r.drained()
	})
}

// A batch of claims whose answer was lost is not claimed twice, and none of its seats is lost.
func TestLostAnswerToABatchOfClaims(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		var lost atomic.Int64
		s.at(func(w http.ResponseWriter, r *http.Request) bool {
			return r.URL.Path == "/fleet/claim/batch" && lost.Add(1) <= 2 && s.unheard(w, r)
		})
		ids := s.submitAll(4)
		var working atomic.Int64
		c := s.handled(func(ctx context.Context, task *Task) (Outcome, error) {
			working.Add(1)
			defer working.Add(-1)
			return asLong(time.Minute)(ctx, task)
		})
		c.Seats = 4
		r := s.start(c)
		time.Sleep(30 * time.Second)
		if n := working.Load(); n != 4 || lost.Load() < 3 {
			t.Errorf("got %d jobs after %d answers, want 4 after two were lost", n, lost.Load())
		}
		time.Sleep(time.Minute)
		again := s.submitAll(4)
		time.Sleep(30 * time.Second)
		if n := working.Load(); n != 4 {
			t.Errorf("got %d jobs at once, want every seat in use again", n)
		}
		time.Sleep(time.Minute)
		s.all(append(ids, again...), fleet.Shipped)
		r.drained()
	})
}

// A drain ends a batch of claims that waits. What was granted at that moment is given back, all of it.
func TestDrainWhileABatchOfClaimsWaits(t *testing.T) {
	for _, name := range []string{"nothing granted", "granted and unheard"} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
				asked, granted := make(chan struct{}, 1), make(chan struct{})
				var first atomic.Bool
				s.at(func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path != "/fleet/claim/batch" || !first.CompareAndSwap(false, true) {
						return false
					}
					asked <- struct{}{}
					if name == "nothing granted" {
						return false
					}
					s.api.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
					close(granted)
					<-r.Context().Done()
					return true
				})
				c := s.handled(asLong(time.Minute))
				c.Seats = 4
				r := s.start(c)
				<-asked
				time.Sleep(time.Second)
				var ids []string
				if name != "nothing granted" {
					ids = s.submitAll(3)
					<-granted
				}
				began := time.Now()
				r.drained()
				if took := time.Since(began); took > time.Second {
					t.Errorf("got the end after %v, want it at once", took)
				}
				for _, id := range append(ids, s.submitAll(1)...) {
					if job := s.job(id); job.Stage != fleet.Queued || job.Failures != 0 {
						t.Errorf("got %s with %d failures, want it queued", job.Stage, job.Failures)
					}
				}
			})
		})
	}
}

// A stop that comes with the answer to a batch of claims gives every job of it back.
func TestStopWithTheAnswerToABatch(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		ids := s.submitAll(3)
		c := s.handled(func(ctx context.Context, _ *Task) (Outcome, error) {
			<-ctx.Done()
			return Outcome{}, context.Cause(ctx)
		})
		c.Seats, c.Drain = 4, DrainRelease
		var r *running
		started := make(chan struct{})
		s.at(func(w http.ResponseWriter, q *http.Request) bool {
			if q.URL.Path != "/fleet/claim/batch" {
				return false
			}
			<-started
			s.api.ServeHTTP(w, q)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			r.signals <- syscall.SIGTERM
			return true
		})
		r = s.start(c)
		close(started)
		r.ok()
		for _, id := range ids {
			if job := s.job(id); job.Stage != fleet.Queued {
				t.Errorf("got %s, want it released", job.Stage)
			}
		}
	})
}
