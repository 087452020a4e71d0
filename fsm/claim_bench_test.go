package fsm

// This file measures a claim among many lines: a claim looks at the head of each.

import (
	"fmt"
	"testing"

	"github.com/lysnrai/fleet"
)

// BenchmarkClaimSignatures claims from the one line that the factory can serve, or from the first of all when it can serve all.
func BenchmarkClaimSignatures(b *testing.B) {
	const jobs = 1000
	for _, n := range []int{1, 100, fleet.MaxSignatures} {
		r := newReplica(b)
		all, first, seats := fleet.Strings{}, fleet.Strings{"s0"}, int64(1<<40)
		for i := range n + jobs {
			s := "s" + fmt.Sprint(max(0, i-jobs))
			if i >= jobs {
				all = append(all, s)
			}
			r.submit(fmt.Sprintf("j%07d", i), func(sub *fleet.Submission) { sub.Capabilities = []string{s} })
		}
		for id, caps := range map[string]*fleet.Strings{"one": &first, "all": &all} {
			must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, SeatLimit: &seats, Capabilities: caps}})
		}
		for _, factory := range []string{"one", "all"} {
			b.Run(fmt.Sprintf("signatures=%d/serves=%s", n, factory), func(b *testing.B) {
				var m *Machine
				e := &Entry{Stamp: start, Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: &Claim{ProductID: "p", FactoryID: factory, LeaseSeconds: 60}}}}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%jobs == 0 {
						m = &Machine{st: r.m.st.fork()}
					}
					if a, _ := m.Apply(r.index+1, e); a[0].Err != nil || a[0].Result.(*fleet.Claim).Job == nil {
						b.Fatalf("got %+v, want a job", a[0])
					}
				}
			})
		}
	}
}

// BenchmarkClaimAgain claims a job and gives it back, once it has gone through so many hands before.
func BenchmarkClaimAgain(b *testing.B) {
	for _, hands := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("runs=%d", hands), func(b *testing.B) {
			r := newReplica(b)
			r.heartbeat("f1", 1)
			r.submit("a", nil)
			again := func() {
				c := r.claim()
				must1[*fleet.Lease](r, &Release{ProductID: "p", JobID: "a", LeaseEpoch: c.Job.LeaseEpoch})
			}
			for range hands {
				again()
			}
			b.ReportAllocs()
			for b.Loop() {
				again()
			}
		})
	}
}
