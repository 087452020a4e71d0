package cluster

// This file tests when snapshots are written, and how much of the log stays behind them.

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// fill submits about as many bytes as given.
func fill(t *testing.T, n *Node, bytes int) {
	t.Helper()
	for written := 0; written < bytes; written += 10_000 {
		s := fleet.Submission{BodyMd: strings.Repeat("x", 10_000)}
		s.Normalize()
		id := fmt.Sprintf("j%d", n.machine.Index())
		a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Submit{ProductID: "p", JobID: id, Submission: s}})
		if err != nil || a.Err != nil {
			t.Fatalf("submitting: %v, %v", err, a.Err)
		}
	}
}

func newestSnapshot(t *testing.T, n *Node) (index uint64, usable int) {
	t.Helper()
	list, err := n.stores.Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return 0, 0
	}
	return list[0].Index, len(list)
}

// Snapshots come by the bytes of the log, not by its entries; the log stays back to the one before the last, and no further.
func TestCompactionByBytes(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		storage, dir := NewMemoryStorage(), t.TempDir() // what survives
		start := func() *Node {
			n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, Storage: storage, DataDir: dir, SnapshotBytes: 300_000})
			eventually(t, "it leads", n.IsLeader)
			return n
		}
		n := start()
		fill(t, n, 100_000)
		time.Sleep(time.Minute)
		if index, _ := newestSnapshot(t, n); index != 0 {
			t.Errorf("after a third of the bytes: got a snapshot at entry %d, want none", index)
		}
		last := uint64(0)
		for i := range 4 {
			fill(t, n, 1_000_000<<i) // more than half of the last snapshot
			eventually(t, "another snapshot is written", func() bool { index, _ := newestSnapshot(t, n); return index > last })
			last, _ = newestSnapshot(t, n)
		}
		if _, usable := newestSnapshot(t, n); usable != 2 {
			t.Errorf("usable snapshots: got %d, want 2: the log must reach back to the older one", usable)
		}
		list, _ := n.stores.Snapshots.List()
		if first, err := n.stores.Log.FirstIndex(); err != nil || first+200 < list[1].Index {
			t.Errorf("the log starts at entry %d, %v, want about %d, that of the older snapshot", first, err, list[1].Index)
		}
		at := n.machine.Index()
		n.Kill()
		n = start()
		if n.machine.Index() <= at {
			t.Errorf("after a restart: got index %d, want more than %d", n.machine.Index(), at)
		}
	})
}

// A snapshot that a follower is being sent is waited for.
func TestNoSnapshotWhileOneIsSent(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, SnapshotBytes: 100_000})
		eventually(t, "it leads", n.IsLeader)
		fill(t, n, 200_000)
		eventually(t, "a snapshot is written", func() bool { index, _ := newestSnapshot(t, n); return index > 0 })
		list, err := n.stores.Snapshots.List()
		if err != nil {
			t.Fatal(err)
		}
		_, content, err := n.stores.Snapshots.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, n, 2_000_000)
		time.Sleep(time.Minute)
		if index, _ := newestSnapshot(t, n); index != list[0].Index {
			t.Error("another snapshot was written while one was open")
		}
		if err := content.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another snapshot is written", func() bool { index, _ := newestSnapshot(t, n); return index > list[0].Index })
	})
}

// A running node whose snapshots are all damaged writes another, whatever the log has grown by: followers may need one.
func TestDamagedSnapshotsAreReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		storage := NewMemoryStorage()
		n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, Storage: storage, SnapshotBytes: 100_000})
		eventually(t, "it leads", n.IsLeader)
		last := uint64(0)
		for i := range 3 {
			fill(t, n, 1_000_000<<i)
			eventually(t, "a snapshot is written", func() bool { index, _ := newestSnapshot(t, n); return index > last })
			last, _ = newestSnapshot(t, n)
		}
		storage.snapshots.mu.Lock()
		for _, s := range storage.snapshots.newest {
			s.content[100] ^= 1
		}
		storage.snapshots.mu.Unlock()
		list, err := n.stores.Snapshots.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list { // as a follower's need would
			if _, _, err := n.stores.Snapshots.Open(s.ID); err == nil {
				t.Error("a damaged snapshot was opened")
			}
		}
		fill(t, n, 10_000)
		eventually(t, "a good snapshot is written", func() bool {
			list, err := n.stores.Snapshots.List()
			return err == nil && len(list) > 0 && list[0].Index > last
		})
	})
}

