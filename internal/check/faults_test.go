package check_test

// This file is the faults of a scenario: what is drawn, and what each does.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

// fault is one evil thing, done to a node that is up (the leader, every other time) and to another one, up or not. It is
// false if that could not be done now: then a node is killed and started again.
type fault struct {
	kind string
	do   func(r *run, rnd *rand.Rand, victim, other int) bool
}

// always is a fault that can be done at any time.
func always(do func(r *run, rnd *rand.Rand, victim, other int)) func(*run, *rand.Rand, int, int) bool {
	return func(r *run, rnd *rand.Rand, victim, other int) bool { do(r, rnd, victim, other); return true }
}

var faults = []fault{
	{"kill", always(func(r *run, _ *rand.Rand, victim, _ int) { r.kill(victim) })},
	{"kill all", always(func(r *run, _ *rand.Rand, _, _ int) {
		for _, i := range r.up() {
			r.kill(i)
		}
	})},
	{"restart", always(func(r *run, _ *rand.Rand, victim, _ int) { r.kill(victim); r.restart(victim) })},
	{"shutdown", always(func(r *run, _ *rand.Rand, victim, _ int) {
		r.mendDisk(victim)
		r.c.Shutdown(r.t, victim)
		r.down[victim] = true
	})},
	{"pause", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.c.Pause(r.t, victim)
		r.pass(milliseconds(rnd, 1000, 20_000))
		r.c.Resume(r.t, victim)
	})},
	{"isolate", always(func(r *run, _ *rand.Rand, victim, _ int) { r.c.Isolate(victim) })},
	{"partition", always(func(r *run, rnd *rand.Rand, _, _ int) {
		var side []int
		for i := range r.c.Size() {
			if rnd.IntN(2) == 0 {
				side = append(side, i)
			}
		}
		r.c.Partition(side)
	})},
	{"one way", always(func(r *run, _ *rand.Rand, victim, other int) { r.c.Network().CutOneWay(name(victim), name(other)) })},
	{"bridge", always(func(r *run, _ *rand.Rand, victim, other int) { r.c.Network().Cut(name(victim), name(other)) })},
	{"flap", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		for range 3 + rnd.IntN(5) {
			r.c.Isolate(victim)
			r.pass(milliseconds(rnd, 100, 2000))
			r.c.Heal()
			r.pass(milliseconds(rnd, 100, 2000))
		}
	})},
	{"swizzle", always((*run).swizzle)},
	{"delay", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		d := milliseconds(rnd, 1, 500)
		r.disturb(victim, cluster.Disturbance{Delay: d, Jitter: d / 2})
	})},
	{"loss", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.disturb(victim, cluster.Disturbance{Delay: milliseconds(rnd, 0, 20), Loss: 0.01 + 0.29*rnd.Float64()})
	})},
	{"reorder", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.disturb(victim, cluster.Disturbance{Delay: 50 * time.Millisecond, Jitter: 50 * time.Millisecond, Duplicate: rnd.Float64() / 2})
	})},
	{"slow link", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.disturb(victim, cluster.Disturbance{Delay: milliseconds(rnd, 0, 50), BitsPerSecond: 10_000_000 >> rnd.IntN(6)})
	})},
	{"transfer", always(func(r *run, _ *rand.Rand, victim, _ int) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		_ = r.c.Node(victim).TransferLeadership(ctx, "") // it may well fail: that is part of the test
	})},
	{"storm", always((*run).storm)},
	{"usurp", (*run).usurp},
	{"clock jump", always(func(r *run, rnd *rand.Rand, victim, _ int) {
		r.setClock(victim, time.Duration(rnd.IntN(7201)-3600)*time.Second, 0)
	})},
	{"clock drift", always(func(r *run, rnd *rand.Rand, victim, _ int) { r.setClock(victim, 0, 0.4*rnd.Float64()-0.2) })},
	{"clock a day", always(func(r *run, _ *rand.Rand, victim, _ int) {
		r.setClock(victim, 24*time.Hour, 0)
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		_ = r.c.Node(victim).TransferLeadership(ctx, name(victim))
		r.pass(3 * time.Second)
		_ = r.c.Node(victim).TransferLeadership(ctx, "")
	})},
	{"backup", always(func(r *run, _ *rand.Rand, victim, _ int) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		_ = r.c.Node(victim).WriteSnapshot(ctx, io.Discard)
	})},
	{"add", (*run).add},
	{"wipe", (*run).wipe},
	{"remove", func(r *run, rnd *rand.Rand, victim, other int) bool { return r.remove(rnd, victim, other, false) }},
	{"remove dead", func(r *run, rnd *rand.Rand, victim, other int) bool { return r.remove(rnd, victim, other, true) }},
}

