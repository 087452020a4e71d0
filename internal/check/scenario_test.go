// Handshakes around faults are a tenth of the time, and half of that is a key exchange that nobody records here.
//
//go:debug tlsmlkem=0
package check_test

// This file runs clusters in virtual time through faults drawn from a seed, under load, and judges all that was answered.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
	"github.com/lysnrai/fleet/testcluster"
)

// scenario is what is drawn for one cluster.
type scenario struct {
	seed     uint64
	nodes    int
	clients  int
	lasts    time.Duration // virtual
	lull     time.Duration // at most, between one fault and the next
	calls    float64       // a second, of all clients together; ten times that around a fault
	faults   bool
	secret   bool // whether the nodes keep it is looked at, too
	disks    bool // simulated ones, which can fail, under the real log; else memory, which costs less
	load     *check.Load
	maxCalls int // 0: no bound
}

// run is a scenario under way.
type run struct {
	scenario
	t       *testing.T
	c       *testcluster.Cluster
	timing  cluster.Timing
	history *check.History
	log     check.Log
	burst   atomic.Bool
	stop    chan struct{}
	stopped sync.Once
	clients sync.WaitGroup
	numbers atomic.Int64 // of clients; one whose call stayed unknown goes on under another
	made    atomic.Int64

	injected map[string]int
	feeds    []*feed // one reader a node
	hash     [32]byte
	down     map[int]bool
	leaks    leaks
	joined   time.Time     // when a node was last added, or its disk taken away
	progress *atomic.Int64 // of virtual time
}

// play runs a scenario inside a bubble.
func (s scenario) play(t *testing.T, progress *atomic.Int64) *run {
	r := &run{
		scenario: s, t: t, history: check.NewHistory(), stop: make(chan struct{}), injected: map[string]int{},
		down: map[int]bool{}, progress: progress,
	}
	r.log.EntryOf = cluster.EntryOf
	rnd := rand.New(rand.NewPCG(s.seed, 0))
	switch s.seed % 20 { // mostly the one that costs least: its heartbeats are seldom
	case 3:
		r.timing, r.lasts = cluster.TimingLocal, s.lasts/3
	case 7:
		r.timing, r.lasts = cluster.TimingLAN, s.lasts/3
	default:
		r.timing = cluster.TimingWAN
	}
	adjust := []func(*cluster.Config){func(c *cluster.Config) { c.Timing = r.timing }}
	if s.disks {
		adjust = append(adjust, testcluster.SimDisks(s.seed))
	}
	if s.secret {
		adjust = append(adjust, r.leaks.listen)
	}
	r.c = testcluster.Start(t, s.nodes, adjust...)
	r.c.Network().Seed(s.seed)
	r.c.SnapshotEvery(int64(8+rnd.IntN(56)) << 10)
	r.numbers.Store(int64(s.clients))
	t.Cleanup(r.halt)
	for i := range s.nodes {
		r.read(i)
	}
	for i := range s.clients {
		r.clients.Go(func() { r.client(i, rand.New(rand.NewPCG(s.seed, uint64(i)+1))) })
	}
	for end := time.Now().Add(r.lasts); time.Now().Before(end) && !r.spent(); {
		r.pass(time.Duration(rnd.IntN(int(s.lull.Milliseconds())+1)) * time.Millisecond)
		if !s.faults {
			continue
		}
		r.burst.Store(true)
		r.pass(time.Second)
		r.fault(rnd)
		r.pass(time.Duration(rnd.IntN(2000)) * time.Millisecond)
		r.burst.Store(false)
		r.pass(time.Duration(rnd.IntN(15_000)) * time.Millisecond)
		if rnd.IntN(3) > 0 {
			r.heal()
		}
	}
	r.heal()
	r.live()
	r.halt()
	r.drain()
	r.end()
	return r
}

// read lets somebody read the i-th node's feed.
func (r *run) read(i int) {
	f := &feed{}
	r.feeds = append(r.feeds, f)
	r.clients.Go(func() { r.watch(i, f) })
}

// halt ends the clients.
func (r *run) halt() {
	r.stopped.Do(func() { close(r.stop) })
	r.clients.Wait()
}

