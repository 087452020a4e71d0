package testcluster

// This file shows a checker what is under a cluster in memory: its logs and its network.

import (
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/cluster"
)

// Log is the log on the i-th node's disk, also while the node is down. Only in memory; only to be read.
func (c *Cluster) Log(i int) raft.LogStore { return c.Stores(i).Log }

// Stores are the log and the snapshots on the i-th node's disk, also while the node is down. Only in memory; only to be read.
func (c *Cluster) Stores(i int) cluster.Stores {
	config := c.members()[i].config
	open := config.Storage.Open
	if disk := c.Disk(i); disk != nil {
		open = func(*cluster.Config) (cluster.Stores, error) { return disk.Stores() }
	}
	stores, err := open(&config)
	if err != nil {
		panic(err) // it was opened before, or is in memory
	}
	return stores
}

// Network is what is between the nodes, for faults that have no method here: one-way cuts, delays. Only in memory.
func (c *Cluster) Network() *cluster.MemoryNetwork { return c.network }

// SnapshotEvery makes nodes write a snapshot after this many bytes of log, each from its next start on.
func (c *Cluster) SnapshotEvery(bytes int64) {
	for _, m := range c.members() {
		m.config.SnapshotBytes = bytes
	}
}