// setClock sets one clock wrong, and the others right: what is promised of time is promised given a majority of good clocks.
func (r *run) setClock(victim int, ahead time.Duration, drift float64) {
	for i := range r.c.Size() {
		r.c.SetClock(i, 0, 0)
	}
	r.c.SetClock(victim, ahead, drift)
}

func name(i int) string { return fmt.Sprintf("n%d", i+1) }

func milliseconds(rnd *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+rnd.IntN(to-from)) * time.Millisecond
}

// fault does one evil thing.
func (r *run) fault(rnd *rand.Rand) {
	r.bury()
	up := r.up()
	if len(up) == 0 {
		r.heal()
		return
	}
	victim := up[rnd.IntN(len(up))]
	if rnd.IntN(2) == 0 {
		for _, i := range up {
			if r.c.Node(i).IsLeader() {
				victim = i
			}
		}
	}
	other := (victim + 1 + rnd.IntN(r.c.Size()-1)) % r.c.Size()
	f := faults[rnd.IntN(len(faults))]
	if r.disks && rnd.IntN(3) == 0 {
		f = diskFaults[rnd.IntN(len(diskFaults))]
	}
	if !f.do(r, rnd, victim, other) {
		f.kind = "restart"
		if up := r.up(); len(up) > 0 { // it may have healed
			r.kill(up[0])
			r.restart(up[0])
		}
	}
	r.injected[f.kind]++
}

// disturb disturbs all links of a node.
func (r *run) disturb(i int, d cluster.Disturbance) {
	for k := range r.c.Size() {
		if k != i {
			r.c.Network().Disturb(name(i), name(k), d)
		}
	}
}

// swizzle clogs some links one by one, and unclogs them in another order.
func (r *run) swizzle(rnd *rand.Rand, _, _ int) {
	var links [][2]int
	for a := range r.c.Size() {
		for b := range r.c.Size() {
			if a != b && rnd.IntN(2) == 0 {
				links = append(links, [2]int{a, b})
			}
		}
	}
	rnd.Shuffle(len(links), func(i, k int) { links[i], links[k] = links[k], links[i] })
	for _, l := range links {
		r.c.Network().CutOneWay(name(l[0]), name(l[1]))
		r.pass(milliseconds(rnd, 0, 2000))
	}
	rnd.Shuffle(len(links), func(i, k int) { links[i], links[k] = links[k], links[i] })
	for _, l := range links {
		r.c.Network().MendOneWay(name(l[0]), name(l[1]))
		r.pass(milliseconds(rnd, 0, 2000))
	}
}

// storm hands leadership on every 100 ms.
func (r *run) storm(rnd *rand.Rand, _, _ int) {
	for range 10 + rnd.IntN(20) {
		for _, i := range r.up() {
			if n := r.c.Node(i); n.IsLeader() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				r.clients.Go(func() {
					defer cancel()
					_ = n.TransferLeadership(ctx, "")
				})
				break
			}
		}
		r.pass(100 * time.Millisecond)
	}
}

// whole mends everything and waits until all nodes are voters that have caught up: before that no disk may be lost on purpose,
// or what a majority has acknowledged could be lost with it. It is false if that takes too long.
func (r *run) whole() bool {
	r.heal()
	for range 60 {
		ready := true
		for i := range r.c.Size() {
			ready = ready && r.c.Node(i) != nil && r.c.Node(i).Ready() == nil
		}
		if ready {
			return true
		}
		r.pass(time.Second)
	}
	return false
}

