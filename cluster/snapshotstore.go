package cluster

// This file keeps snapshots in files, as raft's own store does and under the same names, with a checksum of meta.json too: a bit that
// turns there would put a sound state at another index, or give the cluster other members.

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	snapshotMetaFile  = "meta.json"
	snapshotStateFile = "state.bin"
	unfinishedSuffix  = ".tmp"

	// writeBackPart is how many bytes of a snapshot in the making wait for the disk at most.
	writeBackPart = 1 << 20
)

// fileSnapshots is a snapshot store: a directory for each snapshot, unfinished while its name ends in .tmp. All methods may be called
// at once.
type fileSnapshots struct {
	fs  files
	dir string

	mu   sync.Mutex // guards last
	last int64      // milliseconds in the last id, so that ids differ
}

// openFileSnapshots opens the store in dir, which the caller has made, and removes what a crash left half written: it is no use to
// anybody, and may be big.
func openFileSnapshots(fs files, dir string) (*fileSnapshots, error) {
	names, err := fs.Names(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, unfinishedSuffix) {
			if err := fs.RemoveAll(filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return &fileSnapshots{fs: fs, dir: dir}, fs.SyncDir(dir)
}

// storedMeta is meta.json. The fields of raft's own store come first, so that it can read ours.
type storedMeta struct {
	raft.SnapshotMeta
	CRC      []byte // of state.bin, CRC-64/ECMA
	Checksum string `json:"crc32c"` // of this file with Checksum empty
}

func (m storedMeta) encode() ([]byte, error) {
	m.Checksum = ""
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.Checksum = checksumText(body)
	return json.Marshal(m)
}

// asRaft is the file as raft's own store wrote it in the first release. No bit that changes makes one form of the other.
func (m storedMeta) asRaft() ([]byte, error) {
	body, err := json.Marshal(struct {
		raft.SnapshotMeta
		CRC []byte
	}{m.SnapshotMeta, m.CRC})
	return append(body, '\n'), err
}

// decodeMeta fails unless every byte is as encode wrote it, or as the first release did.
func decodeMeta(raw []byte, id string) (storedMeta, error) {
	var m storedMeta
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s: %w", snapshotMetaFile, err)
	}
	encode := m.encode
	if m.Checksum == "" {
		encode = m.asRaft
	}
	again, err := encode()
	if err != nil {
		return m, err
	}
	if !bytes.Equal(raw, again) {
		return m, fmt.Errorf("%s: %w", snapshotMetaFile, errChecksum)
	}
	if m.ID != id || m.Version < raft.SnapshotVersionMin || m.Version > raft.SnapshotVersionMax {
		return m, fmt.Errorf("%s is that of snapshot %s, version %d", snapshotMetaFile, m.ID, m.Version)
	}
	return m, nil
}

// Create begins a snapshot. It exists once its sink is closed.
func (s *fileSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	s.mu.Lock()
	s.last = max(s.last+1, time.Now().UnixMilli())
	id := fmt.Sprintf("%d-%d-%d", term, index, s.last)
	s.mu.Unlock()
	sink := &fileSink{store: s, dir: filepath.Join(s.dir, id+unfinishedSuffix), sum: newStateSum(), meta: storedMeta{SnapshotMeta: raft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term, Configuration: members, ConfigurationIndex: membersIndex,
	}}}
	if err := s.fs.Mkdir(sink.dir); err != nil {
		return nil, err
	}
	state, err := s.fs.Create(filepath.Join(sink.dir, snapshotStateFile))
	if err != nil {
		return nil, errors.Join(err, s.fs.RemoveAll(sink.dir))
	}
	sink.state = state
	sink.buffered = bufio.NewWriterSize(io.MultiWriter(&steadyWriter{writableFile: state}, sink.sum), 64<<10)
	return sink, nil
}

// List returns the snapshots, newest first. One whose meta.json is damaged has only what its name says, and can't be opened.
func (s *fileSnapshots) List() ([]*raft.SnapshotMeta, error) {
	readable, damaged, err := s.all()
	if err != nil {
		return nil, err
	}
	all := append(readable[:min(len(readable), keptSnapshots)], damaged...)
	slices.SortFunc(all, newerFirst)
	return all, nil
}

// all is what there is, newest first.
func (s *fileSnapshots) all() (readable, damaged []*raft.SnapshotMeta, err error) {
	names, err := s.fs.Names(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range names {
		var named raft.SnapshotMeta
		if n, _ := fmt.Sscanf(id, "%d-%d-", &named.Term, &named.Index); n < 2 || strings.HasSuffix(id, unfinishedSuffix) {
			continue
		}
		meta, err := s.meta(id)
		if err != nil {
			named.ID = id
			damaged = append(damaged, &named)
			continue
		}
		readable = append(readable, &meta.SnapshotMeta)
	}
	slices.SortFunc(readable, newerFirst)
	return readable, damaged, nil
}

// newerFirst is raft's order.
func newerFirst(a, b *raft.SnapshotMeta) int {
	return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index), cmp.Compare(b.ID, a.ID))
}

