package cluster

// This file makes a new cluster of one survivor's data directory, after the majority of its cluster was lost for ever.
//
// It is offline. The survivor's log is applied to its end, acknowledged or not: an entry that a lost majority acknowledged can't be
// told from one that it didn't. What comes of it is written as the snapshot of a new server in a new cluster, with a raise in front
// as if a backup were restored, so that no epoch of before is valid and no lost node is ever heard again.

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

const (
	// recoveryDir holds the new node's files until they are whole; recoveringDir from then on, until all are in their places.
	recoveryDir   = "recovering.tmp"
	recoveringDir = "recovering"
	// beforeDir, with the generation that the survivor had, keeps what was there.
	beforeDir = "before-recovery-"
)

// durables are a data directory's files that make a node what it is; the identity, which says whose they are, goes last.
var durables = []string{walDir, boltLogFile, stableFile, snapshotsDir, restorePendingFile, identityName}

// rename is os.Rename, but in the test that interrupts a recovery.
var rename = os.Rename

// Survivor is a stopped node's data directory, held and read to its end. Its methods are for one goroutine.
type Survivor struct {
	dir     *dataDir
	id      identity
	cfg     Config
	stores  Stores
	machine *fsm.Machine
	members raft.Configuration
	address string // of its node port

	// What there is to recover: compare these between survivors, and take the one with the highest term, then index.
	Name      string
	ClusterID string
	LastIndex uint64
	LastTerm  uint64
	// Members are the servers of the cluster that it was in, by name or id, this one too.
	Members []string
	Voter   bool
}

// OpenSurvivor reads a data directory whose node is stopped, and changes nothing there. The error is one line that says what to do.
func OpenSurvivor(path string, logger hclog.Logger) (_ *Survivor, err error) {
	if !exists(filepath.Join(path, identityName)) && !exists(filepath.Join(path, recoveringDir)) {
		return nil, fmt.Errorf("%s is no data directory of a node: there is no %s", path, identityName)
	}
	dir, err := holdDataDir(path)
	if err != nil {
		return nil, err
	}
	s := &Survivor{dir: dir, machine: fsm.New()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	raw, err := os.ReadFile(dir.file())
	if err != nil {
		return nil, unusable(path, err)
	}
	id, err := decodeIdentity(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	case id.Removed:
		return nil, fmt.Errorf("data directory %s: %w", path, ErrRemoved)
	case id.ClusterID == "":
		return nil, fmt.Errorf("data directory %s has nothing to recover: its node never was in a cluster", path)
	}
	s.id, s.Name, s.ClusterID = id, id.Name, id.ClusterID
	s.cfg = Config{DataDir: path, LogStore: "wal", SegmentBytes: recoverySegment, Logger: logger}
	if exists(filepath.Join(path, boltLogFile)) {
		s.cfg.LogStore = "boltdb"
	}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// recoverySegment is the size of the new log's first segment, which is allocated whole.
const recoverySegment = 4 << 20

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Close lets go of the data directory.
func (s *Survivor) Close() error {
	return errors.Join(closeStores(s.stores), s.dir.Close())
}

// View shows the state that will be recovered.
func (s *Survivor) View(fn func(v fsm.View)) { s.machine.View(fn) }

// read applies everything that the directory has, as the node would if all of it were committed.
func (s *Survivor) read() (err error) {
	var failed error
	if s.stores, err = openStores(&s.cfg, func(err error) { failed = err }); err != nil {
		return err
	}
	a := newApplier(s.machine)
	a.fatal = func(err error) { failed = err }
	snapshots, err := s.stores.Snapshots.List()
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		meta, content, err := s.stores.Snapshots.Open(snapshots[0].ID)
		if err == nil {
			err = a.Restore(content)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
		s.LastIndex, s.LastTerm, s.members = meta.Index, meta.Term, meta.Configuration
	}
	log := s.stores.Log.(haltingLog).guardedLog // which says what is wrong instead of ending raft's goroutine
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	for index := s.LastIndex + 1; index <= last && failed == nil; index++ {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return err
		}
		s.LastIndex, s.LastTerm = entry.Index, entry.Term
		switch entry.Type {
		case raft.LogCommand:
			a.Apply(&entry)
		case raft.LogConfiguration:
			if s.members, err = decodeMembers(entry.Data); err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrStorage, index, err)
			}
			a.StoreConfiguration(index, s.members)
		}
	}
	if failed != nil {
		return failed
	}
	return s.who()
}

// decodeMembers reads a configuration, where raft panics on what it can't read.
func decodeMembers(b []byte) (c raft.Configuration, err error) {
	err = contain(func() error { c = raft.DecodeConfiguration(b); return nil })
	return c, err
}

// who names the members.
func (s *Survivor) who() error {
	names := map[string]string{}
	s.View(func(v fsm.View) {
		for _, row := range v.Servers() {
			names[row.ID] = row.Name
		}
	})
	for _, m := range s.members.Servers {
		name := names[string(m.ID)]
		if name == "" {
			name = string(m.ID)
		}
		s.Members = append(s.Members, name)
		if string(m.ID) == s.id.ServerID {
			s.address, s.Voter = string(m.Address), m.Suffrage == raft.Voter
		}
	}
	if s.address == "" {
		return fmt.Errorf("server %s is no member of cluster %s as far as its own log of %d entries goes: recover another survivor",
			s.id.ServerID, s.ClusterID, s.LastIndex)
	}
	return nil
}

// Recovery is what a recovered directory is.
type Recovery struct {
	ClusterID  string // new
	Generation uint64
	Kept       string // where the old files are now, until somebody removes them
}

