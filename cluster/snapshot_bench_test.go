package cluster

// This file measures what a snapshot costs those who write meanwhile.

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

// BenchmarkWritesDuringSnapshot has three nodes with stores on disk and many small jobs write snapshots, all at once, while four callers
// submit. An operation is a round of snapshots. It reports how long submits took before and meanwhile.
func BenchmarkWritesDuringSnapshot(b *testing.B) {
	const batch, rounds = 500, 3
	jobs := 300_000
	if testing.Short() {
		jobs = 30_000
	}
	members := threeMembers(b, NewMemoryNetwork(), onDisk)
	leader := members[0]
	for made := 0; made < jobs; made += batch {
		var proposals []fsm.Proposal
		for range batch {
			proposals = append(proposals, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit(fmt.Sprintf("old%d", submitted.Add(1)))})
		}
		p := newPending(proposals...)
		leader.proposer.enqueue(p)
		if <-p.done; p.err != nil {
			b.Fatal(p.err)
		}
	}
	var writing atomic.Bool
	stop := submitting(b, leader, &writing)
	for began := time.Now(); time.Since(began) < 5*time.Second; { // what they take without
		if _, err := leader.proposeInternal(b.Context(), &fsm.Noop{}); err != nil {
			b.Fatal(err)
		}
	}
	writing.Store(true)
	b.ResetTimer()
	began := time.Now()
	for range rounds {
		var all sync.WaitGroup
		for _, n := range members {
			all.Go(func() {
				if !n.takeSnapshot(n.raftIfUp()) {
					b.Error("a snapshot failed")
				}
			})
		}
		all.Wait()
	}
	b.ReportMetric(time.Since(began).Seconds()/rounds*1e9, "ns/op")
	b.StopTimer()
	quiet, meanwhile := stop()
	for name, of := range map[string][]time.Duration{"quiet": quiet, "meanwhile": meanwhile} {
		slices.Sort(of)
		b.ReportMetric(float64(len(of)), name+"-n")
		for what, at := range map[string]int{"p50": len(of) / 2, "p99": len(of) * 99 / 100, "max": len(of) - 1} {
			b.ReportMetric(of[at].Seconds()*1000, name+"-"+what+"-ms")
		}
	}
}
