package testcluster

// This file is how much room a node's disk has, as a test wants it.

import "sync/atomic"

// disk is a disk's free space. It stays while its node is down.
type disk struct{ free atomic.Uint64 }

func newDisk() *disk {
	d := &disk{}
	d.free.Store(1 << 40)
	return d
}

// Free is what the test has set.
func (d *disk) Free() (uint64, error) { return d.free.Load(), nil }

// SetDiskFree sets how many bytes are free on the i-th node's disk. Only in memory: real nodes see the real disk.
func (c *Cluster) SetDiskFree(i int, bytes uint64) { c.members()[i].disk.free.Store(bytes) }
