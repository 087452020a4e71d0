package cluster

// This file tests how often a node that starts reads what it starts from.

import (
	"io"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// countedStorage counts how often each entry of the log is read.
type countedStorage struct {
	*MemoryStorage
	mu    sync.Mutex // guards reads
	reads map[uint64]int
}

func (c *countedStorage) Open(cfg *Config) (Stores, error) {
	s, err := c.MemoryStorage.Open(cfg)
	s.Log = countedLog{s.Log, c}
	return s, err
}

type countedLog struct {
	raft.LogStore
	in *countedStorage
}

func (c countedLog) GetLog(index uint64, l *raft.Log) error {
	c.in.mu.Lock()
	c.in.reads[index]++
	c.in.mu.Unlock()
	return c.LogStore.GetLog(index, l)
}

// A node that starts reads the log behind its snapshot to check it and to apply it, but not for raft's sake once more.
func TestStartReadsTheLogTwice(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		storage, dir := &countedStorage{MemoryStorage: NewMemoryStorage(), reads: map[uint64]int{}}, t.TempDir()
		start := func() *Node {
			n := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, Storage: storage, DataDir: dir})
			eventually(t, "it leads", n.IsLeader)
			return n
		}
		n := start()
		fill(t, n, 300_000)
		last, err := n.stores.Log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		n.Kill()
		clear(storage.reads)
		n = start()
		for index := uint64(1); index < last; index++ {
			var l raft.Log
			if err := storage.store.GetLog(index, &l); err != nil {
				t.Fatal(err)
			}
			want := 2
			if l.Type == raft.LogConfiguration {
				want = 3
			}
			if got := storage.reads[index]; got > want {
				t.Errorf("entry %d of type %s was read %d times, want %d", index, l.Type, got, want)
			}
		}
		if got := len(n.configuration()); got != 1 {
			t.Errorf("servers of its configuration: got %d, want 1", got)
		}
	})
}

// countedFiles counts how often a snapshot's content is opened.
type countedFiles struct {
	files
	opened *int
}

func (c countedFiles) Open(path string) (io.ReadCloser, error) {
	if filepath.Base(path) == snapshotStateFile {
		*c.opened++
	}
	return c.files.Open(path)
}

// A node that starts does not check its snapshot once more before it restores it. One that runs does, before it sends it to another.
func TestStartReadsTheSnapshotOnce(t *testing.T) {
	s := mustOpen(t, storages[0].config(t.TempDir()))
	defer mustClose(t, s)
	mustStore(t, s, entries(1, 100, 1))
	writeSnapshot(t, s, 60, "state")
	usable := s.Snapshots.(*usableSnapshots)
	stored := usable.SnapshotStore.(*fileSnapshots)
	opened := 0
	stored.fs = countedFiles{stored.fs, &opened}
	list, err := s.Snapshots.List() // checks it
	if err != nil || len(list) != 1 {
		t.Fatalf("got %d snapshots, %v", len(list), err)
	}
	snapshots := startingSnapshots{usable, &starting{}}
	for _, want := range []int{1, 2} { // at the start; later
		opened = 0
		_, content, err := snapshots.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(content)
		if closeErr := content.Close(); err != nil || closeErr != nil || string(got) != "state" {
			t.Errorf("got %q, %v, %v", got, err, closeErr)
		}
		if opened != want {
			t.Errorf("its content was opened %d times, want %d", opened, want)
		}
		snapshots.over.Store(true)
	}
}