// Recover turns the directory into that of a new server, alone in a new cluster, whose state is the survivor's, raised. A crash on
// the way leaves it as it was, or the next start or recovery finishes it. The Survivor is closed by it.
func (s *Survivor) Recover() (_ *Recovery, err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	id := newIdentity(s.Name)
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	id.ClusterID, id.Started = hex.EncodeToString(random[:]), true
	founder := fsm.Server{ID: id.ServerID, Name: s.Name, NodeAddr: s.address}
	var generation uint64
	s.View(func(v fsm.View) {
		generation = v.Generation()
		for _, row := range v.Servers() {
			if row.ID == s.id.ServerID {
				founder.HTTPAddr, founder.Version = row.HTTPAddr, row.Version
			}
		}
	})
	plan, err := s.machine.Refound(id.ClusterID, founder)
	if err != nil {
		return nil, err
	}
	kept := filepath.Join(s.dir.path, beforeDir+strconv.FormatUint(generation, 10))
	if exists(kept) {
		return nil, fmt.Errorf("%s is there already: move it away", kept)
	}
	temp := filepath.Join(s.dir.path, recoveryDir)
	if err := os.RemoveAll(temp); err != nil {
		return nil, unusable(s.dir.path, err)
	}
	err = s.write(temp, id, founder, plan)
	if err == nil {
		err = os.Mkdir(filepath.Join(temp, filepath.Base(kept)), 0o700)
	}
	for _, dir := range []string{temp, s.dir.path} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	err = closeStores(s.stores)
	s.stores = Stores{}
	if err == nil {
		err = rename(temp, filepath.Join(s.dir.path, recoveringDir)) // from here on it only goes forward
	}
	if err == nil {
		err = finishRecovery(s.dir.path)
	}
	if err != nil {
		return nil, unusable(s.dir.path, err)
	}
	return &Recovery{ClusterID: id.ClusterID, Generation: plan.Generation, Kept: kept}, nil
}

// write writes a whole data directory, and reads it again as a start would.
func (s *Survivor) write(path string, id identity, founder fsm.Server, plan *fsm.Raise) error {
	dir, err := holdDataDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	cfg := s.cfg
	cfg.DataDir = path
	stores, err := diskStorage{}.Open(&cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if err := s.fill(stores, id, founder, plan); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), closeStores(stores))
	}
	if err := errors.Join(closeStores(stores), dir.save(id)); err != nil {
		return err
	}
	return s.verify(&cfg, plan)
}

// fill writes term and snapshot.
func (s *Survivor) fill(stores Stores, id identity, founder fsm.Server, plan *fsm.Raise) error {
	if err := (checkedStable{stores.Stable}).SetUint64([]byte("CurrentTerm"), s.LastTerm); err != nil {
		return err
	}
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id.ServerID), Address: raft.ServerAddress(founder.NodeAddr)}}}
	_, encoder := raft.NewInmemTransport("") // of the addresses, in a form that only raft before 1.0 reads
	sink, err := stores.Snapshots.Create(raft.SnapshotVersionMax, s.LastIndex, s.LastTerm, alone, s.LastIndex, encoder)
	if err != nil {
		return err
	}
	_, err = sink.Write(plan.Front())
	if err == nil {
		_, err = s.machine.Handle().WriteTo(sink)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// verify reads the new directory.
func (s *Survivor) verify(cfg *Config, plan *fsm.Raise) error {
	stores, err := openStores(cfg, func(error) {})
	if err != nil {
		return err
	}
	defer func() { _ = closeStores(stores) }()
	snapshots, err := stores.Snapshots.List()
	if err != nil || len(snapshots) != 1 {
		return fmt.Errorf("%w: the new snapshot can't be read: %w", ErrStorage, err)
	}
	_, content, err := stores.Snapshots.Open(snapshots[0].ID)
	if err != nil {
		return fmt.Errorf("%w: the new snapshot can't be read: %w", ErrStorage, err)
	}
	defer content.Close()
	m := fsm.New()
	if err := m.Restore(io.NopCloser(content)); err != nil {
		return fmt.Errorf("%w: the new snapshot can't be read: %w", ErrStorage, err)
	}
	m.View(func(v fsm.View) {
		if v.Generation() != plan.Generation || v.Index() != s.machine.Index() {
			err = fleet.Errorf(fleet.Internal, "the new snapshot is of generation %d and index %d", v.Generation(), v.Index())
		}
	})
	return err
}

// finishRecovery puts the files of a recovery in their places, if there is one that is whole, and keeps what was there. It can be
// interrupted anywhere and called again. The caller holds the directory's lock.
func finishRecovery(path string) error {
	from := filepath.Join(path, recoveringDir)
	if !exists(from) {
		return nil
	}
	kept, err := filepath.Glob(filepath.Join(from, beforeDir+"*"))
	if err != nil {
		return err
	}
	if len(kept) == 1 {
		for _, name := range durables {
			if err := exchange(path, from, kept[0], name); err != nil {
				return err
			}
		}
		if err := rename(kept[0], filepath.Join(path, filepath.Base(kept[0]))); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(from), syncDir(path))
}

// exchange keeps what has a name in a data directory, and puts what is new in its place. What is new is still where it was until what
// it replaces is kept.
func exchange(path, from, kept, name string) error {
	place, old, next := filepath.Join(path, name), filepath.Join(kept, name), filepath.Join(from, name)
	if exists(place) && (exists(next) || name == restorePendingFile) { // a mark is only ever of the old
		if err := rename(place, old); err != nil {
			return err
		}
		if err := errors.Join(syncDir(kept), syncDir(path)); err != nil {
			return err
		}
	}
	if !exists(next) {
		return nil
	}
	if err := rename(next, place); err != nil {
		return err
	}
	return errors.Join(syncDir(path), syncDir(from))
}
