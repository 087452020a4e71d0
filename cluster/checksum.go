package cluster

// This file gives every log entry, and term and vote, a checksum of our own: neither raft-wal nor bbolt checks what it reads, and a
// bit that turns on one node's disk would make its state another than everybody's, or let it vote twice.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errChecksum: an entry is not what the leader wrote.
var errChecksum = errors.New("the checksum does not match")

// checksum is the CRC-32C of what an entry means. AppendedAt is left out: it is only for metrics.
func checksum(l *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
	return binary.BigEndian.AppendUint32(nil, sum)
}

// verifyLog tells whether an entry is what the leader wrote.
func verifyLog(l *raft.Log) error {
	if string(l.Extensions) != string(checksum(l)) {
		return fmt.Errorf("entry %d of term %d: %w", l.Index, l.Term, errChecksum)
	}
	return nil
}

// checkedLog adds the checksum to what the leader stores, and verifies what comes from a leader or from the disk.
type checkedLog struct{ raft.LogStore }

// IsMonotonic says whether the store refuses holes. Raft then clears it after a restore instead of leaving one.
func (c checkedLog) IsMonotonic() bool {
	m, ok := c.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog fails for an entry that is damaged, or is not the one that was asked for.
func (c checkedLog) GetLog(index uint64, l *raft.Log) error {
	*l = raft.Log{} // a store whose entries name their fields would leave one that it does not find as it was
	if err := c.LogStore.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index {
		return fmt.Errorf("entry %d: found entry %d in its place: %w", index, l.Index, errChecksum)
	}
	return verifyLog(l)
}

func (c checkedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries that have no checksum with one: they are this leader's own, raft's too. It is added in place, because
// the same entries go to the followers and the state machine.
func (c checkedLog) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			l.Extensions = checksum(l)
			continue
		}
		if err := verifyLog(l); err != nil {
			return err
		}
	}
	return c.LogStore.StoreLogs(logs)
}

// checkedStable puts a checksum of key and value behind each value. Beside each key it keeps the word that there is one: bbolt would
// call a key not found in which a bit has turned, and raft would think that it has never voted.
type checkedStable struct{ raft.StableStore }

// wordOf is the key of the word that there is a value under a key.
func wordOf(key []byte) []byte { return append([]byte("fleet/set/"), key...) }

// Get fails for a value that is damaged or lost.
func (c checkedStable) Get(key []byte) ([]byte, error) {
	stored, err := c.StableStore.Get(key)
	if err != nil {
		if word, _ := c.StableStore.Get(wordOf(key)); isNotFound(err) && len(word) > 0 {
			return nil, fmt.Errorf("%s in the stable store is lost: %w", key, errChecksum)
		}
		return nil, err
	}
	n := len(stored) - crc32.Size
	if n < 0 || string(stored[n:]) != string(valueChecksum(key, stored[:n])) {
		return nil, fmt.Errorf("%s in the stable store: %w", key, errChecksum)
	}
	return stored[:n:n], nil
}

// Set stores the value first: a crash before the word is given is harmless.
func (c checkedStable) Set(key, value []byte) error {
	if err := c.StableStore.Set(key, append(value[:len(value):len(value)], valueChecksum(key, value)...)); err != nil {
		return err
	}
	if word, _ := c.StableStore.Get(wordOf(key)); len(word) > 0 {
		return nil
	}
	return c.StableStore.Set(wordOf(key), []byte{1})
}

// GetUint64 fails for a value that is damaged, or that Set has stored with another length.
func (c checkedStable) GetUint64(key []byte) (uint64, error) {
	value, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s in the stable store: got %d bytes, want a number", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func (c checkedStable) SetUint64(key []byte, value uint64) error {
	return c.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func valueChecksum(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(nil, sum)
}
