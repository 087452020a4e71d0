package cluster

// This file tests how servers come, move, come back wiped, and go.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// member starts a whole node in memory and stops it when the test ends.
func member(t testing.TB, n *MemoryNetwork, cfg Config) *Node {
	t.Helper()
	name := cfg.Name
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Storage == nil {
		cfg.Storage = NewMemoryStorage()
	}
	if cfg.Timing == "" {
		cfg.Timing = TimingLocal
	}
	cfg.HTTPAddr, cfg.GossipAddr, cfg.Secret, cfg.Network = name+":8400", name+":8402", []byte("s"), n.Host(name)
	if cfg.NodeAddr == "" {
		cfg.NodeAddr = name + ":8401"
	}
	node, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Kill)
	return node
}

// threeMembers is a cluster of three that is ready, the leader first.
func threeMembers(t testing.TB, n *MemoryNetwork, adjust ...func(*Config)) []*Node {
	t.Helper()
	var nodes []*Node
	for i := range 3 {
		cfg := Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three}
		for _, change := range adjust {
			change(&cfg)
		}
		nodes = append(nodes, member(t, n, cfg))
	}
	eventually(t, "all three are known", func() bool { return len(known(nodes[0])) == 3 && leaderOf(nodes) != nil })
	leader := leaderOf(nodes)
	for i, node := range nodes {
		if node == leader {
			nodes[0], nodes[i] = nodes[i], nodes[0]
		}
	}
	return nodes
}

func leaderOf(nodes []*Node) *Node {
	for _, n := range nodes {
		if n.IsLeader() {
			return n
		}
	}
	return nil
}

// known is the name and server id of the servers that were not removed, as this node knows them.
func known(n *Node) map[string]string {
	names := map[string]string{}
	n.machine.View(func(v fsm.View) {
		for _, s := range v.Servers() {
			if !s.Removed {
				names[s.Name] = s.ID
			}
		}
	})
	return names
}

func votes(leader *Node, id string) bool {
	for _, s := range leader.configuration() {
		if string(s.ID) == id && s.Suffrage == raft.Voter {
			return true
		}
	}
	return false
}

func TestNewServerJoinsAndVotes(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		n4 := member(t, n, Config{Name: "n4", Join: three})
		eventually(t, "n4 votes", func() bool { return votes(nodes[0], n4.id) })
		eventually(t, "n4 is ready", func() bool { return n4.Ready() == nil })
		if got := known(n4)["n4"]; got != n4.id {
			t.Errorf("n4 is known as %q, want %q", got, n4.id)
		}
	})
}

func TestWipedServerReplacesItself(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		old := nodes[2]
		old.Kill()
		again := member(t, n, Config{Name: old.Name(), BootstrapExpect: 3, Join: three})
		if again.id == old.id {
			t.Fatal("a wiped server came back under its old raft id")
		}
		eventually(t, "the new one votes", func() bool { return votes(nodes[0], again.id) && len(nodes[0].configuration()) == 3 })
		if votes(nodes[0], old.id) || known(nodes[0])[old.Name()] != again.id {
			t.Errorf("the old server %s is still there: %v", old.id, known(nodes[0]))
		}
	})
}

func TestTwoServersWithOneNameAreRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		taken := nodes[2]
		cfg := Config{
			Name: taken.Name(), DataDir: t.TempDir(), Join: three, NodeAddr: "x:8401", GossipAddr: "x:8402", Secret: []byte("s"),
			Timing: TimingLocal, Network: n.Host("x"), Storage: NewMemoryStorage(),
		}
		second, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Kill()
		time.Sleep(30 * time.Second)
		if known(nodes[0])[taken.Name()] != taken.id || !votes(nodes[0], taken.id) || second.dir.identity().ClusterID != "" {
			t.Errorf("the newcomer got the name %s of a server that lives", taken.Name())
		}
	})
}

func TestRemovedServerStopsForEver(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		gone := nodes[2]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := nodes[1].Remove(ctx, "nobody"); !errors.Is(err, fleet.NotFound) {
			t.Errorf("removing a server that is not there: got %v, want %v", err, fleet.NotFound)
		}
		if err := nodes[1].Remove(ctx, gone.Name()); err != nil {
			t.Fatal(err)
		}
		<-gone.Done()
		if !errors.Is(gone.Err(), ErrRemoved) {
			t.Errorf("the removed server ended with %v, want %v", gone.Err(), ErrRemoved)
		}
		if _, err := Start(gone.cfg); !errors.Is(err, ErrRemoved) {
			t.Errorf("started again: got %v, want %v", err, ErrRemoved)
		}
	})
}

func TestLeaderIsRemovedAndTheLastVoterIsNot(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := nodes[0].Remove(ctx, nodes[0].Name()); err != nil {
			t.Fatalf("removing the leader: %v", err)
		}
		<-nodes[0].Done()
		if err := nodes[1].Remove(ctx, nodes[2].Name()); err != nil {
			t.Fatal(err)
		}
		<-nodes[2].Done()
		if err := nodes[1].Remove(ctx, nodes[1].Name()); !errors.Is(err, fleet.LastVoter) {
			t.Errorf("removing the last voter: got %v, want %v", err, fleet.LastVoter)
		}
	})
}

// A removal whose answer was lost is asked for again, and what it finds done is done.
func TestRemovalWhoseAnswerIsLost(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		leader, asked, gone := nodes[0], nodes[1], nodes[2]
		fourth := member(t, n, Config{Name: "n4", BootstrapExpect: 3, Join: three})
		eventually(t, "the fourth votes", func() bool { return votes(leader, fourth.id) })
		submitTo(t, asked, "a") // it has a connection to the leader
		n.CutOneWay(leader.Name(), asked.Name())
		removed := make(chan error, 1)
		go func() { removed <- asked.Remove(t.Context(), gone.Name()) }()
		eventually(t, "it is removed", func() bool { return !votes(leader, gone.id) && !votes(fourth, gone.id) })
		leader.Kill() // with the answer
		if err := <-removed; err != nil {
			t.Errorf("got %v: it is removed", err)
		}
	})
}

func TestServerThatMovedIsReaddressed(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		moved := nodes[2]
		moved.Kill()
		cfg := moved.cfg
		cfg.NodeAddr = cfg.Name + ":9401"
		again, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Kill()
		eventually(t, "the configuration has the new address", func() bool {
			return nodes[0].membership.configured(raft.ServerID(again.id)) == raft.ServerAddress(cfg.NodeAddr)
		})
		eventually(t, "it is ready", func() bool { return again.Ready() == nil })
	})
}

// A copy of a data directory that is started elsewhere stops, and the cluster goes on with the original.
func TestCopiedDataDirectoryIsRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		original := nodes[2]
		copied := t.TempDir()
		raw, err := os.ReadFile(original.dir.file())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, "node.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := original.cfg
		cfg.DataDir, cfg.NodeAddr, cfg.GossipAddr, cfg.Network = copied, "x:8401", "x:8402", n.Host("x") // its log is the original's
		second, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Kill()
		eventually(t, "the copy has stopped", func() bool {
			select {
			case <-second.Done():
				return true
			default:
				return false
			}
		})
		if second.Err() == nil || !strings.Contains(second.Err().Error(), "copy") {
			t.Errorf("the copy ended with %v, want to be told that it is one", second.Err())
		}
		if got := nodes[0].membership.configured(raft.ServerID(original.id)); string(got) != original.transport.advertised() {
			t.Errorf("the configuration has the original at %s, want %s", got, original.transport.advertised())
		}
	})
}
