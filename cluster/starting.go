package cluster

// This file spares a node that starts what it has just done. When raft starts, the check of the stores has read the newest snapshot and all
// of the log behind it: the one is not checked once more before it is restored, the other not read once more in search of configurations.

import (
	"io"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// logTail is what the log holds behind a snapshot: the entries after from, up to last, and which of them are configurations.
type logTail struct {
	from, last     uint64
	configurations []uint64
}

// starting is whether raft is still reading what it starts from.
type starting struct{ over atomic.Bool }

// startingLog is raft's log. At the start it answers for an entry that is no configuration without the data, except for the last.
type startingLog struct {
	*raft.LogCache
	*starting
	tail logTail
}

// GetLog reads an entry.
func (s startingLog) GetLog(index uint64, l *raft.Log) error {
	if !s.over.Load() && s.tail.from < index && index < s.tail.last {
		if _, found := slices.BinarySearch(s.tail.configurations, index); !found {
			*l = raft.Log{Index: index, Type: raft.LogCommand}
			return nil
		}
	}
	return s.LogCache.GetLog(index, l)
}

// startingSnapshots are raft's snapshots. At the start they are not looked through once more before they are read: who restores one
// finds out whether it is whole, and what it was a moment ago is known.
type startingSnapshots struct {
	*usableSnapshots
	*starting
}

// Open opens a snapshot.
func (s startingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if !s.over.Load() {
		if files, ok := s.SnapshotStore.(*fileSnapshots); ok {
			return files.openUnread(id)
		}
	}
	return s.usableSnapshots.Open(id)
}

// startingTransport knows when raft has read all that: it sets its handler of heartbeats then, before any of its goroutines runs.
type startingTransport struct {
	shyTransport
	*starting
}

// SetHeartbeatHandler is the first that raft does once it knows its configuration.
func (s startingTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	s.over.Store(true)
	s.shyTransport.SetHeartbeatHandler(handle)
}
