package cluster

// This file shows raft only snapshots it can start from: it would fall back from a damaged one to an older one, and then panic,
// because the log in between is gone.

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// usableSnapshots lists only what is intact and is followed by the log.
type usableSnapshots struct {
	raft.SnapshotStore
	log    raft.LogStore
	logger hclog.Logger

	reading atomic.Int64 // snapshots that are open
	// raised is called before a snapshot with a raise in front is in force; nil: nobody restores here.
	raised func(index uint64, members raft.Configuration) error

	mu     sync.Mutex      // guards intact
	intact map[string]bool // by id; reading a whole snapshot at every List would cost too much

	said seldom // of those that are no use
}

// Create makes a snapshot that is looked at while it is written.
func (s *usableSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	transport raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, members, membersIndex, transport)
	if err != nil || s.raised == nil {
		return sink, err
	}
	return &markedSink{SnapshotSink: sink, mark: func() error { return s.raised(index, members) }}, nil
}

// List returns the snapshots whose checksum holds and whose next entry is in the log, newest first; one at or after the log's end
// needs none. It fails if none is left and the log doesn't hold everything itself.
func (s *usableSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	first, err := s.log.FirstIndex()
	if err != nil {
		return nil, err
	}
	reach, err := s.log.LastIndex()
	if err != nil {
		return nil, err
	}
	var usable, unusable []*raft.SnapshotMeta
	for _, meta := range all {
		if err := s.check(meta); err != nil {
			if s.said.allow(meta.ID, time.Hour) { // until there is a newer one, this is called all the time
				s.logger.Warn("skipping a snapshot", "id", meta.ID, "reason", err)
			}
			unusable = append(unusable, meta)
			continue
		}
		usable = append(usable, meta)
		reach = max(reach, meta.Index)
	}
	for _, meta := range unusable {
		if meta.Index > reach {
			return nil, fmt.Errorf("snapshot %s is damaged, and all else ends at entry %d before it: %s", meta.ID, reach, remedy)
		}
	}
	switch {
	case len(usable) > 0:
	case len(all) > 0 && first != 1:
		return nil, fmt.Errorf("none of %d snapshots is usable, and the log starts at entry %d: %s", len(all), first, remedy)
	case first > 1:
		return nil, fmt.Errorf("there is no snapshot, and the log starts at entry %d: %s", first, remedy)
	}
	return usable, nil
}

func (s *usableSnapshots) check(meta *raft.SnapshotMeta) error {
	s.mu.Lock()
	intact, known := s.intact[meta.ID]
	s.mu.Unlock()
	if known && !intact {
		return errors.New("it is damaged")
	}
	if !known {
		_, content, err := s.Open(meta.ID)
		if err != nil {
			return err
		}
		if err := content.Close(); err != nil {
			return err
		}
	}
	last, err := s.log.LastIndex()
	if err != nil || meta.Index >= last {
		return err
	}
	var next raft.Log
	if err := contain(func() error { return s.log.GetLog(meta.Index+1, &next) }); err != nil {
		return fmt.Errorf("its next entry %d: %w", meta.Index+1, err)
	}
	return nil
}

// Open opens a snapshot. The inner store verifies its checksum, so a failure is remembered: the next List leaves it out.
func (s *usableSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.SnapshotStore.Open(id)
	s.mu.Lock()
	s.intact[id] = err == nil
	s.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	s.reading.Add(1)
	return meta, &openSnapshot{ReadCloser: content, reading: &s.reading}, nil
}

// openSnapshot counts itself until it is closed.
type openSnapshot struct {
	io.ReadCloser
	reading *atomic.Int64
	once    sync.Once
}

func (o *openSnapshot) Close() error {
	o.once.Do(func() { o.reading.Add(-1) })
	return o.ReadCloser.Close()
}
