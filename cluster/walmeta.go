package cluster

// This file keeps what raft-wal knows about its segments, in its own file and form, with a checksum: a digit that changes there could
// bring back entries that were cut off.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

// firstTransaction makes the file. Whoever finds nothing after a later one has lost it.
const firstTransaction = 2

// walMeta is a types.MetaStore. raft-wal calls one method at a time.
type walMeta struct{ db *bbolt.DB }

// openWALMeta opens the file in dir, or makes it as raft-wal does, so that a crash leaves none or a whole one.
func openWALMeta(dir string) (*walMeta, error) {
	path := filepath.Join(dir, metadb.FileName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		var first metadb.BoltMetaDB
		if _, err := first.Load(dir); err != nil {
			return nil, err
		}
		if err := first.Close(); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, err
		}
	}
	if err := checkBolt(path, metadb.MetaBucket, metadb.StableBucket); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: boltTimeout})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return &walMeta{db}, nil
}

// storedState is raft-wal's own form with a checksum of it beside.
type storedState struct {
	types.PersistentState
	Checksum string `json:"crc32c"`
}

func encodeState(state types.PersistentState) ([]byte, error) {
	body, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedState{state, checksumText(body)})
}

func decodeState(raw []byte) (types.PersistentState, error) {
	var s storedState
	if err := json.Unmarshal(raw, &s); err != nil {
		return s.PersistentState, fmt.Errorf("%s is damaged: %w: %s", metadb.FileName, err, remedy)
	}
	again, err := encodeState(s.PersistentState)
	if err != nil || string(again) != string(raw) {
		return s.PersistentState, fmt.Errorf("%s is damaged: %w: %s", metadb.FileName, errChecksum, remedy)
	}
	return s.PersistentState, nil
}

// Load reads the state; before the first commit it is empty.
func (m *walMeta) Load(string) (state types.PersistentState, err error) {
	err = m.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket([]byte(metadb.MetaBucket)).Get([]byte(metadb.MetaKey))
		if raw == nil && tx.ID() <= firstTransaction {
			return nil
		}
		state, err = decodeState(raw)
		return err
	})
	return state, err
}

// CommitState replaces the state. It is durable when CommitState returns. A panic of bbolt would end the process, as raft-wal calls this from a
// goroutine of its own.
func (m *walMeta) CommitState(state types.PersistentState) error {
	raw, err := encodeState(state)
	if err != nil {
		return err
	}
	return contain(func() error {
		return m.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(metadb.MetaBucket)).Put([]byte(metadb.MetaKey), raw)
		})
	})
}

var errNoStable = errors.New("term and vote are not kept with the log")

// GetStable and SetStable are for those who keep term and vote here.
func (*walMeta) GetStable([]byte) ([]byte, error) { return nil, errNoStable }
func (*walMeta) SetStable(_, _ []byte) error      { return errNoStable }

// Close closes the file.
func (m *walMeta) Close() error { return m.db.Close() }
