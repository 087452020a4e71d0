package cluster

// This file opens what is durable, checks that the parts agree, and puts the checksums, the mark and the watchdog around them.

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// openStores opens the node's storage, the real one if the configuration has none of its own. fatal is called once, at the first
// error of a write, at a write that hangs, or at damage found in a read; its error wraps ErrStorage, as does that of openStores.
func openStores(cfg *Config, fatal func(error)) (Stores, error) {
	dog := &watchdog{limit: writeLimit, fatal: func(error) {}} // until it is open, the error is the answer
	var s Stores
	err := contain(func() (err error) {
		s, err = openChecked(cfg, dog)
		return err
	})
	if err != nil {
		return Stores{}, fmt.Errorf("%w: opening %s: %w", ErrStorage, cfg.DataDir, err)
	}
	dog.fatal = fatal
	return s, nil
}

func openChecked(cfg *Config, dog *watchdog) (Stores, error) {
	storage := cfg.Storage
	if storage == nil {
		storage = diskStorage{}
	}
	inner, err := storage.Open(cfg)
	if err != nil {
		return Stores{}, err
	}
	stable := guardedStable{checkedStable{inner.Stable}, dog}
	log, err := newGuardedLog(inner.Log, stable)
	if err != nil {
		return Stores{}, errors.Join(err, closeStores(inner))
	}
	snapshots := &usableSnapshots{SnapshotStore: inner.Snapshots, log: log.markedLog, logger: cfg.Logger, intact: map[string]bool{}}
	tail, err := checkStores(log.markedLog, stable, snapshots, cfg.MaxLevel)
	if err != nil {
		return Stores{}, errors.Join(err, closeStores(inner))
	}
	return Stores{
		Log: haltingLog{log}, Stable: haltingStable{stable}, Snapshots: snapshots, tail: tail,
		Close: func() error { return errors.Join(log.mark.close(), closeStores(inner)) },
	}, nil
}

func newGuardedLog(log raft.LogStore, stable guardedStable) (guardedLog, error) {
	mark, err := loadMark(stable)
	if err != nil {
		return guardedLog{}, err
	}
	return guardedLog{markedLog{checkedLog{log}, mark}, stable.dog}, nil
}

func closeStores(s Stores) error {
	if s.Close == nil {
		return nil
	}
	return s.Close()
}

// remedy is what a node that lost something can do: the others still have it.
const remedy = "wipe this data directory; the node then joins its cluster again by itself"

// checkStores refuses to start on stores that lost something, or whose log is above this level (0: whatever it holds). It reads what raft
// reads at its start, because raft panics there.
func checkStores(log markedLog, stable raft.StableStore, snapshots raft.SnapshotStore, level int) (tail logTail, err error) {
	last, err := log.LastIndex()
	if err != nil {
		return tail, err
	}
	if acked := log.mark.stored; last < acked {
		return tail, fmt.Errorf("the log ends at entry %d, but entry %d was acknowledged: %s", last, acked, remedy)
	}
	usable, err := snapshots.List()
	if err != nil {
		return tail, err
	}
	tail.last = last
	if len(usable) > 0 {
		tail.from = usable[0].Index
	}
	if last > 0 && last < tail.from && log.IsMonotonic() {
		return tail, dropOldLog(log, last) // raft was about to, when the process died after it had received the snapshot
	}
	term, err := tail.check(log, level)
	if err != nil {
		return tail, err
	}
	current, err := termAndVote(stable)
	if err != nil {
		return tail, err
	}
	if term > current {
		return tail, fmt.Errorf("the log is at term %d, but the stable store at %d, so votes are forgotten: %s", term, current, remedy)
	}
	return tail, nil
}

// checkNotEmptied refuses stores that somebody has emptied, or replaced, under a node that had a log: it would vote again in terms in
// which it has voted, and acknowledge again what it has forgotten.
func checkNotEmptied(id identity, s Stores) error {
	last, err := s.Log.LastIndex()
	if err != nil || !id.Started || last > 0 {
		return err
	}
	if snapshots, err := s.Snapshots.List(); err != nil || len(snapshots) > 0 {
		return err
	}
	return fmt.Errorf("%w: server %s had a log, and it is gone: %s", ErrStorage, id.ServerID, remedy)
}

// dropOldLog empties a log that ends before the snapshot: a store without holes could not take what follows the snapshot.
func dropOldLog(log markedLog, last uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	return log.DeleteRange(first, last)
}

// check reads the entries of a tail, and returns the last one's term. One that can't be applied is met here, and not when this node
// votes already.
func (t *logTail) check(log raft.LogStore, level int) (term uint64, err error) {
	var entry raft.Log
	for index := t.from + 1; index <= t.last; index++ {
		if err := log.GetLog(index, &entry); err != nil {
			return 0, fmt.Errorf("reading entry %d of the log: %w: %s", index, err, remedy)
		}
		if err := knows(level, &entry); level > 0 && err != nil {
			return 0, fmt.Errorf("reading entry %d of the log: %w: %s", index, err, newerRelease)
		}
		if entry.Type == raft.LogConfiguration {
			t.configurations = append(t.configurations, index)
		}
		term = entry.Term
	}
	return term, nil
}

// termAndVote reads what raft reads there, under its keys, and returns the term.
func termAndVote(stable raft.StableStore) (uint64, error) {
	term, err := stable.GetUint64([]byte("CurrentTerm"))
	if err != nil && !isNotFound(err) {
		return 0, fmt.Errorf("%w: %s", err, remedy)
	}
	if _, err := stable.GetUint64([]byte("LastVoteTerm")); err != nil && !isNotFound(err) {
		return 0, fmt.Errorf("%w: %s", err, remedy)
	}
	if _, err := stable.Get([]byte("LastVoteCand")); err != nil && !isNotFound(err) {
		return 0, fmt.Errorf("%w: %s", err, remedy)
	}
	return term, nil
}
