package testcluster

// This file is releases: nodes that know only an older level, as before an upgrade.

import "testing"

// StartAtLevel is Start with nodes of a release that knows no newer level than this one.
func StartAtLevel(t testing.TB, n, level int) *Cluster {
	t.Helper()
	c := New(t, n)
	for i := range n {
		c.Release(t, i, level)
	}
	c.run(t)
	return c
}

// Release gives the i-th node, which is down, the release that knows this level and no newer one. Zero is this build.
func (c *Cluster) Release(t testing.TB, i, level int) {
	t.Helper()
	m := c.members()[i]
	if m.node.Load() != nil {
		t.Fatalf("node %s is up: shut it down first", m.config.Name)
	}
	m.config.MaxLevel = level
}
