package cluster

// This file is the clusters that benchmarks load, in real time, and how they load them.

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

// onDisk keeps what nodes store in real files.
func onDisk(cfg *Config) { cfg.Storage = diskStorage{} }

// inMemory is the default.
func inMemory(*Config) {}

// together calls fn from n goroutines at once, one call an iteration. Before the clock starts all of them are at it, and when it stops
// they still are.
func together(b *testing.B, n int, fn func()) {
	b.ReportAllocs()
	turns := make(chan struct{})
	var callers sync.WaitGroup
	for range n {
		callers.Go(func() {
			for range turns {
				fn()
			}
		})
	}
	for range n {
		turns <- struct{}{}
	}
	for b.Loop() {
		turns <- struct{}{}
	}
	close(turns)
	callers.Wait()
}

var (
	bodyOfAJob = strings.Repeat("find out why it fails ", 50)[:1024]
	submitted  atomic.Int64
)

// submits proposes one job of 1 KiB after the other at a node. Any goroutine may call what it returns.
func submits(b *testing.B, n *Node) func() {
	return func() {
		c := submit("j" + strconv.FormatInt(submitted.Add(1), 10))
		c.Submission.BodyMd = bodyOfAJob
		proposed(b, n, c)
	}
}

// submitting has four callers submit until stop is called, which tells how long their calls took: of those that began before something went on,
// and of those that began meanwhile.
func submitting(b *testing.B, n *Node, goesOn *atomic.Bool) (stop func() (before, meanwhile []time.Duration)) {
	var mu sync.Mutex
	var before, meanwhile []time.Duration
	var callers sync.WaitGroup
	stopped := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			for write := submits(b, n); ; {
				select {
				case <-stopped:
					return
				default:
				}
				list := &before
				if goesOn.Load() {
					list = &meanwhile
				}
				began := time.Now()
				write()
				took := time.Since(began)
				mu.Lock()
				*list = append(*list, took)
				mu.Unlock()
			}
		})
	}
	return func() ([]time.Duration, []time.Duration) {
		close(stopped)
		callers.Wait()
		return before, meanwhile
	}
}

// proposed is must for any goroutine.
func proposed(b *testing.B, n *Node, c fsm.Command) {
	a, err := n.Propose(b.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c})
	if err != nil || a.Err != nil {
		b.Errorf("proposing %T: %v, %v", c, err, a.Err)
	}
}

// alone is a node that is its whole cluster, in memory.
func alone(b *testing.B) *Node {
	node := member(b, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1})
	eventually(b, "it is in the table of servers", func() bool { return len(known(node)) == 1 })
	return node
}

// BenchmarkPropose submits at a node that is alone, at the leader of three nodes, whose stores are on disk or in memory, and in memory at a
// follower.
func BenchmarkPropose(b *testing.B) {
	b.Run("alone/stores=memory/proposers=1", func(b *testing.B) { together(b, 1, submits(b, alone(b))) })
	for _, where := range []struct {
		name   string
		stores func(*Config)
		node   int // 0 is the leader
	}{{"leader/stores=disk", onDisk, 0}, {"leader/stores=memory", inMemory, 0}, {"follower/stores=memory", inMemory, 1}} {
		for _, n := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/proposers=%d", where.name, n), func(b *testing.B) {
				nodes := threeMembers(b, NewMemoryNetwork(), where.stores)
				before := nodes[0].machine.Index()
				together(b, n, submits(b, nodes[where.node]))
				b.ReportMetric(float64(nodes[0].machine.Index()-before)/float64(b.N), "entries/op")
			})
		}
	}
}

// BenchmarkRead reads linearizably at each end.
func BenchmarkRead(b *testing.B) {
	nodes := threeMembers(b, NewMemoryNetwork())
	for i, name := range []string{"leader", "follower"} {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/readers=%d", name, n), func(b *testing.B) {
				together(b, n, func() {
					if err := nodes[i].Read(b.Context(), Linearizable, 0, func(fsm.View) {}); err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}
