package cluster

// This file remembers on disk that a restored backup is in this node's state and perhaps in nobody else's: raft restores locally
// before it replicates. Until an entry behind it is applied the node serves nothing from it.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

const restorePendingFile = "restore-pending"

// restoreMark is the file, and what it says.
type restoreMark struct {
	path    string
	pending atomic.Pointer[pendingRestore] // nil: there is none
}

// pendingRestore is a snapshot that is not known to be committed.
type pendingRestore struct {
	Index uint64 `json:"index"`
	Only  bool   `json:"onlyVoter"` // nobody else could have decided otherwise: it stands whatever happens
}

func loadRestoreMark(dir string) (*restoreMark, error) {
	m := &restoreMark{path: filepath.Join(dir, restorePendingFile)}
	b, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s can't be read: %w: %s", ErrStorage, m.path, err, remedy)
	}
	var p pendingRestore
	if json.Unmarshal(b, &p) != nil || string(b) != string(p.encode()) && string(b) != string(p.plain()) {
		return nil, fmt.Errorf("%w: %s is damaged: %s", ErrStorage, m.path, remedy)
	}
	m.pending.Store(&p)
	return m, nil
}

// encode is the file's content: a bit that turns in it must not change what becomes of the state.
func (p pendingRestore) encode() []byte {
	body := fmt.Sprintf(`"index":%d,"onlyVoter":%t`, p.Index, p.Only)
	return fmt.Appendf(nil, "{%s,\"crc32c\":%q}\n", body, checksumText([]byte(body)))
}

// plain is what the first release wrote.
func (p pendingRestore) plain() []byte {
	return fmt.Appendf(nil, `{"index":%d,"onlyVoter":%t}`+"\n", p.Index, p.Only)
}

func (m *restoreMark) set(p pendingRestore) error {
	err := replaceFile(m.path, p.encode())
	if err != nil {
		return fmt.Errorf("%w: writing %s: %w", ErrStorage, m.path, err)
	}
	m.pending.Store(&p)
	return nil
}

// passed takes the mark away once an entry behind the snapshot is applied.
func (m *restoreMark) passed(index uint64) error {
	if p := m.pending.Load(); p == nil || index <= p.Index {
		return nil
	}
	return m.clear()
}

func (m *restoreMark) clear() error {
	err := os.Remove(m.path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = syncDir(filepath.Dir(m.path))
	}
	if err != nil {
		return fmt.Errorf("%w: removing %s: %w", ErrStorage, m.path, err)
	}
	m.pending.Store(nil)
	return nil
}

// refusal is why nothing is served at the moment, nil if all is.
func (m *restoreMark) refusal() error {
	if m.pending.Load() == nil {
		return nil
	}
	e := fleet.Errorf(fleet.NoLeader, "a backup is being restored, and is not confirmed yet; try again")
	e.RetryAfterSeconds = 1
	return e
}

// onlyVoter reports whether a server decides alone.
func onlyVoter(c raft.Configuration, id raft.ServerID) bool {
	voters, own := 0, false
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters++
			own = own || s.ID == id
		}
	}
	return own && voters == 1
}

// discarder is a storage that can forget everything.
type discarder interface{ Discard(cfg *Config) error }

// discardUnconfirmed makes a node that ended while a restore was not confirmed an empty one of the same name: its raft state may say
// what the cluster never decided. The mark goes last, so that a crash on the way only repeats it.
func discardUnconfirmed(cfg *Config, dir *dataDir, mark *restoreMark) error {
	p := mark.pending.Load()
	if p == nil || p.Only || dir.identity().Removed {
		return nil
	}
	storage := cfg.Storage
	if storage == nil {
		storage = diskStorage{}
	}
	d, ok := storage.(discarder)
	if !ok {
		return fmt.Errorf("%w: a restore was not confirmed: %s", ErrStorage, remedy)
	}
	cfg.Logger.Warn("this node ended while a restored backup was not confirmed by the others: its state is thrown away, and it joins as a new server",
		"index", p.Index, "wasServer", dir.identity().ServerID)
	if err := dir.save(newIdentity(cfg.Name)); err != nil {
		return err
	}
	if err := d.Discard(cfg); err != nil {
		return fmt.Errorf("%w: throwing away what was not confirmed: %w", ErrStorage, err)
	}
	return mark.clear()
}

// markedSink looks at how a snapshot begins: before one with a raise in front is in force, the mark is on disk.
type markedSink struct {
	raft.SnapshotSink
	head []byte
	mark func() error
}

func (s *markedSink) Write(b []byte) (int, error) {
	if room := fsm.RaisedHead - len(s.head); room > 0 {
		s.head = append(s.head, b[:min(room, len(b))]...)
	}
	return s.SnapshotSink.Write(b)
}

func (s *markedSink) Close() error {
	if fsm.IsRaised(s.head) {
		if err := s.mark(); err != nil {
			return errors.Join(err, s.SnapshotSink.Cancel())
		}
	}
	return s.SnapshotSink.Close()
}
