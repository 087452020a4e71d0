package cluster

// This file measures what the purge of old jobs costs those who write meanwhile.

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

// BenchmarkRetention purges old jobs at three nodes with stores on disk, one Reap after the other as the reaper does, while four callers
// submit. An operation is the purge of one job.
func BenchmarkRetention(b *testing.B) {
	sizes := []int{20_000}
	if !testing.Short() {
		sizes = append(sizes, 1_000_000)
	}
	for _, size := range sizes {
		b.Run(fmt.Sprintf("jobs=%d", size), func(b *testing.B) {
			leader := threeMembers(b, NewMemoryNetwork(), onDisk)[0]
			left := func() (some bool) {
				leader.machine.View(func(v fsm.View) { _, some = v.NextRetention() })
				return some
			}
			const batch = 500
			for ended := 0; ended < size; ended += batch {
				var submits, cancels []fsm.Proposal
				root := fsm.Caller{Actor: fsm.ActorRoot}
				for range batch {
					c := submit(fmt.Sprintf("old%d", submitted.Add(1)))
					submits = append(submits, fsm.Proposal{Caller: root, Command: c})
					cancels = append(cancels, fsm.Proposal{Caller: root, Command: &fsm.Cancel{ProductID: c.ProductID, JobID: c.JobID}})
				}
				first, second := newPending(submits...), newPending(cancels...)
				leader.proposer.enqueue(first)
				leader.proposer.enqueue(second)
				if <-second.done; first.err != nil || second.err != nil {
					b.Fatal(first.err, second.err)
				}
			}
			var purging atomic.Bool
			stop := submitting(b, leader, &purging)
			for began := time.Now(); time.Since(began) < 3*time.Second; { // what they take without a purge
				if _, err := leader.proposeInternal(b.Context(), &fsm.Noop{}); err != nil {
					b.Fatal(err)
				}
			}
			purging.Store(true)
			b.ResetTimer()
			began, reaps := time.Now(), 0
			for left() {
				reaps++
				if _, err := leader.proposeInternal(b.Context(), &fsm.Reap{Limit: reapLimit, RetentionSeconds: 1}); err != nil {
					b.Fatal(err)
				}
			}
			took := time.Since(began)
			b.StopTimer()
			quiet, meanwhile := stop()
			b.ReportMetric(float64(took.Nanoseconds())/float64(size), "ns/op")
			b.ReportMetric(float64(size)/float64(reaps), "jobs/reap")
			for name, of := range map[string][]time.Duration{"quiet": quiet, "purging": meanwhile} {
				slices.Sort(of)
				b.ReportMetric(of[len(of)*99/100].Seconds()*1000, name+"-p99-ms")
				b.ReportMetric(of[len(of)/2].Seconds()*1000, name+"-p50-ms")
			}
		})
	}
}
