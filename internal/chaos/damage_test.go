package chaos

// This file is the part about what is on disk and is not any more what was written (F11, F12).

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node whose files were changed while it was down refuses with status 6 and words, or the change is harmless. It never has a wrong
// state, and once its data is wiped it joins again by itself.
func TestChaosDamage(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "damage", p.seed, Config{Nodes: 3, Timing: "local", SnapshotBytes: 400 << 10}, 150)
	// Enough for two snapshots of each node, and for entries after them, which a node reads and applies when it starts.
	if why := within(60*time.Second, func() string {
		for _, n := range r.Nodes {
			r.gather(n)
			if all, _ := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*", "state.bin")); len(all) < 2 {
				return n.Name + " has not written two snapshots"
			}
		}
		time.Sleep(500 * time.Millisecond)
		return ""
	}); why != "" {
		t.Fatal(why)
	}
	time.Sleep(2 * time.Second)
	r.halt()
	want := r.agree()
	leader := r.AwaitLeader(t, leaderWait)
	n := r.Nodes[r.others(leader)[0]]
	if status := n.Stop(); status != 0 {
		t.Fatalf("%s ended with status %d: %s", n.Name, status, n.LastWords())
	}
	pristine := filepath.Join(r.Dir, "pristine")
	if err := copyDir(n.Dir, pristine); err != nil {
		t.Fatal(err)
	}
	outcomes := newCounts()
	for _, kind := range []string{"wal/*.wal", "wal/wal-meta.db", "stable.db", "snapshots/*/state.bin", "snapshots/*/meta.json", "node.json"} {
		for _, truncate := range []bool{false, true} {
			for range p.times(20) {
				paths, err := filepath.Glob(filepath.Join(pristine, kind))
				if err != nil || len(paths) == 0 {
					t.Fatalf("there is no file %s: %v", kind, err)
				}
				relative, _ := filepath.Rel(pristine, paths[r.rnd.IntN(len(paths))])
				if err := os.RemoveAll(n.Dir); err != nil {
					t.Fatal(err)
				}
				if err := copyDir(pristine, n.Dir); err != nil {
					t.Fatal(err)
				}
				what, err := Damage(r.rnd, filepath.Join(n.Dir, relative), truncate)
				if err != nil {
					t.Fatal(err)
				}
				r.fault(map[bool]string{false: "bit turned in ", true: "cut off: "}[truncate] + kind)
				outcomes.add(kind + " " + r.outcome(n, what, want.Index(), want.Hash()))
				if t.Failed() {
					kept := filepath.Join(r.Dir, "damaged")
					_ = copyDir(n.Dir, kept)
					t.Fatalf("the damaged directory is in %s, what it was before in %s", kept, pristine)
				}
			}
		}
	}
	write(t, "damage: "+outcomes.String())

	r.fault("wiped")
	if err := os.RemoveAll(n.Dir); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.back(n)
	write(t, fmt.Sprintf("damage: a wiped node was ready after %s", time.Since(began).Round(time.Millisecond)))
	r.goOn()
	r.brokenSnapshot(n)
	for _, n := range r.Nodes {
		r.gather(n)
	}
	r.End()
}

// outcome starts a damaged node and says whether it refused, or was as good as before.
func (r *Run) outcome(n *Node, what string, index uint64, hash [32]byte) string {
	r.t.Helper()
	said := len(n.Log())
	if err := n.Start(); err != nil {
		r.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, ended := n.Wait(time.Millisecond); ended {
			words := n.Log()[said:]
			if status != exitStorage || strings.Contains(words, "goroutine ") || !strings.Contains(words, n.Dir) && !strings.Contains(words, "wipe this data directory") {
				r.t.Errorf("%s: got status %d, want %d and what to do: %s", what, status, exitStorage, words)
			}
			return "refused"
		}
		if n.Unready() == "" && n.Applied() >= index {
			m, err := n.state()
			if err != nil {
				continue
			}
			if m.Index() == index && m.Hash() != hash {
				r.t.Errorf("I8: %s: the node has another state", what)
			}
			n.Kill()
			return "harmless"
		}
		if time.Now().After(end) {
			r.t.Errorf("%s: the node neither ended nor was ready within 20 s (%s): %s", what, n.Unready(), n.Log()[said:])
			n.Kill()
			return "stuck"
		}
	}
}

// brokenSnapshot wipes a node while the leader's newest snapshot is damaged, and while what is sent to it is cut off (F12).
func (r *Run) brokenSnapshot(n *Node) {
	t := r.t
	t.Helper()
	n.Kill()
	leader := r.AwaitLeader(t, leaderWait)
	me := 0
	for i := range r.Nodes {
		if r.Nodes[i] == n {
			me = i
		}
	}
	snapshots, _ := filepath.Glob(filepath.Join(r.Nodes[leader].Dir, "snapshots", "*", "state.bin"))
	if len(snapshots) == 0 {
		t.Fatal("the leader has no snapshot")
	}
	r.fault("the leader's newest snapshot damaged while a follower needs it")
	if _, err := Damage(r.rnd, snapshots[len(snapshots)-1], false); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.Dir); err != nil {
		t.Fatal(err)
	}
	r.links.both(leader, me, func(w *weather) { w.rate = 400 << 10 })
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		r.fault("a snapshot's transfer cut off")
		r.sleep(100*time.Millisecond, 600*time.Millisecond)
		r.links.reset(leader, me)
	}
	r.links.heal()
	if why := within(convergeWait, func() string { return n.Unready() }); why != "" {
		t.Fatalf("F12: %s waited in vain for a snapshot: %s; the leader said: %s", n.Name, why, r.Nodes[leader].LastWords())
	}
}
