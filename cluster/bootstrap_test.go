package cluster

// This file tests that empty nodes found exactly one cluster.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// founder is a node as far as it goes before Raft is started.
type founder struct {
	*membership
	end     context.CancelFunc
	done    chan struct{}
	cluster string              // set when done is closed
	first   *raft.Configuration // for the node that is to bootstrap
}

// found starts a node that looks for its cluster.
func found(t *testing.T, n *MemoryNetwork, dir, name string, expect int, join ...string) *founder {
	t.Helper()
	cfg, err := Config{
		Name: name, DataDir: dir, NodeAddr: name + ":8401", GossipAddr: name + ":8402", Join: join, BootstrapExpect: expect,
		Secret: []byte("s"), Timing: TimingLocal, Network: n.Host(name),
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := newTransport(&cfg, d, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGossip(&cfg, d, tr, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	f := &founder{done: make(chan struct{}), membership: &membership{
		cfg: &cfg, dir: d, transport: tr, gossip: g,
		raft: func() *raft.Raft { return nil }, view: fsm.New().View, stamp: func() (fleet.Time, bool) { return 0, false }, log: hclog.NewNullLogger(), stop: func(err error) { t.Error(err) },
	}}
	f.start()
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	go func() {
		defer close(f.done)
		f.cluster, f.first, _ = f.findCluster(ctx)
	}()
	return f
}

// crash stops the node. Its data directory stays.
func (f *founder) crash() {
	f.end()
	f.gossip.Close()
	_ = f.transport.Close()
	<-f.done
	_ = f.dir.Close()
}

// belongs reports the cluster that the node has found, empty for none yet.
func (f *founder) belongs() string {
	select {
	case <-f.done:
		return f.cluster
	default:
		return ""
	}
}

// agreed fails the test unless all have found one cluster, and at most one of them is to bootstrap it.
func agreed(t *testing.T, founders ...*founder) {
	t.Helper()
	bootstrapping := 0
	for _, f := range founders {
		if f.belongs() == "" || f.cluster != founders[0].cluster {
			t.Errorf("node %s is in cluster %q, want that of node %s, %q", f.cfg.Name, f.belongs(), founders[0].cfg.Name, founders[0].belongs())
		}
		if f.first != nil {
			bootstrapping++
		}
	}
	if bootstrapping > 1 {
		t.Errorf("%d nodes bootstrap, want at most one", bootstrapping)
	}
}

// inVirtualTime leaves time after the test's end: memberlist's probes end by their time-outs, and time stops with the test.
func inVirtualTime(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) })
		test(t)
	})
}

var three = []string{"n1:8402", "n2:8402", "n3:8402"}

func TestThreeNodesFoundOneCluster(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var all []*founder
		for i := range 3 {
			f := found(t, n, t.TempDir(), fmt.Sprintf("n%d", i+1), 3, three...)
			defer f.crash()
			all = append(all, f)
		}
		time.Sleep(10 * time.Second)
		agreed(t, all...)
		i := slices.IndexFunc(all, func(f *founder) bool { return f.first != nil })
		if i < 0 || len(all[i].first.Servers) != 3 {
			t.Fatal("nobody bootstraps with three servers")
		}
		for _, f := range all {
			if f.dir.identity().ServerID < all[i].dir.identity().ServerID {
				t.Error("the minter has not the smallest server id")
			}
		}
		for _, s := range all[i].first.Servers {
			if s.Suffrage != raft.Voter || !strings.HasSuffix(string(s.Address), ":8401") {
				t.Errorf("got %+v in the first configuration, want a voter at a node port", s)
			}
		}
	})
}

func TestSingleNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		f := found(t, NewMemoryNetwork(), t.TempDir(), "n1", 1)
		defer f.crash()
		time.Sleep(2 * time.Second)
		if f.belongs() == "" || f.first == nil || len(f.first.Servers) != 1 {
			t.Errorf("got cluster %q, configuration %+v, want a cluster of one", f.belongs(), f.first)
		}
	})
}

// Two of three, or three that miss a fourth listed address, found nothing: what is there might belong to a cluster.
func TestNoClusterWhileAListedAddressIsSilent(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		n.Host("n4")
		var all []*founder
		for i := range 3 {
			f := found(t, n, t.TempDir(), fmt.Sprintf("n%d", i+1), 3, append(three, "n4:8402")...)
			defer f.crash()
			all = append(all, f)
		}
		time.Sleep(2 * time.Minute)
		for _, f := range all {
			if own := f.dir.identity(); own.ClusterID != "" || own.Promised != "" {
				t.Errorf("node %s: got cluster %q, promised %q, want neither", f.cfg.Name, own.ClusterID, own.Promised)
			}
		}
	})
}

