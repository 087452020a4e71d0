package check_test

// This file lets nodes found a cluster while everything goes wrong: whatever happens, there is one cluster id, ever.

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// found plays a schedule. It is true if there must be a leader in the end: nobody's promise or vote was lost.
func (f *founding) found(schedule func(*founding) (lives bool)) (lives bool) {
	for i := range f.c.Size() {
		f.down[i] = true
	}
	lives = schedule(f)
	f.c.Heal()
	f.c.Network().Calm()
	for i := range f.c.Size() {
		f.start(i)
	}
	return lives
}

// amiss lets nodes start, links break, nodes die, and all of them but one lose their disks, before the cluster is founded, meanwhile and
// after.
func (f *founding) amiss() (lives bool) {
	n := f.c.Size()
	survivor := f.rnd.IntN(n) // keeps its disk
	wiped := 0
	maxWipes := f.rnd.IntN(3) // of the others: who founds keeps one disk
	if f.rnd.IntN(3) == 0 {
		f.c.Partition([]int{f.rnd.IntN(n)})
	}
	for _, i := range f.rnd.Perm(n) {
		f.start(i)
		if f.rnd.IntN(2) == 0 {
			f.pass(milliseconds(f.rnd, 0, 3000))
		}
	}
	for range 4 + f.rnd.IntN(8) {
		i := f.rnd.IntN(n)
		switch f.rnd.IntN(8) {
		case 0:
			f.c.Isolate(i)
		case 1:
			f.c.Network().CutOneWay(name(i), name((i+1+f.rnd.IntN(n-1))%n))
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
			f.c.Network().Disturb(name(i), name((i+1)%n), cluster.Disturbance{Delay: d, Jitter: d, Loss: 0.2 * f.rnd.Float64()})
		case 7:
			if i != survivor && wiped < maxWipes {
				wiped++
				f.wipe(i)
				if f.rnd.IntN(2) == 0 {
					f.kill(survivor) // what is empty now must not go on without it
				}
			}
		}
		f.pass(milliseconds(f.rnd, 0, 2500))
	}
	if wiped > 0 && f.rnd.IntN(2) == 0 { // without the survivor, and with all the time they need
		f.without(survivor)
	}
	return wiped == 0
}

func (f *founding) wipe(i int) {
	f.kill(i)
	f.c.Wipe(f.t, i)
}

// without lets all but one node do what they can do, and the one come back.
func (f *founding) without(survivor int) {
	f.c.Heal()
	f.c.Network().Calm()
	aside := f.rnd.IntN(3) > 0 // else it runs, and can't be reached
	if aside {
		f.kill(survivor)
	} else {
		f.c.Isolate(survivor)
	}
	for i := range f.c.Size() {
		if i != survivor {
			f.start(i)
		}
	}
	f.pass(90 * time.Second)
}

// halves are enough nodes to found a cluster on either side of a partition. Once it is healed they found one.
func (f *founding) halves() (lives bool) {
	order := f.rnd.Perm(f.c.Size())
	f.c.Partition(order[:founders])
	for _, i := range f.rnd.Perm(f.c.Size()) {
		f.start(i)
		f.pass(milliseconds(f.rnd, 0, 1500))
	}
	f.pass(milliseconds(f.rnd, 10_000, 70_000))
	return true
}

// late are nodes that are empty because they came late; together with founders that lost their disks they are enough for a cluster.
// The one founder that did not is down.
func (f *founding) late() (lives bool) {
	for i := range f.c.Size() {
		f.start(i)
	}
	var listed []int
	f.until(func() bool { listed = f.servers(); return len(listed) > 0 })
	for i := range f.c.Size() {
		if !slices.Contains(listed, i) {
			f.kill(i)
		}
	}
	f.pass(milliseconds(f.rnd, 5000, 30_000))
	survivor := listed[f.rnd.IntN(len(listed))]
	for _, i := range listed {
		if i != survivor {
			f.wipe(i)
		}
	}
	f.without(survivor)
	return false
}

