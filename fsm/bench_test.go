package fsm

// This file measures what must not grow with the backlog: a claim, a patch, a submit, and freezing the state.

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
)

// backlog is a machine with n queued jobs in ten lines, and a factory that never runs out of seats.
func backlog(b *testing.B, n int) *replica {
	b.Helper()
	r := newReplica(b)
	const batch = 1000
	for first := 0; first < n; first += batch {
		c := &SubmitBatch{ProductID: "p"}
		for i := first; i < min(first+batch, n); i++ {
			c.JobIDs = append(c.JobIDs, "j"+strconv.Itoa(i))
			c.Submissions = append(c.Submissions, queuedSubmission(i))
		}
		must1[*fleet.SubmitResults](r, c)
	}
	caps := fleet.Strings{}
	for i := range 10 {
		caps = append(caps, "c"+strconv.Itoa(i))
	}
	seats := int64(1 << 40)
	must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats, Capabilities: &caps}})
	b.ReportAllocs()
	b.ResetTimer()
	return r
}

func queuedSubmission(i int) fleet.Submission {
	return submission(func(s *fleet.Submission) { s.Capabilities = []string{"c" + strconv.Itoa(i%10)} })
}

// BenchmarkClaim claims and submits another job each time, so that the backlog stays.
func BenchmarkClaim(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("backlog=%d", n), func(b *testing.B) {
			r := backlog(b, n)
			for i := 0; b.Loop(); i++ {
				r.claim()
				must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "n" + strconv.Itoa(i), Submission: queuedSubmission(i)})
			}
		})
	}
}

func BenchmarkApplySubmit(b *testing.B) {
	r := backlog(b, 1_000_000)
	for i := 0; b.Loop(); i++ {
		must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "n" + strconv.Itoa(i), Submission: queuedSubmission(i)})
	}
}

func BenchmarkApplyClaim(b *testing.B) {
	r := backlog(b, 1_000_000)
	for b.Loop() {
		r.claim()
	}
}

func BenchmarkApplyPatch(b *testing.B) {
	r := backlog(b, 1_000_000)
	c := r.claim()
	stages := []fleet.Stage{fleet.Building, fleet.Testing}
	for i := 0; b.Loop(); i++ {
		q := report(c.Job.LeaseEpoch, stages[i%2], "")
		turns := int64(i)
		q.Insights = &fleet.Insights{Turns: &turns}
		r.patch(c.Job.ID, q)
	}
}

// BenchmarkHandle freezes the state.
func BenchmarkHandle(b *testing.B) {
	r := backlog(b, 1_000_000)
	for b.Loop() {
		r.m.Handle()
	}
}

// BenchmarkApplyDuringSnapshot claims, patches and submits while a snapshot of a large state is being written, and says how
// long the slowest took and how long one in a hundred did.
func BenchmarkApplyDuringSnapshot(b *testing.B) {
	r := backlog(b, 1_000_000)
	var took []time.Duration
	timed := func(c Command) Answer {
		runtime.Gosched() // Apply is called by a goroutine that has waited for its entry, so it begins with a fresh time slice
		start := time.Now()
		a := r.try(c)
		took = append(took, time.Since(start))
		return a
	}
	n := 0
	for b.Loop() {
		done := make(chan error)
		h := r.m.Handle()
		go func() { _, err := h.WriteTo(io.Discard); done <- err }()
		for writing := true; writing; n++ {
			id := "n" + strconv.Itoa(n)
			timed(&Submit{ProductID: "p", JobID: id, Submission: queuedSubmission(n)})
			c := timed(&Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60}).Result.(*fleet.Claim)
			timed(&Patch{ProductID: "p", JobID: c.Job.ID, Report: report(c.Job.LeaseEpoch, fleet.Shipped, "")})
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				writing = false
			default:
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
	b.ReportMetric(float64(len(took))/float64(b.N), "applies/op")
}

// BenchmarkUnblock ships a job that 10,000 wait for.
func BenchmarkUnblock(b *testing.B) {
	r := newReplica(b)
	r.heartbeat("f1", 1)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		hub := "hub" + strconv.Itoa(n)
		r.submit(hub, func(s *fleet.Submission) { s.Priority = fleet.Critical })
		r.batches(fleet.MaxDependents, hub+"-", func(_ int, s *fleet.Submission) { s.Deps = []string{hub} })
		c := r.claim()
		b.StartTimer()
		r.patch(hub, report(c.Job.LeaseEpoch, fleet.Shipped, ""))
	}
}
