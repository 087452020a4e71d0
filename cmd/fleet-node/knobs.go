//go:build chaos

package main

// This file is in no build that is shipped. It gives the one that internal/chaos runs what no flag gives: small segments, a log that
// is not compacted, and links between nodes that can be cut.

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet/cluster"
)

func init() {
	adjust = func(c *cluster.Config) {
		c.SegmentBytes = int(knob("FLEET_CHAOS_SEGMENT_BYTES"))
		c.SnapshotBytes = knob("FLEET_CHAOS_SNAPSHOT_BYTES")
		links := map[string]string{} // a node's address → where this node finds it
		for _, pair := range strings.Split(os.Getenv("FLEET_CHAOS_LINKS"), ",") {
			if addr, via, ok := strings.Cut(pair, "="); ok {
				links[addr] = via
			}
		}
		c.Network = linkedNetwork{cluster.RealNetwork(), links}
	}
}

// knob is a number in the environment, zero if there is none.
func knob(name string) int64 {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	return n
}

// linkedNetwork dials other nodes by way of a proxy for each.
type linkedNetwork struct {
	cluster.Network
	links map[string]string
}

func (n linkedNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if via, ok := n.links[addr]; ok {
		addr = via
	}
	return n.Network.Dial(ctx, addr)
}
