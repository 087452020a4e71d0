package testcluster

// This file starts, breaks and mends a cluster.

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// patience bounds every wait of a test. In virtual time it costs nothing.
const patience = 60 * time.Second

// Cluster is some nodes and what is between them. Its methods are for the test's goroutine, but those that can't fail for any.
type Cluster struct {
	network *cluster.MemoryNetwork    // nil over real sockets
	roster  atomic.Pointer[[]*member] // never changed in place: some methods are for any goroutine
	ids     int                       // job ids given out
	adjust  []func(*cluster.Config)   // what is unlike the default, for nodes that come later too
}

// members are the nodes, those that are down too.
func (c *Cluster) members() []*member {
	if all := c.roster.Load(); all != nil {
		return *all
	}
	return nil
}

// member is one node, running or not, with what survives it.
type member struct {
	config cluster.Config
	node   atomic.Pointer[cluster.Node] // nil while it is down
	server *http.Server
	port   net.Listener // of server, which does not know it yet if it has only just been started
	gate   *gate
	disk   *disk
	clock  *clock
}

// up reports whether the node runs and is not paused.
func (m *member) up() bool { return m.node.Load() != nil && m.gate.is(open) && !m.ended() }

// Start starts n nodes in memory and waits until they have a leader. The test's end stops them. What is adjusted in a node's
// configuration holds for nodes that are added later too.
func Start(t testing.TB, n int, adjust ...func(*cluster.Config)) *Cluster {
	t.Helper()
	c := New(t, n, adjust...)
	c.run(t)
	return c
}

// New makes n nodes in memory that are all down, with empty disks: Restart starts one. They expect each other to form a cluster.
func New(t testing.TB, n int, adjust ...func(*cluster.Config)) *Cluster {
	t.Helper()
	c := &Cluster{network: cluster.NewMemoryNetwork(), adjust: adjust}
	c.make(t, n)
	return c
}

// make adds nodes that know of each other, and cleans up after them.
func (c *Cluster) make(t testing.TB, n int) {
	t.Helper()
	for range n {
		c.add(t, n)
	}
	join := c.join()
	for _, m := range c.members() {
		m.config.Join = join
	}
	t.Cleanup(func() {
		for i, m := range c.members() {
			if m.node.Load() != nil {
				c.Kill(t, i)
			}
		}
		if virtual() {
			time.Sleep(patience) // gossip's last probes end by their own timers, and a bubble must not end before them
		}
	})
}

// StartReal starts n nodes over loopback sockets and disks in a temporary directory, and waits until they have a leader.
// The test's end stops them.
func StartReal(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{}
	c.make(t, n)
	c.run(t)
	return c
}

// add adds a node that is down. expect is how many form a new cluster.
func (c *Cluster) add(t testing.TB, expect int) *member {
	t.Helper()
	name := fmt.Sprintf("n%d", len(c.members())+1)
	m := &member{disk: newDisk(), clock: &clock{}, config: cluster.Config{
		Name: name, NodeAddr: name + ":8401", GossipAddr: name + ":8402", HTTPAddr: name + ":8400",
		BootstrapExpect: expect, Secret: []byte(Token), Timing: cluster.TimingLocal, SegmentBytes: 1 << 20, Version: "test",
	}}
	m.config.Clock = m.clock
	if c.network == nil {
		m.config.NodeAddr, m.config.GossipAddr, m.config.HTTPAddr = freeAddr(t), freeAddr(t), freeAddr(t)
	}
	if testing.Verbose() {
		m.config.Logger = hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Info, Output: logWriter{t}})
	}
	for _, adjust := range c.adjust {
		adjust(&m.config)
	}
	all := append(slices.Clone(c.members()), m)
	c.roster.Store(&all)
	c.wipe(t, m)
	return m
}

// wipe gives a node that is down an empty disk.
func (c *Cluster) wipe(t testing.TB, m *member) {
	m.config.DataDir = filepath.Join(t.TempDir(), m.config.Name)
	if c.network == nil {
		return
	}
	m.config.Disk = m.disk
	if disk := m.sim(); disk != nil {
		_ = disk.Discard(&m.config) // never fails
	} else {
		m.config.Storage = cluster.NewMemoryStorage()
	}
}

// join is the gossip addresses of all.
func (c *Cluster) join() (addrs []string) {
	for _, m := range c.members() {
		addrs = append(addrs, m.config.GossipAddr)
	}
	return addrs
}

func (c *Cluster) run(t testing.TB) {
	t.Helper()
	for i := range c.members() {
		c.Restart(t, i)
	}
	c.Leader(t)
	c.Ready(t)
}

// Ready waits until every node that is up is ready: a voter that has caught up and knows a leader.
func (c *Cluster) Ready(t testing.TB) {
	t.Helper()
	c.Until(t, "every node is ready", func() bool {
		for _, m := range c.members() {
			if m.up() && m.node.Load().Ready() != nil {
				return false
			}
		}
		return true
	})
}

// virtual reports whether the caller is in a synctest bubble, by the year in which every bubble's clock starts.
func virtual() bool { return time.Now().Year() < 2010 }

