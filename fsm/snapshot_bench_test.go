package fsm

// This file measures snapshots: freezing a state, writing it, reading it, and what writing it does to those that apply meanwhile.

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
)

func BenchmarkSnapshot(b *testing.B) {
	bySize(b, func(b *testing.B, n int, st *state) {
		m := &Machine{st: st}
		file := snapshotOf(b, m)
		b.Run("handle", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Handle()
			}
		})
		b.Run("persist", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				if _, err := m.Handle().WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(file))/float64(n), "bytes/job")
		})
		b.Run("restore", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				restored(b, file)
			}
		})
	})
}

// BenchmarkApplyDuringSnapshot claims, ships and submits while a snapshot is being written, and says how long the slowest took and
// how long one in a hundred did.
func BenchmarkApplyDuringSnapshot(b *testing.B) {
	bySize(b, func(b *testing.B, n int, st *state) {
		b.ReportAllocs()
		var r *replica
		var took []time.Duration
		timed := func(c Command) Answer {
			runtime.Gosched() // Apply is called by a goroutine that has waited for its entry, so it begins with a fresh time slice
			began := time.Now()
			a := r.try(c)
			took = append(took, time.Since(began))
			return a
		}
		for b.Loop() {
			r = &replica{t: b, m: &Machine{st: st.fork()}, now: start, index: st.index} // or each snapshot would be longer than the last
			done := make(chan error)
			h := r.m.Handle()
			go func() { _, err := h.WriteTo(io.Discard); done <- err }()
			for writing := true; writing; n++ {
				timed(&Submit{ProductID: "p", JobID: fmt.Sprint("n", n), Submission: bodied(n)})
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
	})
}