// slowDisk has snapshots take 10 ms for each piece, and says when the first was written.
type slowDisk struct {
	Storage
	pieces chan struct{}
}

func (s slowDisk) Open(cfg *Config) (Stores, error) {
	stores, err := s.Storage.Open(cfg)
	stores.Snapshots = slowSnapshots{stores.Snapshots, s.pieces}
	return stores, err
}

type slowSnapshots struct {
	raft.SnapshotStore
	pieces chan struct{}
}

func (s slowSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, members, membersIndex, t)
	return slowSink{sink, s.pieces}, err
}

type slowSink struct {
	raft.SnapshotSink
	pieces chan struct{}
}

func (s slowSink) Write(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	select {
	case s.pieces <- struct{}{}:
	default:
	}
	return s.SnapshotSink.Write(b)
}

// A snapshot is written with rests, so that calls come first, but for no longer than until the log has grown by enough for another. A node
// that stops does not wait for it, and has no less than before.
func TestSnapshotsAreWrittenSlowly(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		const pieces = 20 // of 64 KiB
		storage, dir := slowDisk{NewMemoryStorage(), make(chan struct{}, 1)}, t.TempDir()
		start := func() *Node {
			n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, Storage: storage, DataDir: dir, SnapshotBytes: 2 << 20})
			eventually(t, "it leads", n.IsLeader)
			return n
		}
		n := start()
		fill(t, n, pieces<<16)
		began := time.Now()
		if !n.takeSnapshot(n.raftIfUp()) {
			t.Fatal("no snapshot was written")
		}
		if took := time.Since(began); took < pieces*(1+snapshotRest)*9*time.Millisecond {
			t.Errorf("a snapshot of %d pieces that take 10 ms each was written in %s, without rests", pieces, took)
		}
		<-storage.pieces
		given := make(chan bool, 1)
		fill(t, n, 1)
		began = time.Now()
		go func() { given <- n.takeSnapshot(n.raftIfUp()) }()
		<-storage.pieces
		fill(t, n, 3<<20)
		if took := time.Since(began); !<-given || time.Since(began) > took+(pieces+2+snapshotRest)*10*time.Millisecond {
			t.Errorf("with as much log as is worth another, the snapshot took %s", time.Since(began))
		}
		last, usable := newestSnapshot(t, n)
		<-storage.pieces
		fill(t, n, 1)
		go func() { given <- n.takeSnapshot(n.raftIfUp()) }()
		<-storage.pieces
		began = time.Now()
		if err := n.Shutdown(t.Context()); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		if took := time.Since(began); <-given || took > 300*time.Millisecond {
			t.Errorf("the node stopped after %s, with the snapshot that it had begun", took)
		}
		n = start()
		if at, left := newestSnapshot(t, n); at != last || left != usable {
			t.Errorf("after a restart: %d snapshots up to entry %d, want %d up to %d", left, at, usable, last)
		}
	})
}

// A disk that is short of the room that a snapshot will give back is no time for rests.
func TestSnapshotHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{closing: make(chan struct{})}
		short := true
		var b strings.Builder
		w := &slowWriter{&b, n.rests(snapshotWork, snapshotRest), func() bool { return short }}
		for _, want := range []time.Duration{0, snapshotRest * 10 * time.Millisecond} {
			time.Sleep(10 * time.Millisecond) // of work
			began := time.Now()
			if _, err := w.Write([]byte("x")); err != nil || time.Since(began) < want {
				t.Errorf("short %t: a write after 10 ms rested for %s, %v, want %s", short, time.Since(began), err, want)
			}
			short = false
		}
		close(n.closing)
		time.Sleep(10 * time.Millisecond)
		if _, err := w.Write([]byte("x")); !errors.Is(err, errGivenUp) || b.String() != "xx" {
			t.Errorf("once the node closes: got %v after %q, want %v", err, b.String(), errGivenUp)
		}
	})
}
