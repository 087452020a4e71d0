package cluster

// This file puts the stores of a node on a SimDisk: raft-wal itself, and the snapshots that real nodes have. Bolt files can't be there;
// in their place are values that are replaced atomically, as bolt's commits are.

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

// simStores is what a process has open.
type simStores struct {
	era       int
	log       *wal.WAL
	snapshots raft.SnapshotStore
}

// Open opens what is on the disk, after the power came back if it was cut.
func (d *SimDisk) Open(cfg *Config) (Stores, error) {
	d.mu.Lock()
	if d.cut {
		d.lose()
	}
	era := d.era
	d.mu.Unlock()
	files := simFiles{d, era}
	err := errors.Join(files.Mkdir(walDir), files.Mkdir(snapshotsDir), files.SyncDir("."))
	if err != nil {
		return Stores{}, err
	}
	log, err := openSegments(walDir, cfg.SegmentBytes, cfg.Logger, &simMeta{d, era}, simVFS{files}, files.SyncDir)
	if err != nil {
		return Stores{}, fmt.Errorf("opening the log store: %w", err)
	}
	snapshots, err := openFileSnapshots(files, snapshotsDir)
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("opening the snapshots: %w", err), log.Close())
	}
	d.mu.Lock()
	d.open = append(d.open, simStores{era, log, snapshots})
	d.mu.Unlock()
	return Stores{
		Log: pacedLog{log, d}, Stable: simStable{d, era}, Snapshots: pacedSnapshots{snapshots, d},
		Close: func() error {
			d.mu.Lock()
			d.open = slices.DeleteFunc(d.open, func(s simStores) bool { return s.log == log })
			d.mu.Unlock()
			return log.Close()
		},
	}, nil
}

// Discard forgets all that was ever stored.
func (d *SimDisk) Discard(*Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root, d.values = newSimDir(), map[string][]byte{}
	return nil
}

// Stores are the log and the snapshots to be read: those of the node that has the disk open, or of a copy of what is there.
func (d *SimDisk) Stores() (Stores, error) {
	d.mu.Lock()
	for _, s := range d.open {
		if s.era == d.era {
			d.mu.Unlock()
			return Stores{Log: s.log, Snapshots: s.snapshots}, nil
		}
	}
	d.mu.Unlock()
	return d.copy().Open(&Config{SegmentBytes: 1 << 20, Logger: hclog.NewNullLogger()})
}

// Damage turns one bit of each file whose path is matched, for tests.
func (d *SimDisk) Damage(match func(path string) bool) (damaged int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var walk func(at string, dir *simDir)
	walk = func(at string, dir *simDir) {
		for _, name := range slices.Sorted(maps.Keys(dir.names)) {
			path := filepath.Join(at, name)
			switch e := dir.names[name].(type) {
			case *simDir:
				walk(path, e)
			case *simFile:
				if len(e.data) > 0 && match(path) {
					e.data[d.random.IntN(len(e.data))] ^= 1 << d.random.IntN(8)
					damaged++
				}
			}
		}
	}
	walk("", d.root)
	return damaged
}

// copy is a disk with what a process would now find.
func (d *SimDisk) copy() *SimDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := NewSimDisk(d.random.Uint64())
	c.root, c.values = d.root.copy(), maps.Clone(d.values)
	return c
}

func (d *simDir) copy() *simDir {
	c := newSimDir()
	for name, e := range d.names {
		switch e := e.(type) {
		case *simDir:
			c.names[name] = e.copy()
		case *simFile:
			c.names[name] = &simFile{data: slices.Clone(e.data), size: e.size, sized: e.size}
		}
	}
	maps.Copy(c.durable, c.names)
	return c
}

// simFiles is the file system of a process.
type simFiles struct {
	disk *SimDisk
	era  int
}

func (s simFiles) change(name, dir string, change func(names map[string]any)) error {
	var err error
	failed := s.disk.do(s.era, name, func() {
		var d *simDir
		if d, err = s.disk.dir(dir); err == nil {
			d.change(change)
		}
	}, nil)
	return firstOf(failed, err)
}

// firstOf is the first error there is.
func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (s simFiles) Mkdir(path string) error {
	err := s.disk.see(s.era, func() error { _, err := s.disk.dir(path); return err })
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made := newSimDir()
	return s.change("mkdir", filepath.Dir(path), func(names map[string]any) { names[filepath.Base(path)] = made })
}

func (s simFiles) Names(path string) (names []string, err error) {
	err = s.disk.see(s.era, func() error {
		dir, err := s.disk.dir(path)
		if err == nil {
			names = slices.Sorted(maps.Keys(dir.names))
		}
		return err
	})
	return names, err
}

func (s simFiles) Create(path string) (writableFile, error) {
	f, err := s.create(path, 0)
	return &simWriter{simHandle: simHandle{s, f, path}}, err
}

func (s simFiles) create(path string, size int64) (*simFile, error) {
	f := &simFile{size: size}
	return f, s.change("create", filepath.Dir(path), func(names map[string]any) { names[filepath.Base(path)] = f })
}

func (s simFiles) Open(path string) (io.ReadCloser, error) {
	var content []byte
	err := s.disk.see(s.era, func() error {
		f, err := s.disk.file(path)
		if err == nil {
			content = append(slices.Clone(f.data), make([]byte, f.size-int64(len(f.data)))...)
		}
		return err
	})
	return io.NopCloser(bytes.NewReader(content)), err
}

func (s simFiles) Rename(from, to string) error {
	return s.change("rename", filepath.Dir(from), func(names map[string]any) {
		names[filepath.Base(to)] = names[filepath.Base(from)]
		delete(names, filepath.Base(from))
	})
}

