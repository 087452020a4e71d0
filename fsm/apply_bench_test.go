package fsm

// This file measures what a command costs in a state of any size, and one that a whole state waits for.

import (
	"strconv"
	"testing"

	"github.com/lysnrai/fleet"
)

// BenchmarkApply applies one command an entry. Before the state is another than it began, it goes back to that: a fork of it costs
// next to nothing, and what is copied again after it is shared by many applies.
func BenchmarkApply(b *testing.B) {
	bySize(b, func(b *testing.B, n int, st *state) {
		for _, w := range works() {
			b.Run(w.name, func(b *testing.B) {
				var entries []*Entry
				for i := range min(n/3/w.uses, 10_000) {
					entries = append(entries, w.entry(i))
				}
				var m *Machine
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					at := i % len(entries)
					if at == 0 {
						m = &Machine{st: st.fork()}
					}
					if a, _ := m.Apply(st.index+1+uint64(at), entries[at]); a[0].Err != nil {
						b.Fatal(a[0].Err)
					}
				}
			})
		}
	})
}

// BenchmarkUnblock ships a job that 10,000 wait for.
func BenchmarkUnblock(b *testing.B) {
	r := newReplica(b)
	r.heartbeat("f1", 1)
	b.ReportAllocs()
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
