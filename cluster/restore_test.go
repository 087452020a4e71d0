package cluster

// This file tests that a backup replaces the state of a whole cluster or of none, whoever dies on the way.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func submitTo(t *testing.T, n *Node, id string) {
	t.Helper()
	s := fleet.Submission{BodyMd: "b"}
	s.Normalize()
	a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Submit{ProductID: "p", JobID: id, Submission: s}})
	if err != nil || a.Err != nil {
		t.Fatalf("submitting %s: %v, %v", id, err, a.Err)
	}
}

func backupOf(t *testing.T, n *Node) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := n.WriteSnapshot(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// has reports which of the jobs a linearizable read through a node finds; an error is none.
func has(n *Node, ids ...string) (found string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = n.Read(ctx, Linearizable, 0, func(v fsm.View) {
		for _, id := range ids {
			if _, ok := v.Job("p", id); ok {
				found += id
			}
		}
	})
	return found
}

// clean reports whether a node has neither a mark nor a spool left.
func clean(t *testing.T, n *Node) bool {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(n.cfg.DataDir, "restore-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(left) == 0
}

func TestRestoreThroughAnyNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		submitTo(t, nodes[0], "a")
		backup := backupOf(t, nodes[1])
		for i, through := range nodes {
			submitTo(t, through, fmt.Sprint("lost", i))
			index := through.machine.Index()
			got, err := through.Restore(t.Context(), bytes.NewReader(backup), 0)
			if err != nil {
				t.Fatalf("restoring through %s: %v", through.Name(), err)
			}
			if got.Generation != uint64(i+1) || got.Index <= index || got.Tokens == nil {
				t.Errorf("through %s: got %+v, want generation %d and an index over %d", through.Name(), got, i+1, index)
			}
			for _, n := range nodes {
				eventually(t, "all have what was restored", func() bool { return has(n, "a", fmt.Sprint("lost", i)) == "a" && clean(t, n) })
			}
			submitTo(t, through, fmt.Sprint("after", i))
			if len(known(through)) != 3 {
				t.Errorf("the cluster forgot its servers: %v", known(through))
			}
		}
		eventually(t, "all nodes hold the same state", func() bool {
			return nodes[0].StateHash() == nodes[1].StateHash() && nodes[1].StateHash() == nodes[2].StateHash()
		})
	})
}

func TestBadBackupChangesNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		submitTo(t, nodes[0], "a")
		backup := backupOf(t, nodes[0])
		flipped := bytes.Clone(backup)
		flipped[len(flipped)/2] ^= 1
		newer := bytes.Clone(backup)
		newer[8]++
		submitTo(t, nodes[0], "b")
		for what, b := range map[string][]byte{"cut": backup[:len(backup)-1], "flipped": flipped, "newer": newer, "empty": nil, "text": []byte("hello")} {
			for _, n := range nodes[:2] {
				if _, err := n.Restore(t.Context(), bytes.NewReader(b), 0); !errors.Is(err, fleet.InvalidSnapshot) {
					t.Errorf("%s, through %s: got %v, want %s", what, n.Name(), err, fleet.InvalidSnapshot)
				}
				if got := has(n, "a", "b"); got != "ab" || !clean(t, n) {
					t.Errorf("%s, through %s: afterwards there are %q, clean %t", what, n.Name(), got, clean(t, n))
				}
			}
		}
	})
}

// Two restores at once, through different nodes and under load: each is whole, one after the other, and what was acknowledged after the
// second is there.
func TestRestoresUnderLoad(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		submitTo(t, nodes[0], "a")
		backup := backupOf(t, nodes[0])
		ctx, cancel := context.WithCancel(t.Context())
		var load, restores sync.WaitGroup
		for i, n := range nodes {
			load.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					time.Sleep(5 * time.Millisecond) // no time passes while anybody is busy
					s := fleet.Submission{BodyMd: "b"}
					s.Normalize()
					command := &fsm.Submit{ProductID: "p", JobID: fmt.Sprintf("load%d-%d", i, k), Submission: s}
					a, err := n.Propose(ctx, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: command})
					if ctx.Err() == nil && (a.Err != nil || err != nil && !errors.Is(err, fleet.NoLeader) && !errors.Is(err, fleet.OutcomeUnknown)) {
						t.Errorf("a write during a restore: %v, %v", err, a.Err)
					}
				}
			})
		}
		generations := make([]uint64, 2)
		for i, n := range nodes[:2] {
			restores.Go(func() {
				r, err := n.Restore(ctx, bytes.NewReader(backup), 0)
				if err != nil {
					t.Errorf("restoring through %s: %v", n.Name(), err)
					return
				}
				generations[i] = r.Generation
			})
		}
		restores.Wait()
		submitTo(t, nodes[2], "after")
		cancel()
		load.Wait()
		if generations[0]+generations[1] != 3 {
			t.Errorf("got generations %v, want 1 and 2", generations)
		}
		for _, n := range nodes {
			eventually(t, "all have what was restored, and what came after", func() bool { return has(n, "a", "after") == "aafter" && clean(t, n) })
		}
		eventually(t, "all nodes hold the same state", func() bool {
			return nodes[0].StateHash() == nodes[1].StateHash() && nodes[1].StateHash() == nodes[2].StateHash()
		})
	})
}

