package check_test

// This file is the faults of a scenario's disks, and what becomes of a node whose disk failed (I16).

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// diskFaults are those that only nodes on simulated disks can have.
var diskFaults = []fault{
	{"power cut", always(func(r *run, _ *rand.Rand, victim, _ int) { r.powerCut(victim) })},
	{"power cut all", always(func(r *run, _ *rand.Rand, _, _ int) {
		all := make([]int, r.c.Size())
		for i := range all {
			all[i] = i
		}
		r.powerCut(all...)
	})},
	{"power cut some", always(func(r *run, rnd *rand.Rand, _, _ int) {
		r.powerCut(rnd.Perm(r.c.Size())[:1+rnd.IntN(r.c.Size())]...)
	})},
	{"disk error", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.c.FailDisk(r.t, victim, 1+rnd.IntN(20), []error{syscall.EIO, syscall.ENOSPC}[rnd.IntN(2)])
		r.pass(milliseconds(rnd, 500, 5000))
	})},
	{"disk hangs", always(func(r *run, rnd *rand.Rand, victim, _ int) { // not for as long as ends the node
		r.c.HangDisk(r.t, victim)
		r.pass(milliseconds(rnd, 500, 9000))
		r.c.ResumeDisk(r.t, victim)
	})},
	{"slow disk", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		least := milliseconds(rnd, 1, 300)
		r.c.SlowDisk(r.t, victim, least, least+milliseconds(rnd, 1, 700))
	})},
}

func (r *run) powerCut(which ...int) {
	r.c.PowerCut(r.t, which...)
	for _, i := range which {
		r.down[i] = true
	}
}

// mendDisk lets a disk work as it should.
func (r *run) mendDisk(i int) {
	if r.c.Disk(i) != nil {
		r.c.FailDisk(r.t, i, 0, nil)
		r.c.ResumeDisk(r.t, i)
		r.c.SlowDisk(r.t, i, 0, 0)
	}
}

// bury takes the nodes down that ended because of their disks. Their processes are still there for a moment: I16 is that they do no harm.
func (r *run) bury() {
	for i := range r.c.Size() {
		if r.down[i] || r.c.Disk(i) == nil || !r.c.HasEnded(i) {
			continue
		}
		n := r.c.Node(i)
		if !errors.Is(n.Err(), cluster.ErrStorage) {
			continue // it was removed, which another looks after
		}
		if n.IsLeader() {
			r.t.Fatalf("I16: node %s ended with %v, and leads", name(i), n.Err())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		p := fsm.Proposal{Caller: root, Request: "after its end", Command: &fsm.Heartbeat{ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "dead", Health: fleet.HealthOK}}}
		if _, err := n.Propose(ctx, p); err == nil {
			r.t.Fatalf("I16: node %s ended with %v, and acknowledges", name(i), n.Err())
		}
		if err := n.Read(ctx, cluster.Linearizable, 0, func(fsm.View) {}); err == nil {
			r.t.Fatalf("I16: node %s ended with %v, and serves", name(i), n.Err())
		}
		time.Sleep(writeUnderWay)
		voted := r.c.Disk(i).Writes()
		r.askVotes()
		if again := r.c.Disk(i).Writes(); again != voted {
			r.t.Fatalf("I16: node %s ended with %v, and wrote %d times to its disk since: a vote is one write", name(i), n.Err(), again-voted)
		}
		cancel()
		r.kill(i)
		r.injected["ended by its disk"]++
	}
}

// writeUnderWay is how long those writes of a node may still take that it had begun before another of its writes failed: entries and
// their mark are stored at once, and a disk takes up to a second for each. What they bring is never acknowledged.
const writeUnderWay = 2 * time.Second

// askVotes is long enough for the others to ask for votes.
func (r *run) askVotes() {
	d := time.Second
	if r.timing == cluster.TimingWAN {
		d *= 4
	}
	time.Sleep(d)
}