func (s simFiles) RemoveAll(path string) error {
	return s.change("remove", filepath.Dir(path), func(names map[string]any) { delete(names, filepath.Base(path)) })
}

func (s simFiles) SyncDir(path string) error {
	var err error
	failed := s.disk.do(s.era, "sync directory", func() {
		var d *simDir
		if d, err = s.disk.dir(path); err == nil {
			d.sync()
		}
	}, nil)
	return firstOf(failed, err)
}

// simHandle is an open file.
type simHandle struct {
	simFiles
	file *simFile
	path string
}

func (h simHandle) ReadAt(b []byte, at int64) (n int, err error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return h.file.readAt(b, at)
}

func (h simHandle) WriteAt(b []byte, at int64) (int, error) {
	err := h.disk.do(h.era, "write", func() { h.file.write(b, at) }, func() { h.file.write(b[:len(b)/2], at) })
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (h simHandle) Sync() error { return h.disk.do(h.era, "sync", h.file.sync, nil) }

func (simHandle) Close() error { return nil }

// simWriter writes a file from its beginning on.
type simWriter struct {
	simHandle
	at int64
}

func (w *simWriter) Write(b []byte) (int, error) {
	n, err := w.WriteAt(b, w.at)
	w.at += int64(n)
	return n, err
}

// simVFS is the same for raft-wal, and does what raft-wal's own does.
type simVFS struct{ simFiles }

func (v simVFS) ListDir(dir string) ([]string, error) { return v.Names(dir) }

func (v simVFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	path := filepath.Join(dir, name)
	if err := v.disk.see(v.era, func() error { _, err := v.disk.file(path); return err }); !errors.Is(err, fs.ErrNotExist) {
		return nil, firstOf(err, fs.ErrExist)
	}
	f, err := v.create(path, int64(size))
	return &simSegment{simHandle: simHandle{v.simFiles, f, path}}, err
}

func (v simVFS) Delete(dir, name string) error {
	if err := v.RemoveAll(filepath.Join(dir, name)); err != nil {
		return err
	}
	return v.SyncDir(dir)
}

func (v simVFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return v.OpenWriter(dir, name)
}

func (v simVFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	h := simHandle{simFiles: v.simFiles, path: filepath.Join(dir, name)}
	err := v.disk.see(v.era, func() (err error) { h.file, err = v.disk.file(h.path); return err })
	return h, err
}

// simSegment is a segment that was just made: its first sync is its name's too.
type simSegment struct {
	simHandle
	named bool
}

func (s *simSegment) Sync() error {
	if err := s.simHandle.Sync(); err != nil || s.named {
		return err
	}
	s.named = true
	return s.SyncDir(filepath.Dir(s.path))
}

// value is one that is replaced atomically, and durable once it is.
func (d *SimDisk) value(era int, key string) (v []byte, found bool, err error) {
	err = d.see(era, func() error { v, found = d.values[key]; return nil })
	return v, found, err
}

func (d *SimDisk) setValue(era int, name, key string, v []byte) error {
	return d.do(era, name, func() { d.values[key] = v }, nil)
}

// simMeta is what raft-wal knows about its segments.
type simMeta struct {
	disk *SimDisk
	era  int
}

func (m *simMeta) Load(string) (state types.PersistentState, err error) {
	v, found, err := m.disk.value(m.era, "wal-meta")
	if err == nil && found {
		err = json.Unmarshal(v, &state)
	}
	return state, err
}

func (m *simMeta) CommitState(state types.PersistentState) error {
	v, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return m.disk.setValue(m.era, "commit meta", "wal-meta", v)
}

func (*simMeta) GetStable([]byte) ([]byte, error) { return nil, errNoStable }
func (*simMeta) SetStable(_, _ []byte) error      { return errNoStable }
func (*simMeta) Close() error                     { return nil }

// simStable keeps term and vote.
type simStable struct {
	disk *SimDisk
	era  int
}

func (s simStable) Get(key []byte) ([]byte, error) {
	v, found, err := s.disk.value(s.era, "stable/"+string(key))
	if err == nil && !found {
		err = errors.New("not found") // raft compares the text
	}
	return slices.Clone(v), err
}

func (s simStable) Set(key, value []byte) error {
	s.disk.pace.wait()
	return s.disk.setValue(s.era, "set stable", "stable/"+string(key), slices.Clone(value))
}

func (s simStable) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

func (s simStable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// pacedLog waits as the disk does, where raft-wal holds no lock.
type pacedLog struct {
	*wal.WAL
	disk *SimDisk
}

func (l pacedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l pacedLog) StoreLogs(logs []*raft.Log) error {
	l.disk.pace.wait()
	return l.WAL.StoreLogs(logs)
}

func (l pacedLog) DeleteRange(from, to uint64) error {
	l.disk.pace.wait()
	return l.WAL.DeleteRange(from, to)
}

// pacedSnapshots does the same for snapshots.
type pacedSnapshots struct {
	*fileSnapshots
	disk *SimDisk
}

func (s pacedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	transport raft.Transport,
) (raft.SnapshotSink, error) {
	s.disk.pace.wait()
	sink, err := s.fileSnapshots.Create(version, index, term, members, membersIndex, transport)
	if err != nil {
		return nil, err
	}
	return &pacedSink{SnapshotSink: sink, disk: s.disk}, nil
}

type pacedSink struct {
	raft.SnapshotSink
	disk    *SimDisk
	written int
}

func (s *pacedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	s.written += n
	s.disk.mu.Lock()
	tell := s.disk.onSnapshot
	s.disk.mu.Unlock()
	if tell != nil {
		tell(s.written)
	}
	return n, err
}

func (s *pacedSink) Close() error {
	s.disk.pace.wait()
	return s.SnapshotSink.Close()
}
