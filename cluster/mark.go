package cluster

// This file remembers in the stable store how far the log was acknowledged, so that a log that lost its end is found out: raft-wal
// drops a damaged last batch without a word.

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// markKey is where the mark is; markEvery is how far it may be behind.
var markKey = []byte("fleet/acknowledged")

const markEvery = time.Second

// ackMark is the index up to which the log was acknowledged. On disk it lags, and never leads.
type ackMark struct {
	stable raft.StableStore
	acked  atomic.Uint64
	armed  atomic.Bool   // a flush is due
	turn   chan struct{} // held while the mark is written; a disk may hang for long, so it is no mutex

	stored uint64 // guarded by turn
	closed bool   // guarded by turn
}

// loadMark reads the mark of an earlier run.
func loadMark(stable raft.StableStore) (*ackMark, error) {
	stored, err := stable.GetUint64(markKey)
	if err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("%w: %s", err, remedy)
	}
	m := &ackMark{stable: stable, stored: stored, turn: make(chan struct{}, 1)}
	m.acked.Store(stored)
	return m, nil
}

// advance notes that the log was acknowledged up to an index, and writes that down a second later.
func (m *ackMark) advance(index uint64) {
	m.acked.Store(index)
	if m.armed.CompareAndSwap(false, true) {
		time.AfterFunc(markEvery, func() {
			m.armed.Store(false)
			_ = m.write(false) // the stable store's watchdog has ended the node
		})
	}
}

// lower is called before the log's end is cut off: in the other order a crash in between would look like a loss.
func (m *ackMark) lower(index uint64) error {
	if index >= m.acked.Load() {
		return nil
	}
	m.acked.Store(index)
	return m.write(false)
}

// close writes the mark for the last time.
func (m *ackMark) close() error { return m.write(true) }

func (m *ackMark) write(last bool) error {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	if m.closed {
		return nil
	}
	m.closed = last
	acked := m.acked.Load()
	if acked == m.stored {
		return nil
	}
	if err := m.stable.SetUint64(markKey, acked); err != nil {
		return err
	}
	m.stored = acked
	return nil
}

// markedLog keeps the mark in step with the log.
type markedLog struct {
	checkedLog
	mark *ackMark
}

func (l markedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l markedLog) StoreLogs(logs []*raft.Log) error {
	if err := l.checkedLog.StoreLogs(logs); err != nil {
		return err
	}
	if n := len(logs); n > 0 {
		l.mark.advance(logs[n-1].Index)
	}
	return nil
}

func (l markedLog) DeleteRange(from, to uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	switch {
	case to < last || from > last: // the end stays
	case from <= first: // nothing stays
		err = l.mark.lower(0)
	default:
		err = l.mark.lower(from - 1)
	}
	if err != nil {
		return err
	}
	return l.checkedLog.DeleteRange(from, to)
}

// isNotFound reports whether a stable store's error means that a key was never set. Raft compares the text too.
func isNotFound(err error) bool { return err.Error() == "not found" }
