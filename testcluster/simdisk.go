package testcluster

// This file breaks the nodes' disks: power cuts, errors, hangs and slowness. All of it needs SimDisks.

import (
	"hash/fnv"
	"testing"
	"time"

	"github.com/lysnrai/fleet/cluster"
)

// SimDisks, given to Start, puts each node on a disk that knows what was synced, under the real log, with small segments. It costs more time
// than the memory that nodes have without it. The same seed leaves the same after the same power cut.
func SimDisks(seed uint64) func(*cluster.Config) {
	return func(c *cluster.Config) {
		name := fnv.New64a()
		_, _ = name.Write([]byte(c.Name))
		c.Storage, c.SegmentBytes = cluster.NewSimDisk(seed^name.Sum64()), 64<<10
	}
}

// Disk is the i-th node's simulated disk, nil if it has none. Any goroutine may ask.
func (c *Cluster) Disk(i int) *cluster.SimDisk { return c.members()[i].sim() }

func (m *member) sim() *cluster.SimDisk {
	disk, _ := m.config.Storage.(*cluster.SimDisk)
	return disk
}

func (c *Cluster) mustDisk(t testing.TB, i int) *cluster.SimDisk {
	t.Helper()
	disk := c.Disk(i)
	if disk == nil {
		t.Fatalf("node %s has no simulated disk: start the cluster with SimDisks", c.members()[i].config.Name)
	}
	return disk
}

// PowerCut takes the power from some nodes at the same moment: they are down, and what they had not synced is lost or garbled. Those that are
// down already lose what a kill had left them.
func (c *Cluster) PowerCut(t testing.TB, which ...int) {
	t.Helper()
	for _, i := range which {
		c.mustDisk(t, i).PowerCut()
	}
	for _, i := range which {
		if c.Node(i) != nil {
			c.Kill(t, i)
		}
	}
}

// FailDisk makes the n-th durable operation of the i-th node's disk from now on fail with an error, such as syscall.EIO. The node ends by
// itself when it meets it; see Ended. Zero takes it back.
func (c *Cluster) FailDisk(t testing.TB, i, n int, with error) {
	t.Helper()
	c.mustDisk(t, i).FailAt(n, with)
}

// HangDisk makes every write of the i-th node wait until ResumeDisk, or until the node is killed. After 10 s of it the node ends by itself.
func (c *Cluster) HangDisk(t testing.TB, i int) {
	t.Helper()
	c.mustDisk(t, i).Hang()
}

// ResumeDisk ends HangDisk.
func (c *Cluster) ResumeDisk(t testing.TB, i int) {
	t.Helper()
	c.mustDisk(t, i).Resume()
}

// SlowDisk makes every write of the i-th node take from least to most. Zero makes it quick again.
func (c *Cluster) SlowDisk(t testing.TB, i int, least, most time.Duration) {
	t.Helper()
	c.mustDisk(t, i).Slow(least, most)
}

// HasEnded reports whether the i-th node has ended by itself, and is not down yet as far as Restart knows.
func (c *Cluster) HasEnded(i int) bool {
	m := c.members()[i]
	return m.node.Load() != nil && m.ended()
}

// Ended waits until the i-th node ends by itself, takes it down as its process's end would, and returns why it ended.
func (c *Cluster) Ended(t testing.TB, i int) error {
	t.Helper()
	c.Until(t, "the node ends", func() bool { return c.HasEnded(i) })
	err := c.Node(i).Err()
	c.Kill(t, i)
	return err
}

// ended reports whether a node that was started has ended by itself.
func (m *member) ended() bool {
	node := m.node.Load()
	if node == nil {
		return false
	}
	select {
	case <-node.Done():
		return true
	default:
		return false
	}
}