// add adds a node, up to two.
func (r *run) add(_ *rand.Rand, _, _ int) bool {
	if r.c.Size() >= r.nodes+2 || !r.whole() {
		return false
	}
	r.read(r.c.Add(r.t))
	r.joined = time.Now()
	return true
}

// wipe takes a node's disk away. It comes back empty, at once or when all is mended.
func (r *run) wipe(rnd *rand.Rand, victim, _ int) bool {
	if !r.whole() {
		return false
	}
	r.kill(victim)
	r.c.Wipe(r.t, victim)
	r.joined = time.Now()
	if rnd.IntN(2) == 0 {
		r.restart(victim)
	}
	return true
}

// remove removes a server, the leader too, one that is dead or not; perhaps twice, perhaps another change at once. It comes
// back as a new server.
func (r *run) remove(rnd *rand.Rand, victim, other int, dead bool) bool {
	if !r.whole() {
		return false
	}
	if dead {
		r.kill(victim)
	}
	asked := r.c.Node(other)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range 1 + rnd.IntN(2) {
		r.clients.Go(func() { _ = asked.Remove(ctx, name(victim)) })
	}
	if rnd.IntN(3) == 0 && r.c.Size() < r.nodes+2 {
		r.read(r.c.Add(r.t))
	}
	gone := false
	for !gone && ctx.Err() == nil {
		r.pass(time.Second)
		asked.View(func(v fsm.View) {
			gone = !slices.ContainsFunc(v.Servers(), func(s fsm.Server) bool { return s.Name == name(victim) && !s.Removed })
		})
	}
	if !dead {
		removed := r.c.Node(victim)
		for end := time.Now().Add(30 * time.Second); gone && removed.Err() == nil; r.pass(time.Second) {
			if time.Now().After(end) {
				r.t.Fatalf("F19: node %s was removed 30 s ago, and runs", name(victim))
			}
		}
		if err := removed.Err(); gone && !errors.Is(err, cluster.ErrRemoved) {
			r.t.Fatalf("F19: a removed node ended with %v, want %v", err, cluster.ErrRemoved)
		}
		r.kill(victim)
	}
	r.c.Wipe(r.t, victim)
	r.joined = time.Now()
	return true
}

// usurp makes another node lead of which the old leader does not hear, and asks the old one for what the new one has just
// done: for a moment, until its lease is over, only its verifying itself stands between a client and a stale read.
func (r *run) usurp(_ *rand.Rand, old, next int) bool {
	if r.load.JobsMax > 0 || r.down[next] || !r.c.Node(old).IsLeader() {
		return false
	}
	for i := range r.c.Size() {
		if i != old {
			r.c.Network().Delay(name(old), name(i), 5*time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.clients.Go(func() { _ = r.c.Node(old).TransferLeadership(ctx, name(next)) }) // it never hears that it worked
	for range 400 {                                                                // the word of its election is on the way to the old leader for 5 ms
		if r.c.Node(next).IsLeader() {
			break
		}
		time.Sleep(time.Millisecond / 4)
	}
	for i := range r.c.Size() {
		if i != old {
			r.c.Network().CutOneWay(name(i), name(old))
		}
	}
	s := fleet.Submission{BodyMd: "new"}
	s.Normalize()
	for k := range 100 {
		number, id := int(r.numbers.Add(1)), fmt.Sprintf("usurped%d-%d", r.injected["usurp"], k)
		p := fsm.Proposal{Caller: root, Request: id, Command: &fsm.Submit{ProductID: product, JobID: id, Submission: s}}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		o := r.history.Propose(number, p)
		a, err := r.c.Node(next).Propose(short, p)
		cancel()
		o.Done(a, err)
		if err != nil {
			continue
		}
		q := check.Query{Product: product, Subject: check.Jobs, ID: id}
		short, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
		o = r.history.Read(number, q)
		err = r.c.Node(old).Read(short, cluster.Linearizable, 0, func(v fsm.View) { a = q.Of(v) })
		cancel()
		o.Done(a, err)
		if ctx.Err() != nil || k > 20 && err == nil {
			break
		}
	}
	return true
}