func (s *fileSnapshots) meta(id string) (storedMeta, error) {
	f, err := s.fs.Open(filepath.Join(s.dir, id, snapshotMetaFile))
	if err != nil {
		return storedMeta{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return storedMeta{}, err
	}
	return decodeMeta(raw, id)
}

// Open opens a snapshot once its whole content was read and found intact.
func (s *fileSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, f, err := s.open(id)
	if err != nil {
		return nil, nil, err
	}
	sum := newStateSum()
	size, err := io.Copy(sum, f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, nil, err
	}
	if size != meta.Size || !bytes.Equal(sum.Sum(nil), meta.CRC) {
		return nil, nil, fmt.Errorf("snapshot %s: %s: %w", id, snapshotStateFile, errChecksum)
	}
	return s.openUnread(id)
}

// openUnread opens a snapshot whose content somebody has just found intact.
func (s *fileSnapshots) openUnread(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, f, err := s.open(id)
	if err != nil {
		return nil, nil, err
	}
	return &meta.SnapshotMeta, bufferedReader{bufio.NewReaderSize(f, 64<<10), f}, nil
}

// open opens the content of a snapshot as it is.
func (s *fileSnapshots) open(id string) (meta storedMeta, content io.ReadCloser, err error) {
	if meta, err = s.meta(id); err != nil {
		return meta, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	content, err = s.fs.Open(filepath.Join(s.dir, id, snapshotStateFile))
	return meta, content, err
}

// bufferedReader reads a file in large pieces.
type bufferedReader struct {
	*bufio.Reader
	io.Closer
}

// steadyWriter has what is written go to the disk bit by bit, where the file can do that.
type steadyWriter struct {
	writableFile
	begun, written int64 // how far it is on its way to the disk, and how far it goes
}

func (w *steadyWriter) Write(b []byte) (int, error) {
	n, err := w.writableFile.Write(b)
	w.written += int64(n)
	if f, can := w.writableFile.(interface{ writeBack(off, n int64) }); can && w.written-w.begun >= writeBackPart {
		f.writeBack(w.begun, w.written-w.begun)
		w.begun = w.written
	}
	return n, err
}

func newStateSum() hash.Hash64 { return crc64.New(stateTable) }

var stateTable = crc64.MakeTable(crc64.ECMA)

// fileSink is a snapshot in the making. It belongs to one goroutine.
type fileSink struct {
	store    *fileSnapshots
	dir      string
	state    writableFile
	buffered *bufio.Writer
	sum      hash.Hash64
	size     int64
	meta     storedMeta
	closed   bool
}

func (s *fileSink) ID() string { return s.meta.ID }

func (s *fileSink) Write(b []byte) (int, error) {
	n, err := s.buffered.Write(b)
	s.size += int64(n)
	return n, err
}

// Close makes the snapshot exist. It is durable when Close returns; after an error it does not exist. The files and their names are
// synced before the directory gets its own name.
func (s *fileSink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	fs := s.store.fs
	err := s.buffered.Flush()
	if err == nil {
		err = s.state.Sync()
	}
	if closeErr := s.state.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.writeMeta()
	}
	if err == nil {
		err = fs.SyncDir(s.dir)
	}
	if err == nil {
		err = fs.Rename(s.dir, strings.TrimSuffix(s.dir, unfinishedSuffix))
	}
	if err != nil {
		return errors.Join(err, fs.RemoveAll(s.dir))
	}
	if err := fs.SyncDir(s.store.dir); err != nil {
		return err
	}
	return s.store.reap()
}

func (s *fileSink) writeMeta() error {
	s.meta.Size, s.meta.CRC = s.size, s.sum.Sum(nil)
	raw, err := s.meta.encode()
	if err != nil {
		return err
	}
	return writeFile(s.store.fs, filepath.Join(s.dir, snapshotMetaFile), raw)
}

// Cancel gives the snapshot up.
func (s *fileSink) Cancel() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.state.Close(), s.store.fs.RemoveAll(s.dir))
}

// reap removes the snapshots that are older than those that are kept, and those that are no use since there is a newer one.
func (s *fileSnapshots) reap() error {
	readable, damaged, err := s.all()
	if err != nil {
		return err
	}
	for _, meta := range append(damaged, readable[min(len(readable), keptSnapshots):]...) {
		if err := s.fs.RemoveAll(filepath.Join(s.dir, meta.ID)); err != nil {
			return err
		}
	}
	return nil
}