// Node is the i-th node, nil while it is down. Any goroutine may ask.
func (c *Cluster) Node(i int) *cluster.Node { return c.members()[i].node.Load() }

// Size is how many nodes there are, those that are down too.
func (c *Cluster) Size() int { return len(c.members()) }

// Leader waits until a node leads, and returns which. A paused node doesn't count.
func (c *Cluster) Leader(t testing.TB) int {
	t.Helper()
	leader := -1
	c.Until(t, "a node leads", func() bool {
		for i, m := range c.members() {
			if m.up() && m.node.Load().IsLeader() {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// Kill stops the i-th node at once, as kill -9 does. Its disk stays.
func (c *Cluster) Kill(t testing.TB, i int) {
	t.Helper()
	m := c.members()[i]
	node := m.node.Swap(nil)
	if node == nil {
		t.Fatalf("node %s is down already", m.config.Name)
	}
	m.gate.set(gone)
	_ = m.server.Close()
	_ = m.port.Close()
	if disk := m.sim(); disk != nil { // first: a process that is killed writes nothing more
		disk.Detach()
		defer disk.Release()
	}
	node.Kill()
}

// Shutdown stops the i-th node as SIGTERM does: it hands leadership over, then finishes what is in flight.
func (c *Cluster) Shutdown(t testing.TB, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := c.members()[i]
	node := m.node.Swap(nil)
	if node == nil {
		t.Fatalf("node %s is down already", m.config.Name)
	}
	node.Drain(ctx)
	if err := m.server.Shutdown(ctx); err != nil {
		t.Fatalf("shutting the API of %s down: %v", m.config.Name, err)
	}
	if err := node.Shutdown(ctx); err != nil {
		t.Fatalf("shutting %s down: %v", m.config.Name, err)
	}
	_ = m.port.Close()
	m.gate.set(gone)
}

// Restart starts the i-th node, which is down, with what is on its disk.
func (c *Cluster) Restart(t testing.TB, i int) {
	t.Helper()
	if err := c.TryRestart(t, i); err != nil {
		t.Fatalf("starting %s: %v", c.members()[i].config.Name, err)
	}
}

// TryRestart is Restart of a node that may refuse to start: it is down then.
func (c *Cluster) TryRestart(t testing.TB, i int) error {
	t.Helper()
	m := c.members()[i]
	if m.node.Load() != nil {
		t.Fatalf("node %s is up already", m.config.Name)
	}
	m.gate = newGate()
	config := m.config
	config.Network = gatedNetwork{c.host(m.config.Name), m.gate}
	node, err := cluster.Start(config)
	if err != nil {
		return err
	}
	m.node.Store(node)
	c.serve(t, m)
	return nil
}

// host is the network as a node sees it.
func (c *Cluster) host(name string) cluster.Network {
	if c.network == nil {
		return cluster.RealNetwork()
	}
	return c.network.Host(name)
}

// Wipe gives the i-th node, which is down, an empty disk: started again it joins as a new server of the same name.
func (c *Cluster) Wipe(t testing.TB, i int) {
	t.Helper()
	if c.members()[i].node.Load() != nil {
		t.Fatalf("node %s is up: kill it first", c.members()[i].config.Name)
	}
	c.wipe(t, c.members()[i])
}

// DataDir is where the i-th node keeps what is on disk. Over real sockets that is everything.
func (c *Cluster) DataDir(i int) string { return c.members()[i].config.DataDir }

// Add starts one more node, which joins the cluster, and returns its number.
func (c *Cluster) Add(t testing.TB) int {
	t.Helper()
	c.add(t, 0).config.Join = c.join()
	c.Restart(t, len(c.members())-1)
	return len(c.members()) - 1
}

// Partition cuts every link between a node of one group and a node of another. Nodes that are in no group are a group
// together. Only in memory.
func (c *Cluster) Partition(groups ...[]int) {
	side := make([]int, len(c.members()))
	for g, group := range groups {
		for _, i := range group {
			side[i] = g + 1
		}
	}
	for i, a := range c.members() {
		for j, b := range c.members()[:i] {
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
		var up []*cluster.Node
		for _, m := range c.members() {
			if m.up() {
				up = append(up, m.node.Load())
			}
		}
		for _, what := range []func(a, b *cluster.Node) bool{sameIndex, sameHash} { // a hash takes its time
			for _, n := range up {
				if !what(up[0], n) {
					return false
				}
			}
		}
		return true
	})
}

func sameIndex(a, b *cluster.Node) bool {
	var of [2]uint64
	for i, n := range []*cluster.Node{a, b} {
		n.View(func(v fsm.View) { of[i] = v.Index() })
	}
	return of[0] == of[1]
}

func sameHash(a, b *cluster.Node) bool { return a == b || a.StateHash() == b.StateHash() }

// ports hands out ports, from elsewhere in each process.
var ports atomic.Int64

// freeAddr is an address on loopback that nobody has, for streams and packets. Its port lies below those that the system gives to
// connections: one of them would take it before the node has it.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+(int64(os.Getpid())%200*100+ports.Add(1))%20_000)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return addr
		}
	}
	t.Fatal("there are no free ports on loopback")
	return ""
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