// promised is a node that has given its promise, or was about to, and is down while the others found the cluster, or must not. They lose
// their disks: only its promise says that there was one.
func (f *founding) promised() (lives bool) {
	for _, i := range f.rnd.Perm(f.c.Size()) {
		f.start(i)
	}
	given := f.rnd.IntN(3) > 0
	f.until(func() bool {
		for i := range f.c.Size() {
			if m := f.remembers(i); m.ClusterID != "" || !given && m.Mint != nil {
				return true
			}
		}
		return false
	})
	var others []int
	for i := range f.c.Size() {
		if m := f.remembers(i); m.ClusterID == "" && m.Mint == nil {
			others = append(others, i)
		}
	}
	if len(others) == 0 { // they were quick
		return true
	}
	only := others[f.rnd.IntN(len(others))]
	f.kill(only)
	f.pass(milliseconds(f.rnd, 5000, 30_000))
	for i := range f.c.Size() {
		if i != only {
			f.wipe(i)
		}
	}
	for _, i := range f.rnd.Perm(f.c.Size()) {
		f.start(i)
	}
	f.pass(90 * time.Second)
	return false
}

// memory is what a node has written down about itself.
type memory struct {
	ServerID, ClusterID, Promised, Minter string
	Mint                                  []struct{ Name string }
}

func (f *founding) remembers(i int) (m memory) {
	raw, err := os.ReadFile(filepath.Join(f.c.DataDir(i), "node.json"))
	if err == nil {
		err = json.Unmarshal(raw, &struct{ Node *memory }{&m})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// servers are those on the first list that was minted, none before that.
func (f *founding) servers() (listed []int) {
	for i := range f.c.Size() {
		for _, s := range f.remembers(i).Mint {
			for k := range f.c.Size() {
				if name(k) == s.Name {
					listed = append(listed, k)
				}
			}
		}
		if len(listed) > 0 {
			break
		}
	}
	return listed
}

func (f *founding) until(condition func() bool) {
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if f.progress.Add(1); time.Now().After(end) {
			f.t.Fatal("F18: empty nodes that reach each other have not begun to found a cluster within a minute")
		}
	}
}

// founders is how many nodes are told to found a cluster; there may be more of them than that.
const founders = 3

// schedules are how many nodes there are, and what they go through. A seed plays the one of its number.
var schedules = []struct {
	nodes    int
	schedule func(*founding) bool
}{
	{founders, (*founding).amiss},
	{2 * founders, (*founding).halves},
	{founders, (*founding).promised},
	{founders, (*founding).amiss},
	{founders + 2, (*founding).late},
	{founders + 2, (*founding).amiss},
}

// Nodes are told to found a cluster, over and over, whatever happens to them and between them: they found one.
func TestOneClusterIsFounded(t *testing.T) {
	forSeeds(t, 100, func(t *testing.T, seed uint64, total *tally) {
		progress, watched := &atomic.Int64{}, make(chan struct{})
		go watchdog(seed, progress, watched)
		defer close(watched)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			rnd := rand.New(rand.NewPCG(seed, 2))
			timing := []cluster.Timing{cluster.TimingLocal, cluster.TimingLAN, cluster.TimingWAN}[rnd.IntN(3)]
			play := schedules[seed%uint64(len(schedules))]
			f := &founding{
				t: t, rnd: rnd, down: map[int]bool{}, ids: map[string]string{}, progress: progress,
				c: testcluster.New(t, play.nodes, func(c *cluster.Config) { c.Timing, c.BootstrapExpect = timing, founders }),
			}
			f.c.Network().Seed(seed)
			lives := f.found(play.schedule)
			for end := time.Now().Add(2 * time.Minute); lives && !f.ready(); f.pass(time.Second) {
				if time.Now().After(end) {
					t.Fatal("F18: nothing was lost, all nodes are up and reach each other, and after 2 minutes they are no cluster")
				}
			}
			f.pass(20 * time.Second)
			total.mu.Lock()
			defer total.mu.Unlock()
			total.Lasted += time.Since(began)
			total.Faults["founding"]++
			if len(f.ids) == 1 {
				total.Faults["founded"]++
			}
		})
	})
}

// ready reports whether all are voters of one cluster that know a leader.
func (f *founding) ready() bool {
	for i := range f.c.Size() {
		if f.c.Node(i).Ready() != nil {
			return false
		}
	}
	return len(f.ids) == 1
}
