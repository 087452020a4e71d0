package testcluster

// This file starts, breaks and mends a cluster.

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// patience bounds every wait of a test. In virtual time it costs nothing.
const patience = 60 * time.Second

// Cluster is some nodes and what is between them. Its methods are for the test's goroutine.
type Cluster struct {
	network *cluster.MemoryNetwork // nil over real sockets
	members []*member
	ids     int // job ids given out
}

// member is one node, running or not, with what survives it.
type member struct {
	config cluster.Config
	node   *cluster.Node // nil while it is down
}

// Start starts n nodes in memory and waits until they have a leader. The test's end stops them.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{network: cluster.NewMemoryNetwork()}
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.add(t, cluster.Config{
			Name: name, NodeAddr: name + ":8401", GossipAddr: name + ":8402",
			Network: c.network.Host(name), Storage: cluster.NewMemoryStorage(),
		}, n)
	}
	c.run(t)
	return c
}

// StartReal starts n nodes over loopback sockets and disks in a temporary directory, and waits until they have a leader.
// The test's end stops them.
func StartReal(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range n {
		c.add(t, cluster.Config{Name: fmt.Sprintf("n%d", i+1), NodeAddr: freeAddr(t), GossipAddr: freeAddr(t), SegmentBytes: 1 << 20}, n)
	}
	c.run(t)
	return c
}

func (c *Cluster) add(t testing.TB, config cluster.Config, expect int) {
	config.DataDir = filepath.Join(t.TempDir(), config.Name)
	config.HTTPAddr = config.Name + ":8400"
	config.BootstrapExpect = expect
	config.Secret = []byte("a secret of this test")
	config.Timing = cluster.TimingLocal
	config.Version = "test"
	if testing.Verbose() {
		config.Logger = hclog.New(&hclog.LoggerOptions{Name: config.Name, Level: hclog.Info, Output: logWriter{t}})
	}
	c.members = append(c.members, &member{config: config})
}

func (c *Cluster) run(t testing.TB) {
	t.Helper()
	var join []string
	for _, m := range c.members {
		join = append(join, m.config.GossipAddr)
	}
	for i, m := range c.members {
		m.config.Join = join
		c.Restart(t, i)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			if m.node != nil {
				m.node.Kill()
			}
		}
		if virtual() {
			time.Sleep(patience) // gossip's last probes end by their own timers, and a bubble must not end before them
		}
	})
	c.Leader(t)
	c.Until(t, "every node is ready", func() bool {
		for _, m := range c.members {
			if m.node.Ready() != nil {
				return false
			}
		}
		return true
	})
}

// virtual reports whether the caller is in a synctest bubble, by the year in which every bubble's clock starts.
func virtual() bool { return time.Now().Year() < 2010 }

// Node is the i-th node, nil while it is down.
func (c *Cluster) Node(i int) *cluster.Node { return c.members[i].node }

// Size is how many nodes there are, those that are down too.
func (c *Cluster) Size() int { return len(c.members) }

// Leader waits until a node leads, and returns which.
func (c *Cluster) Leader(t testing.TB) int {
	t.Helper()
	leader := -1
	c.Until(t, "a node leads", func() bool {
		for i, m := range c.members {
			if m.node != nil && m.node.IsLeader() {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// Kill stops the i-th node at once. Its disk stays.
func (c *Cluster) Kill(t testing.TB, i int) {
	t.Helper()
	m := c.members[i]
	if m.node == nil {
		t.Fatalf("node %s is down already", m.config.Name)
	}
	m.node.Kill()
	m.node = nil
}

// Shutdown stops the i-th node as SIGTERM does: it hands leadership over first.
func (c *Cluster) Shutdown(t testing.TB, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.members[i].node.Shutdown(ctx); err != nil {
		t.Fatalf("shutting %s down: %v", c.members[i].config.Name, err)
	}
	c.members[i].node = nil
}

// Restart starts the i-th node with what is on its disk.
func (c *Cluster) Restart(t testing.TB, i int) {
	t.Helper()
	m := c.members[i]
	node, err := cluster.Start(m.config)
	if err != nil {
		t.Fatalf("starting %s: %v", m.config.Name, err)
	}
	m.node = node
}

// Partition cuts every link between a node of one group and a node of another. Nodes that are in no group are a group
// together. Only in memory.
func (c *Cluster) Partition(groups ...[]int) {
	side := make([]int, len(c.members))
	for g, group := range groups {
		for _, i := range group {
			side[i] = g + 1
		}
	}
	for i, a := range c.members {
		for j, b := range c.members[:i] {
			if side[i] != side[j] {
				c.network.Cut(a.config.Name, b.config.Name)
			}
		}
	}
}

// Isolate cuts the i-th node off from all others.
func (c *Cluster) Isolate(i int) { c.Partition([]int{i}) }

// Heal mends every link.
func (c *Cluster) Heal() { c.network.Heal() }

// Until waits until a condition holds, or fails the test with what it waited for.
func (c *Cluster) Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Converged waits until all running nodes have applied the same index and hold the same state.
func (c *Cluster) Converged(t testing.TB) {
	t.Helper()
	c.Until(t, "all nodes hold the same state", func() bool {
		var index uint64
		var hash [32]byte
		first := true
		for _, m := range c.members {
			if m.node == nil {
				continue
			}
			var i uint64
			m.node.View(func(v fsm.View) { i = v.Index() })
			h := m.node.StateHash()
			if !first && (i != index || h != hash) {
				return false
			}
			index, hash, first = i, h, false
		}
		return true
	})
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
