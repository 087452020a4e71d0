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
	if err := syncDir(cfg.DataDir); err != nil { // none of the above does it for the name that it made
		return Stores{}, errors.Join(err, closeAll())
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
	if err := (osFiles{}).Mkdir(dir); err != nil {
		return nil, nil, err
	}
	meta, err := openWALMeta(dir)
	if err != nil {
		return nil, nil, err
	}
	log, err := openSegments(dir, segmentBytes, logger, meta, privateFS{walfs.New()}, syncDir)
	if err != nil {
		return nil, nil, errors.Join(err, meta.Close())
	}
	return log, log.Close, nil
}

// openSegments opens raft-wal over what it keeps its segments on, after what a crash left undone was finished.
func openSegments(dir string, segmentBytes int, logger hclog.Logger, meta types.MetaStore, vfs types.VFS, syncDir func(string) error) (*wal.WAL, error) {
	if err := settle(dir, meta, vfs, syncDir); err != nil {
		return nil, err
	}
	repaired, err := finishRotation(dir, meta, vfs)
	if err != nil {
		return nil, err
	}
	if repaired {
		logger.Info("finished a rotation of the log that an earlier run left undone", "dir", dir)
	}
	return wal.Open(dir, wal.WithLogger(logger.Named("wal")), wal.WithSegmentSize(segmentBytes),
		wal.WithMetaStore(meta), wal.WithSegmentFiler(segment.NewFiler(dir, vfs)))
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

// boltTimeout is for the case that somebody has removed the lock file: better an error than silence.
const boltTimeout = 5 * time.Second

// openBolt opens a bolt file of raft-boltdb, or makes one, so that a crash leaves none or a whole one. The log's free pages aren't written at
// each commit, which costs too much, but looked for at open.
func openBolt(path string, isLog bool) (*raftboltdb.BoltStore, error) {
	options := func(path string) raftboltdb.Options {
		return raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{NoFreelistSync: isLog, Timeout: boltTimeout}}
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		temp := path + unfinishedSuffix
		if err := os.RemoveAll(temp); err != nil {
			return nil, err
		}
		store, err := raftboltdb.New(options(temp))
		if err != nil {
			return nil, err
		}
		if err := store.Close(); err != nil {
			return nil, err
		}
		if err := os.Rename(temp, path); err != nil {
			return nil, err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	if err := checkBolt(path, "conf", "logs"); err != nil {
		return nil, err
	}
	return raftboltdb.New(options(path))
}

func openSnapshots(cfg *Config) (raft.SnapshotStore, error) {
	dir := filepath.Join(cfg.DataDir, snapshotsDir)
	if err := (osFiles{}).Mkdir(dir); err != nil {
		return nil, err
	}
	return openFileSnapshots(osFiles{}, dir)
}