// A leader that is cut off between its own restore and the others' serves nothing of it, and ends; its next start throws its state away.
func TestLeaderIsCutOffWhileItRestores(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes := threeMembers(t, network)
		leader := nodes[0]
		submitTo(t, leader, "a")
		backup := backupOf(t, leader)
		submitTo(t, leader, "b")
		eventually(t, "all have job b", func() bool { return has(nodes[1], "b") == "b" && has(nodes[2], "b") == "b" })
		snapshots, _ := leader.stores.Snapshots.(*usableSnapshots)
		mark := snapshots.raised
		snapshots.raised = func(index uint64, members raft.Configuration) error {
			for _, n := range nodes[1:] {
				network.Cut(leader.Name(), n.Name())
			}
			return mark(index, members)
		}
		served := make(chan bool, 1)
		go func() { // whoever reads at the leader meanwhile
			seen := false
			for {
				select {
				case <-leader.Done():
					served <- seen
					return
				default:
				}
				_ = leader.Read(context.Background(), Stale, 0, func(v fsm.View) {
					_, b := v.Job("p", "b")
					seen = seen || !b
				})
				time.Sleep(time.Millisecond)
			}
		}()
		_, err := leader.Restore(t.Context(), bytes.NewReader(backup), 0)
		if !errors.Is(err, fleet.OutcomeUnknown) {
			t.Errorf("restoring: got %v, want %s", err, fleet.OutcomeUnknown)
		}
		<-leader.Done()
		if <-served {
			t.Error("the leader served what it alone had restored")
		}
		if !errors.Is(leader.Err(), ErrUnconfirmed) {
			t.Errorf("the leader ended with %v, want %v", leader.Err(), ErrUnconfirmed)
		}
		if _, err := os.Stat(filepath.Join(leader.cfg.DataDir, restorePendingFile)); err != nil {
			t.Errorf("the mark: %v", err)
		}
		eventually(t, "the others go on as if nothing had been", func() bool { return has(nodes[1], "a", "b") == "ab" })
		network.Heal()
		again := member(t, network, Config{Name: leader.Name(), Join: three, DataDir: leader.cfg.DataDir, Storage: leader.cfg.Storage})
		if again.id == leader.id {
			t.Errorf("it kept its server id %s", again.id)
		}
		eventually(t, "it has joined as a new server", func() bool { return again.Ready() == nil && has(again, "a", "b") == "ab" && clean(t, again) })
	})
}

// The only voter that dies with the mark keeps what it restored.
func TestOnlyVoterDiesWhileItRestores(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		n := member(t, network, Config{Name: "n1", BootstrapExpect: 1})
		eventually(t, "it leads", n.IsLeader)
		submitTo(t, n, "a")
		backup := backupOf(t, n)
		submitTo(t, n, "b")
		if _, err := n.Restore(t.Context(), bytes.NewReader(backup), 0); err != nil {
			t.Fatal(err)
		}
		n.Kill()
		if err := n.restoring.set(pendingRestore{n.machine.Index() - 1, true}); err != nil {
			t.Fatal(err)
		}
		again := member(t, network, Config{Name: "n1", DataDir: n.cfg.DataDir, Storage: n.cfg.Storage})
		eventually(t, "it serves what it had restored", func() bool { return has(again, "a", "b") == "a" && clean(t, again) })
		if again.id != n.id {
			t.Errorf("it became server %s, it was %s", again.id, n.id)
		}
	})
}

// On disk, over both log stores: a restore, more entries, a restart; and a start with the mark of a cluster of more.
func TestRestoreOnDisk(t *testing.T) {
	for _, store := range []string{"wal", "boltdb"} {
		t.Run(store, func(t *testing.T) {
			cfg := Config{
				Name: "n1", DataDir: t.TempDir(), NodeAddr: "127.0.0.1:0", GossipAddr: "127.0.0.1:0", BootstrapExpect: 1,
				Secret: []byte("s"), Timing: TimingLocal, LogStore: store, SegmentBytes: 1 << 20,
			}
			start := func() *Node {
				n, err := Start(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(n.Kill)
				eventually(t, "it leads", n.IsLeader)
				return n
			}
			n := start()
			submitTo(t, n, "a")
			backup := backupOf(t, n)
			submitTo(t, n, "b")
			if _, err := n.Restore(t.Context(), bytes.NewReader(backup), 0); err != nil {
				t.Fatal(err)
			}
			submitTo(t, n, "c")
			want := n.StateHash()
			n.Kill()
			n = start()
			if got := has(n, "a", "b", "c"); got != "ac" {
				t.Errorf("after a restart there are jobs %q, want ac", got)
			}
			if _, err := n.Restore(t.Context(), bytes.NewReader(backupOf(t, n)), 0); err != nil || n.StateHash() == want {
				t.Errorf("a second restore: %v", err)
			}
			id := n.id
			n.Kill()
			if err := n.restoring.set(pendingRestore{1, false}); err != nil {
				t.Fatal(err)
			}
			if n = start(); n.id == id || has(n, "a", "b", "c") != "" || !clean(t, n) {
				t.Errorf("what was not confirmed is still there")
			}
		})
	}
}
