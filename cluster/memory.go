package cluster

// This file is a disk in memory, for clusters in virtual time.

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// MemoryStorage is one node's disk in memory. It outlives the node: a node that was killed starts again with what it had stored.
// All methods may be called at once, but only one node at a time may have it open.
type MemoryStorage struct {
	store     *raft.InmemStore
	snapshots memorySnapshots
}

// NewMemoryStorage is an empty disk.
func NewMemoryStorage() *MemoryStorage {
	return &MemoryStorage{store: raft.NewInmemStore()}
}

// Open gives access to what is stored. It never fails.
func (m *MemoryStorage) Open(*Config) (Stores, error) {
	return Stores{Log: m.store, Stable: m.store, Snapshots: &m.snapshots, Close: func() error { return nil }}, nil
}

// Discard forgets all that was ever stored.
func (m *MemoryStorage) Discard(*Config) error {
	m.store = raft.NewInmemStore()
	m.snapshots.mu.Lock()
	defer m.snapshots.mu.Unlock()
	m.snapshots.newest = nil
	return nil
}

// memorySnapshots keeps as many snapshots as the disk does. One exists only once it is complete.
type memorySnapshots struct {
	mu     sync.Mutex        // guards what follows
	made   int               // numbers the ids
	newest []*memorySnapshot // newest first
}

type memorySnapshot struct {
	meta    raft.SnapshotMeta
	content []byte
	sum     uint32
}

func (m *memorySnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &memorySink{store: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index, Term: term,
		Configuration: members, ConfigurationIndex: membersIndex,
	}}, nil
}

func (m *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*raft.SnapshotMeta
	for _, s := range m.newest {
		meta := s.meta
		list = append(list, &meta)
	}
	return list, nil
}

func (m *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.newest {
		if s.meta.ID != id {
			continue
		}
		if crc32.Checksum(s.content, castagnoli) != s.sum {
			return nil, nil, fmt.Errorf("snapshot %s: %w", id, errChecksum)
		}
		meta := s.meta
		return &meta, io.NopCloser(bytes.NewReader(s.content)), nil
	}
	return nil, nil, fmt.Errorf("there is no snapshot %s", id)
}

// memorySink is a snapshot in the making. It belongs to one goroutine.
type memorySink struct {
	store   *memorySnapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
	closed  bool
}

func (s *memorySink) ID() string { return s.meta.ID }

func (s *memorySink) Write(b []byte) (int, error) {
	if s.closed {
		return 0, errors.New("the snapshot is closed")
	}
	return s.content.Write(b)
}

func (s *memorySink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	content := s.content.Bytes()
	s.meta.Size = int64(len(content))
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	snapshots := append([]*memorySnapshot{{s.meta, content, crc32.Checksum(content, castagnoli)}}, s.store.newest...)
	s.store.newest = snapshots[:min(len(snapshots), keptSnapshots)]
	return nil
}

func (s *memorySink) Cancel() error {
	s.closed = true
	return nil
}