func TestAPromiseIsKeptAcrossARestart(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n, path := NewMemoryNetwork(), filepath.Join(t.TempDir(), "n1")
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		f := found(t, n, path, "n1", 3)
		own := f.dir.identity().ServerID
		ask := func(from *transport, cluster string) helloReply {
			t.Helper()
			reply, err := from.hello(t.Context(), "n1:8401", helloRequest{Op: opPromise, Cluster: cluster, Servers: []mintServer{{ID: own}}})
			if err != nil {
				t.Fatal(err)
			}
			return reply
		}
		if r := ask(a, "c1"); !r.Granted || r.Promised != "c1" || r.Minter != a.id {
			t.Fatalf("the first to ask: got %+v, want a promise", r)
		}
		f.crash()
		f = found(t, n, path, "n1", 3)
		defer f.crash()
		if r := ask(b, "c2"); r.Granted || !strings.Contains(r.Refused, "promised") {
			t.Errorf("another minter after a restart: got %+v, want a refusal", r)
		}
		if r, err := b.hello(t.Context(), "n1:8401", helloRequest{Op: opRelease, Cluster: "c1"}); err != nil || r.Promised != "c1" {
			t.Errorf("a release by another minter: got %+v, %v, want the promise to stand", r, err)
		}
		if r := ask(a, "c3"); !r.Granted || r.Promised != "c3" {
			t.Errorf("the same minter with another list: got %+v, want a promise", r)
		}
		if r, err := a.hello(t.Context(), "n1:8401", helloRequest{Op: opRelease, Cluster: "c3"}); err != nil || r.Promised != "" {
			t.Errorf("a release by the minter: got %+v, %v, want no promise", r, err)
		}
		if r, _ := a.hello(t.Context(), "n1:8401", helloRequest{Op: opPromise, Cluster: "c4"}); r.Granted {
			t.Error("a list without this node got its promise")
		}
	})
}

// An empty node next to a cluster never founds another, even with enough others.
func TestWipedMajorityFoundsNothingBesideASurvivor(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n, path := NewMemoryNetwork(), t.TempDir()
		d, err := openDataDir(path, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.update(func(i *identity) { i.ClusterID = "old" }); err != nil {
			t.Fatal(err)
		}
		_ = d.Close()
		survivor := found(t, n, path, "n1", 2, three...)
		defer survivor.crash()
		for i := range 2 {
			f := found(t, n, t.TempDir(), fmt.Sprintf("n%d", i+2), 2, three...)
			defer f.crash()
			defer func() {
				if got := f.dir.identity(); got.ClusterID != "" || got.Promised != "" {
					t.Errorf("node %s: got cluster %q, promised %q, want neither", f.cfg.Name, got.ClusterID, got.Promised)
				}
			}()
		}
		time.Sleep(2 * time.Minute)
	})
}

// Whatever is cut, healed and restarted meanwhile, there is one cluster in the end, and never a second.
func TestBootstrapRaces(t *testing.T) {
	schedules := 12
	if testing.Short() {
		schedules = 3
	}
	for seed := range uint64(schedules) {
		inVirtualTime(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 18))
			n := NewMemoryNetwork()
			names := []string{"n1", "n2", "n3"}
			paths := []string{t.TempDir(), t.TempDir(), t.TempDir()}
			all := make([]*founder, 3)
			clusters := map[string]bool{}
			note := func() {
				for _, f := range all {
					if f != nil && f.dir.identity().ClusterID != "" {
						clusters[f.dir.identity().ClusterID] = true
					}
				}
				if len(clusters) > 1 {
					t.Fatalf("seed %d: there are %d clusters: %v", seed, len(clusters), clusters)
				}
			}
			for range 12 {
				i := random.IntN(3)
				switch {
				case all[i] == nil:
					all[i] = found(t, n, paths[i], names[i], 3, three...)
				case random.IntN(3) == 0:
					all[i].crash()
					all[i] = nil
				}
				if random.IntN(2) == 0 {
					n.Heal()
				} else {
					n.CutOneWay(names[random.IntN(3)], names[random.IntN(3)])
					n.Cut(names[i], names[(i+1)%3])
				}
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
				note()
			}
			n.Heal()
			for i := range all {
				if all[i] == nil {
					all[i] = found(t, n, paths[i], names[i], 3, three...)
				}
			}
			time.Sleep(2 * time.Minute)
			note()
			agreed(t, all...)
			for _, f := range all {
				f.crash()
			}
		})
	}
}

func TestGossipInMemory(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var all []*founder
		for i := range 3 {
			f := found(t, n, t.TempDir(), fmt.Sprintf("n%d", i+1), 0, "n1:8402")
			defer f.crash()
			all = append(all, f)
		}
		stranger := found(t, n, t.TempDir(), "n4", 0)
		defer stranger.crash()
		time.Sleep(10 * time.Second)
		for _, f := range all {
			var got []string
			for _, m := range f.gossip.members() {
				got = append(got, m.Name+" "+m.NodeAddr)
			}
			slices.Sort(got)
			want := slices.DeleteFunc([]string{"n1 n1:8401", "n2 n2:8401", "n3 n3:8401"}, func(s string) bool { return strings.HasPrefix(s, f.cfg.Name) })
			if !slices.Equal(got, want) {
				t.Errorf("node %s sees %v, want %v", f.cfg.Name, got, want)
			}
		}
		n.Cut("n1", "n3")
		n.Cut("n2", "n3")
		time.Sleep(time.Minute)
		if got := len(all[0].gossip.members()); got != 1 {
			t.Errorf("after n3 was cut off n1 sees %d others, want 1", got)
		}
		n.Heal()
		time.Sleep(2 * time.Minute)
		if got := len(all[0].gossip.members()); got != 2 {
			t.Errorf("after healing n1 sees %d others, want 2", got)
		}
	})
}