func (r *run) spent() bool { return r.maxCalls > 0 && r.made.Load() >= int64(r.maxCalls) }

// pass lets time pass, and looks at the nodes now and then, often enough to see their logs before they are compacted.
func (r *run) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		r.progress.Add(1)
		r.bury()
		r.gather()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		step := 5 * time.Second
		if r.burst.Load() {
			step = time.Second
		}
		time.Sleep(min(left, step))
	}
}

// gather takes what is committed before it can be compacted.
func (r *run) gather() {
	for i := range r.c.Size() {
		if n := r.c.Node(i); n != nil && !r.c.HasEnded(i) {
			stores := r.c.Stores(i)
			if err := r.log.Gather(stores.Log, stores.Snapshots, index(n)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

func index(n *cluster.Node) (index uint64) {
	n.View(func(v fsm.View) { index = v.Index() })
	return index
}

// up are the nodes that are not down.
func (r *run) up() (up []int) {
	for i := range r.c.Size() {
		if !r.down[i] {
			up = append(up, i)
		}
	}
	return up
}

func (r *run) kill(i int) {
	r.c.Kill(r.t, i)
	r.down[i] = true
}

func (r *run) restart(i int) {
	r.mendDisk(i)
	r.c.Restart(r.t, i)
	delete(r.down, i)
}

// heal mends everything.
func (r *run) heal() {
	r.c.Heal()
	r.c.Network().Calm()
	if r.disks {
		for i := range r.c.Size() {
			r.mendDisk(i)
		}
		r.pass(time.Second) // a node that has met an error ends
	}
	for i := range r.c.Size() {
		r.c.SetClock(i, 0, 0)
		if r.down[i] {
			r.restart(i)
		}
	}
}

// joining is how much longer it may take until all nodes are where the leader is: one may have to be let in first.
func (r *run) joining() time.Duration {
	if !r.joined.IsZero() && time.Since(r.joined) < 3*time.Minute {
		return time.Minute
	}
	return 0
}

// live is I15: after healing there is a leader within 3 s, and all nodes have what it had then within 10 s.
func (r *run) live() {
	within := func(d time.Duration, what string, condition func() bool) {
		for end := time.Now().Add(d); !condition(); time.Sleep(5 * time.Millisecond) {
			if r.progress.Add(1); time.Now().After(end) {
				r.t.Fatalf("I15: waited %s in vain until %s", d, what)
			}
		}
	}
	leader := -1
	soon := 3 * time.Second
	if r.timing == cluster.TimingWAN {
		soon *= 4 // so are its time-outs
	}
	within(soon, "a node leads", func() bool {
		for i := range r.c.Size() {
			if r.c.Node(i).IsLeader() {
				leader = i
			}
		}
		return leader >= 0
	})
	target := index(r.c.Node(leader))
	within(7*time.Second+soon+r.joining(), "all nodes are where the leader was", func() bool {
		for i := range r.c.Size() {
			if index(r.c.Node(i)) < target {
				return false
			}
		}
		return true
	})
}

// drain is the rest of I15, with nobody else calling: a factory that can do all is given every claimable job within 5 s.
func (r *run) drain() {
	began, number := time.Now(), int(r.numbers.Add(1))
	rnd := rand.New(rand.NewPCG(r.seed, 1<<32))
	can, seats := fleet.Strings(check.Capabilities), int64(10_000)
	r.call(number, rnd, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "drain", Command: &fsm.Heartbeat{
		ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f0", Capabilities: &can, SeatLimit: &seats, Health: fleet.HealthOK},
	}}})
	for n := 0; ; n++ {
		a := r.call(number, rnd, check.Move{Proposal: fsm.Proposal{
			Caller: root, Request: fmt.Sprintf("drain %d", n), Command: &fsm.Claim{ProductID: product, FactoryID: "f0", LeaseSeconds: 3600},
		}})
		c, ok := a.Result.(*fleet.Claim)
		if !ok {
			r.t.Fatalf("I15: claim %d of a healed cluster: got %v, want a job or none", n+1, a.Err)
		}
		if c.Job == nil {
			return
		}
		if time.Since(began) > 5*time.Second {
			r.t.Fatalf("I15: %d jobs were claimed in %s, and not all", n+1, time.Since(began))
		}
	}
}

// cut gathers the log and takes the hash of the state to which all nodes came by it. A deadline may bring an entry in this very
// instant: then the two are not of one index, and it tries again.
func (r *run) cut() {
	for {
		r.c.Converged(r.t)
		r.gather()
		n := r.c.Node(0)
		before := index(n)
		r.hash = n.StateHash()
		if before == r.log.Last() && index(n) == before {
			return
		}
	}
}

// end waits until all nodes hold one state, and looks at it.
func (r *run) end() {
	time.Sleep(12 * time.Second) // what clients gave up is over
	r.progress.Add(1)
	r.c.Ready(r.t)
	r.cut()
	for i := range r.c.Size() {
		n, stores := r.c.Node(i), r.c.Stores(i)
		if err := r.log.Agrees(stores.Log, stores.Snapshots, index(n)); err != nil {
			r.t.Fatalf("node %d: %v", i+1, err)
		}
		n.View(func(v fsm.View) {
			if err := check.State(v, product); err != nil {
				r.t.Fatalf("node %d: %v", i+1, err)
			}
			events, _, _ := v.Feed(product, 0, 10_000_000)
			r.history.Saw(events...)
			if err := r.feeds[i].whole(events); err != nil {
				r.t.Fatalf("node %d: %v", i+1, err)
			}
		})
	}
	if r.secret {
		r.leaks.search(r.t, r.c.Node(0))
	}
}

var root = fsm.Caller{Actor: fsm.ActorRoot}

// feed is what one reader was shown by one node, which may have been down and back.
type feed struct {
	events []*fleet.Event
}

// watch reads a node's feed from where it was, every three seconds.
func (r *run) watch(i int, f *feed) {
	for {
		select {
		case <-r.stop:
			return
		case <-time.After(3 * time.Second):
		}
		n := r.c.Node(i)
		if n == nil {
			continue
		}
		after := uint64(0)
		if len(f.events) > 0 {
			after = f.events[len(f.events)-1].Index
		}
		n.View(func(v fsm.View) {
			events, _, _ := v.Feed(product, after, 10_000)
			f.events = append(f.events, events...)
			r.history.Saw(events...)
		})
	}
}

// whole is I7 for a reader that resumes: it missed nothing and was shown nothing twice.
func (f *feed) whole(all []*fleet.Event) error {
	if len(f.events) > len(all) {
		return fmt.Errorf("I7: a reader was shown %d events, there are %d", len(f.events), len(all))
	}
	for i, e := range f.events {
		if *e != *all[i] {
			return fmt.Errorf("I7: a reader was shown %+v, the feed has %+v there", *e, *all[i])
		}
	}
	return nil
}

// client calls until the run stops.
func (r *run) client(i int, rnd *rand.Rand) {
	number := i
	for {
		mean := float64(r.scenario.clients) / r.calls
		if r.burst.Load() {
			mean /= 10
		}
		select {
		case <-r.stop:
			return
		case <-time.After(time.Duration(rnd.ExpFloat64() * mean * float64(time.Second))):
		}
		if r.spent() {
			continue
		}
		r.made.Add(1)
		c := r.load.Next(rnd, i)
		a := r.call(number, rnd, c)
		r.load.Learn(a)
		if a.Err == nil && a.Result == nil {
			number = int(r.numbers.Add(1))
		}
	}
}

// call makes one call, with its retries. The answer is empty if it was given up.
func (r *run) call(number int, rnd *rand.Rand, c check.Move) fsm.Answer {
	read := c.Proposal.Command == nil
	var o *check.Operation
	if read {
		o = r.history.Read(number, c.Query)
	} else {
		o = r.history.Propose(number, c.Proposal)
	}
	for try := 0; ; try++ {
		a, err := r.try(rnd, c)
		again := err != nil && try < 6 && (read || c.Proposal.Key != "" || errors.Is(err, fleet.NoLeader))
		if again {
			o.Retry(err)
			time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			continue
		}
		o.Done(a, err)
		if err == nil && a.Err == nil && c.Proposal.Key != "" && memorable(a.Result) && rnd.IntN(10) == 0 {
			if again, err := r.try(rnd, c); err == nil {
				o.Repeated(again)
			}
		}
		return a
	}
}

// memorable reports whether an answer is remembered under its key: finding nothing is not.
func memorable(r fsm.Result) bool {
	switch r := r.(type) {
	case *fleet.Claim:
		return r.Job != nil
	case *fleet.Claims:
		return len(r.Claims) > 0
	}
	return true
}

// try sends a call to one node.
func (r *run) try(rnd *rand.Rand, c check.Move) (a fsm.Answer, err error) {
	n := r.c.Node(rnd.IntN(r.c.Size()))
	if n == nil {
		return a, fleet.Errorf(fleet.NoLeader, "the node is down: nobody answers")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch c.Proposal.Command.(type) {
	case nil:
		err = n.Read(ctx, cluster.Linearizable, 0, func(v fsm.View) { a = c.Query.Of(v) })
	case *fsm.Claim, *fsm.ClaimBatch:
		a, err = n.Claim(ctx, c.Proposal, time.Duration(max(0, rnd.IntN(6)-3))*time.Second)
	default:
		a, err = n.Propose(ctx, c.Proposal)
	}
	return a, err
}

// judge runs a scenario and checks everything.
func (s scenario) judge(t *testing.T, total *tally) {
	var r *run
	var lasted time.Duration
	began := time.Now()
	progress, watched := &atomic.Int64{}, make(chan struct{})
	go watchdog(s.seed, progress, watched)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r = s.play(t, progress)
		lasted = time.Since(start)
	})
	close(watched)
	if t.Failed() {
		return
	}
	played := time.Now()
	replay, err := r.log.Replay(r.history, check.Judges()...)
	if err != nil {
		t.Fatal(err)
	}
	if replay.Machine.Hash() != r.hash {
		t.Fatal("I8: the nodes hold another state than the replay of their log")
	}
	if err := replay.Witness(r.history); err != nil {
		t.Fatal(err)
	}
	all, unknown, nothing := r.history.Counts()
	replayed := time.Now()
	replay.Settle(r.history)
	if s.load.JobsMax > 0 {
		err = r.history.CheckProduct(product, 20*time.Second)
	} else {
		err = r.history.CheckJobs(product, 20*time.Second)
	}
	if err != nil {
		t.Fatal(err)
	}
	total.mu.Lock()
	defer total.mu.Unlock()
	total.Lasted += lasted
	total.Calls += all
	total.Unknown += unknown
	total.Nothing += nothing
	total.Entries += r.log.Last()
	for kind, n := range r.injected {
		total.Faults[kind] += n
	}
	total.Playing += played.Sub(began)
	total.Replaying += replayed.Sub(played)
	total.Judging += time.Since(replayed)
}

// Nothing is lost and nobody fenced wrongly, whatever happens to the nodes and to what is between them.
func TestClusterKeepsItsPromisesUnderFaults(t *testing.T) {
	forSeeds(t, usualHours, func(t *testing.T, seed uint64, total *tally) {
		scenario{
			seed: seed, nodes: 3 + int(seed%10/9)*2, clients: 4 + int(seed%5), lasts: time.Hour, lull: 90 * time.Second, calls: 0.75, faults: true, disks: seed%4 == 1, secret: seed == 1,
			load: newLoad(),
		}.judge(t, total)
	})
}

// What spans jobs, order, seats and deps, is as if calls happened one after the other.
func TestProductIsLinearizableUnderFaults(t *testing.T) {
	forSeeds(t, 8, func(t *testing.T, seed uint64, total *tally) {
		l := newLoad()
		l.Plain, l.JobsMax = true, 6
		scenario{seed: seed, nodes: 3, clients: 4, lasts: time.Hour, lull: 20 * time.Second, calls: 1, faults: true, load: l, maxCalls: 130}.judge(t, total)
	})
}
