package check_test

// This file lets nodes found a cluster while everything goes wrong: whatever happens, there is one cluster id, ever.

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// founding is one schedule under way.
type founding struct {
	t        *testing.T
	c        *testcluster.Cluster
	rnd      *rand.Rand
	down     map[int]bool
	ids      map[string]string // cluster id → the node that showed it
	progress *atomic.Int64
}

// look notes every cluster id that a node shows.
func (f *founding) look() {
	for i := range f.c.Size() {
		n := f.c.Node(i)
		if n == nil {
			continue
		}
		id := ""
		n.View(func(v fsm.View) { id = v.ClusterID() })
		if id == "" || f.ids[id] != "" {
			continue
		}
		f.ids[id] = name(i)
		if len(f.ids) > 1 {
			f.t.Fatalf("F18: two clusters were founded: %v", f.ids)
		}
	}
}

func (f *founding) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(200*time.Millisecond, time.Until(end)))
		f.progress.Add(1)
		f.look()
	}
}

func (f *founding) start(i int) {
	if f.down[i] {
		f.c.Restart(f.t, i)
		delete(f.down, i)
	}
}

func (f *founding) kill(i int) {
	if !f.down[i] {
		f.c.Kill(f.t, i)
		f.down[i] = true
	}
}

// found plays a schedule: nodes start, links break, nodes die, and all of them but one may lose their disks, before the cluster
// is founded, meanwhile and after. It is true if there must be a leader in the end: nobody's promise or vote was lost.
func (f *founding) found() (lives bool) {
	survivor := f.rnd.IntN(3) // keeps its disk
	wiped := 0
	maxWipes := f.rnd.IntN(3) // of the other two
	for i := range 3 {
		f.down[i] = true
	}
	if f.rnd.IntN(3) == 0 {
		f.c.Partition([]int{f.rnd.IntN(3)})
	}
	for _, i := range f.rnd.Perm(3) {
		f.start(i)
		if f.rnd.IntN(2) == 0 {
			f.pass(milliseconds(f.rnd, 0, 3000))
		}
	}
	for range 4 + f.rnd.IntN(8) {
		i := f.rnd.IntN(3)
		switch f.rnd.IntN(8) {
		case 0:
			f.c.Isolate(i)
		case 1:
			f.c.Network().CutOneWay(name(i), name((i+1+f.rnd.IntN(2))%3))
		case 2:
			f.c.Heal()
		case 3:
			f.kill(i)
		case 4:
			f.kill(i)
			f.start(i)
		case 5:
			f.start(i)
		case 6:
			d := milliseconds(f.rnd, 0, 300)
			f.c.Network().Disturb(name(i), name((i+1)%3), cluster.Disturbance{Delay: d, Jitter: d, Loss: 0.2 * f.rnd.Float64()})
		case 7:
			if i != survivor && wiped < maxWipes {
				wiped++
				f.kill(i)
				f.c.Wipe(f.t, i)
				if f.rnd.IntN(2) == 0 {
					f.kill(survivor) // what is empty now must not go on without it
				}
			}
		}
		f.pass(milliseconds(f.rnd, 0, 2500))
	}
	if wiped > 0 && f.rnd.IntN(2) == 0 { // without the survivor, and with all the time they need
		f.kill(survivor)
		for i := range 3 {
			if i != survivor {
				f.start(i)
			}
		}
		f.c.Heal()
		f.c.Network().Calm()
		f.pass(90 * time.Second)
	}
	f.c.Heal()
	f.c.Network().Calm()
	for i := range 3 {
		f.start(i)
	}
	return wiped == 0
}

// Three nodes are told to found a cluster, over and over, whatever happens to them and between them: they found one.
func TestOneClusterIsFounded(t *testing.T) {
	forSeeds(t, 100, func(t *testing.T, seed uint64, total *tally) {
		progress, watched := &atomic.Int64{}, make(chan struct{})
		go watchdog(seed, progress, watched)
		defer close(watched)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			rnd := rand.New(rand.NewPCG(seed, 2))
			timing := pick(rnd, []cluster.Timing{cluster.TimingLocal, cluster.TimingLAN, cluster.TimingWAN})
			f := &founding{
				t: t, rnd: rnd, down: map[int]bool{}, ids: map[string]string{}, progress: progress,
				c: testcluster.New(t, 3, func(c *cluster.Config) { c.Timing = timing }),
			}
			f.c.Network().Seed(seed)
			lives := f.found()
			for end := time.Now().Add(2 * time.Minute); lives && !f.ready(); f.pass(time.Second) {
				if time.Now().After(end) {
					t.Fatal("F18: nothing was lost, all nodes are up and reach each other, and after 2 minutes they are no cluster")
				}
			}
			f.pass(20 * time.Second)
			total.mu.Lock()
			defer total.mu.Unlock()
			total.lasted += time.Since(began)
			total.faults["founding"]++
			if len(f.ids) == 1 {
				total.faults["founded"]++
			}
		})
	})
}

// ready reports whether all three are voters of one cluster that know a leader.
func (f *founding) ready() bool {
	for i := range f.c.Size() {
		if f.c.Node(i).Ready() != nil {
			return false
		}
	}
	return len(f.ids) == 1
}
