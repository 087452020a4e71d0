package cluster

// This file is the real storage: raft-wal or raft-boltdb for the log, raft-boltdb for term and vote, files for snapshots. All of it
// is readable by its owner only: hashes of tokens are in there.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

const (
	walDir       = "wal"
	boltLogFile  = "log.db"
	stableFile   = "stable.db"
	snapshotsDir = "snapshots" // raft's name for it

	// boltCache is how many recent entries are kept in memory over boltdb. Over raft-wal the page cache serves.
	boltCache = 64
	// keptSnapshots: if the newest is damaged, the one before is there, and the log since.
	keptSnapshots = 2
)

// RealStorage is what a Config without a Storage has.
func RealStorage() Storage { return diskStorage{} }

// diskStorage keeps everything in the data directory, whose lock the caller holds.
type diskStorage struct{}

// Open opens the log store that the configuration names, and refuses a directory whose log is in the other one.
func (diskStorage) Open(cfg *Config) (s Stores, err error) {
	stable, err := openBolt(filepath.Join(cfg.DataDir, stableFile), false)
	if err != nil {
		return Stores{}, fmt.Errorf("opening the stable store: %w", err)
	}
	log, closeLog, err := openLog(cfg)
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("opening the log store: %w", err), stable.Close())
	}
	closeAll := func() error { return errors.Join(closeLog(), stable.Close()) }
	snapshots, err := openSnapshots(cfg)
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("opening the snapshots: %w", err), closeAll())
	}
	return Stores{Log: log, Stable: stable, Snapshots: snapshots, Close: closeAll}, nil
}

// Discard forgets all that was ever stored.
func (diskStorage) Discard(cfg *Config) error {
	for _, name := range []string{walDir, boltLogFile, stableFile, snapshotsDir} {
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, name)); err != nil {
			return err
		}
	}
	return syncDir(cfg.DataDir)
}

func openLog(cfg *Config) (raft.LogStore, func() error, error) {
	mine, other, otherName := walDir, boltLogFile, "boltdb"
	if cfg.LogStore == "boltdb" {
		mine, other, otherName = boltLogFile, walDir, "wal"
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, other)); !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("this data directory keeps its log in %s: start with --log-store=%s, or %s", otherName, otherName, remedy)
	}
	path := filepath.Join(cfg.DataDir, mine)
	if cfg.LogStore != "boltdb" {
		return openWAL(path, cfg.SegmentBytes, cfg.Logger)
	}
	store, err := openBolt(path, true)
	if err != nil {
		return nil, nil, err
	}
	log, err := raft.NewLogCache(boltCache, store)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return log, store.Close, nil
}

func openWAL(dir string, segmentBytes int, logger hclog.Logger) (raft.LogStore, func() error, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	repaired, err := finishRotation(dir)
	if err != nil {
		return nil, nil, err
	}
	if repaired {
		logger.Info("finished a rotation of the log that an earlier run left undone", "dir", dir)
	}
	if err := os.Chmod(filepath.Join(dir, metadb.FileName), 0o600); err != nil {
		return nil, nil, err
	}
	log, err := wal.Open(dir, wal.WithLogger(logger.Named("wal")), wal.WithSegmentSize(segmentBytes),
		wal.WithSegmentFiler(segment.NewFiler(dir, privateFS{walfs.New()})))
	if err != nil {
		return nil, nil, err
	}
	return log, log.Close, nil
}

// privateFS creates segments that only their owner can read.
type privateFS struct{ *walfs.FS }

func (p privateFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := p.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openBolt opens a bolt file. The log's free pages aren't written at each commit, which costs too much, but looked for at open; bbolt
// does that in a goroutine where damage is a panic, so the stable store, which is small, has them written. The time-out is for the
// case that somebody has removed the lock file: better an error than silence.
func openBolt(path string, isLog bool) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{NoFreelistSync: isLog, Timeout: 5 * time.Second}})
}

func openSnapshots(cfg *Config) (raft.SnapshotStore, error) {
	store, err := raft.NewFileSnapshotStoreWithLogger(cfg.DataDir, keptSnapshots, cfg.Logger.Named("snapshots"))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cfg.DataDir, snapshotsDir)
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	// What a crash left half written is no use to anybody, and may be big.
	unfinished, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil {
		return nil, err
	}
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	return privateSnapshots{store, dir}, nil
}

// privateSnapshots creates snapshots that only their owner can read.
type privateSnapshots struct {
	raft.SnapshotStore
	dir string
}

func (p privateSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	transport raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := p.SnapshotStore.Create(version, index, term, members, membersIndex, transport)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(p.dir, sink.ID()+".tmp")
	err = os.Chmod(dir, 0o700)
	for _, file := range []string{"meta.json", "state.bin"} { // raft truncates meta.json later, which keeps its mode
		err = errors.Join(err, os.Chmod(filepath.Join(dir, file), 0o600))
	}
	if err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}
