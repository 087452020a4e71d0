package cluster

// This file finishes what raft-wal leaves unfinished when the process dies, or the disk is full, between sealing a segment and
// committing its successor, and takes back a seal that is torn. raft-wal v0.4.2 never does: every append then says "segment is sealed",
// after any number of restarts.

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// settle makes durable what an earlier process wrote and was killed before it had synced: the last segment, and the names of all. Entries
// that can be read are acknowledged to others, and must not be gone after a power cut.
func settle(dir string, meta types.MetaStore, vfs types.VFS, syncDir func(dir string) error) error {
	state, err := meta.Load(dir)
	if err != nil {
		return err
	}
	if n := len(state.Segments); n > 0 && state.Segments[n-1].SealTime.IsZero() {
		tail, err := vfs.OpenWriter(dir, segment.FileName(state.Segments[n-1]))
		if err == nil {
			err = tail.Sync()
			if closeErr := tail.Close(); err == nil {
				err = closeErr
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // wal.Open creates it
			return err
		}
	}
	return syncDir(dir)
}

// finishRotation is called before the log in dir is opened. A crash in it is harmless: the next start does it again.
func finishRotation(dir string, meta types.MetaStore, vfs types.VFS) (repaired bool, err error) {
	state, err := meta.Load(dir)
	if err != nil {
		return false, err
	}
	n := len(state.Segments)
	if n == 0 || !state.Segments[n-1].SealTime.IsZero() {
		return false, nil
	}
	tail := &state.Segments[n-1]
	w, err := segment.NewFiler(dir, vfs).RecoverTail(*tail)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // wal.Open creates it
	}
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
	}()
	sealed, indexStart, err := w.Sealed()
	if err != nil || !sealed {
		return false, err
	}
	last := w.LastIndex()
	whole := *tail
	whole.SealTime, whole.MaxIndex, whole.IndexStart = time.Now(), last, indexStart
	if !sameEntries(dir, vfs, w, whole) {
		return true, unseal(dir, vfs, *tail, indexStart)
	}
	state.Segments[n-1] = whole
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		Codec: tail.Codec, CreateTime: time.Now(), SizeLimit: tail.SizeLimit,
	})
	state.NextSegmentID++
	return true, meta.CommitState(state)
}

// sameEntries reports whether a segment's entries are found by its index as they are without it. raft-wal takes a segment for sealed as soon
// as an index begins in it, though a crash may have left half of one.
func sameEntries(dir string, vfs types.VFS, tail types.SegmentReader, sealed types.SegmentInfo) bool {
	r, err := segment.NewFiler(dir, vfs).Open(sealed)
	if err != nil {
		return false
	}
	defer r.Close()
	for i := sealed.MinIndex; i <= sealed.MaxIndex; i++ {
		got, err := r.GetLog(i)
		if err != nil {
			return false
		}
		want, err := tail.GetLog(i)
		if err != nil {
			_ = got.Close()
			return false
		}
		same := bytes.Equal(got.Bs, want.Bs)
		if err := errors.Join(got.Close(), want.Close()); err != nil || !same {
			return false
		}
	}
	return sealed.MaxIndex >= sealed.MinIndex
}

// frameHead is what is before each entry, and each index, in a segment.
const frameHead = 8

// unseal takes half an index away, so that the segment goes on where it was. There is nothing behind it, and at most four bytes in it for each
// entry, which has twice as many.
func unseal(dir string, vfs types.VFS, tail types.SegmentInfo, indexStart uint64) error {
	f, err := vfs.OpenWriter(dir, segment.FileName(tail))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, indexStart/2+4*frameHead), int64(indexStart-frameHead))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
