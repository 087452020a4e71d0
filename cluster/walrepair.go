package cluster

// This file finishes what raft-wal leaves unfinished when the process dies, or the disk is full, between sealing a segment and
// committing its successor. raft-wal v0.4.2 never does: every append then says "segment is sealed", after any number of restarts.

import (
	"errors"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// finishRotation is called before the log in dir is opened. A crash in it is harmless: it changes one bolt transaction's worth.
func finishRotation(dir string) (repaired bool, err error) {
	db := &metadb.BoltMetaDB{}
	state, err := db.Load(dir)
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := db.Close(); err == nil {
			err = closeErr
		}
	}()
	n := len(state.Segments)
	if n == 0 || !state.Segments[n-1].SealTime.IsZero() {
		return false, nil
	}
	tail := &state.Segments[n-1]
	w, err := segment.NewFiler(dir, fs.New()).RecoverTail(*tail)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // wal.Open creates it
	}
	if err != nil {
		return false, err
	}
	sealed, indexStart, err := w.Sealed()
	last := w.LastIndex()
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil || !sealed {
		return false, err
	}
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), last, indexStart
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		Codec: tail.Codec, CreateTime: time.Now(), SizeLimit: tail.SizeLimit,
	})
	state.NextSegmentID++
	return true, db.CommitState(state)
}
