package cluster

// This file measures what it costs to wake one of many claims that wait.

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// BenchmarkWaiters submits one job after the other to a node at which claims wait, and waits for the claim that got it. A job is to wake
// one of them alone: then it is two entries, its own and the claim's.
func BenchmarkWaiters(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			node := alone(b)
			seats, hour := int64(1<<40), int64(3600)
			proposed(b, node, &fsm.Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f", SeatLimit: &seats, HeartbeatSeconds: &hour}})
			w := waitingClaims{node: node, again: make(chan struct{}), granted: make(chan struct{})}
			w.start(b, n)
			submit, before := submits(b, node), node.machine.Index()
			b.ReportAllocs()
			for i := 1; b.Loop(); i++ {
				submit()
				<-w.granted
				if i%(n/2) == 0 {
					b.StopTimer()
					for range n / 2 { // all at once: a claim that comes while a job is promised to another takes it
						w.again <- struct{}{}
					}
					w.stand(b, n)
					b.StartTimer()
				}
			}
			entries := float64(node.machine.Index()-before) / float64(b.N)
			b.ReportMetric(entries, "entries/op")
			if entries > 2.1 {
				b.Errorf("a job and its claim wrote %.2f entries, want two", entries)
			}
		})
	}
}

// waitingClaims are claims of which each, once it was granted a job, waits to be told to claim again.
type waitingClaims struct {
	node           *Node
	again, granted chan struct{}
}

func (w *waitingClaims) start(b *testing.B, n int) {
	var callers sync.WaitGroup
	for range n {
		callers.Go(func() {
			for w.claim(b) {
				w.granted <- struct{}{}
				select {
				case <-w.again:
				case <-b.Context().Done():
				}
			}
		})
	}
	b.Cleanup(callers.Wait) // the context has ended then
	w.stand(b, n)
}

// claim reports whether it was granted a job before the benchmark's end.
func (w *waitingClaims) claim(b *testing.B) bool {
	a, err := w.node.Claim(b.Context(), fsm.Proposal{
		Caller:  fsm.Caller{Actor: fsm.ActorRoot},
		Command: &fsm.Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 3600},
	}, time.Hour)
	if b.Context().Err() != nil {
		return false
	}
	if err != nil || a.Err != nil || isNothing(a) {
		b.Errorf("claiming: got %+v, %v, want a job", a, err)
	}
	return true
}

// stand waits until n of them stand in line.
func (w *waitingClaims) stand(b *testing.B, n int) {
	eventually(b, "all stand in line", func() bool {
		w.node.waiters.mu.Lock()
		defer w.node.waiters.mu.Unlock()
		stand := 0
		if l := w.node.waiters.lines["p"]; l != nil {
			for _, kind := range l.kinds {
				stand += len(kind)
			}
		}
		return stand == n
	})
	if err := w.node.Read(b.Context(), Linearizable, 0, func(fsm.View) {}); err != nil { // as theirs, that found nothing
		b.Fatal(err)
	}
}
