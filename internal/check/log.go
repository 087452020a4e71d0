package check

// This file gathers the committed log from the nodes of a cluster, whole though each of them compacts its own.

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// Log is the committed log of a cluster. It is for one goroutine.
type Log struct {
	// EntryOf reads what is applied at a log entry, nil if nothing is. Nil: the data is the entry.
	EntryOf func(*raft.Log) (*fsm.Entry, error)

	base    *fsm.Machine // the state before the first record; nil: nothing
	before  uint64       // the index of the last entry before it
	records []record     // by index, from the one after that
}

// record is what the log has at one index: an entry, or something of raft's own.
type record struct {
	kind  raft.LogType
	term  uint64
	data  []byte
	entry *fsm.Entry // nil if nothing is applied
}

// From makes a log that is empty yet one that goes on from a state, which has all entries up to an index: that of a recovered cluster.
func (l *Log) From(m *fsm.Machine, index uint64) { l.base, l.before = m, index }

// Last is the index up to which the log is known.
func (l *Log) Last() uint64 { return l.before + uint64(len(l.records)) }

// start is a machine to which nothing of the log is applied yet.
func (l *Log) start() (*fsm.Machine, error) {
	if l.base == nil {
		return fsm.New(), nil
	}
	return thaw(l.base.Handle())
}

// State is what the log up to an index comes to.
func (l *Log) State(upTo uint64) (*fsm.Machine, error) {
	m, err := l.start()
	if err != nil {
		return nil, err
	}
	for i, rec := range l.records[:upTo-l.before] {
		rec.apply(m, l.before+uint64(i+1))
	}
	return m, nil
}

// apply applies a record.
func (rec *record) apply(m *fsm.Machine, index uint64) (answers []fsm.Answer) {
	switch {
	case rec.entry != nil:
		answers, _ = m.Apply(index, rec.entry)
	case rec.kind == raft.LogConfiguration, rec.kind == raft.LogCommand:
		m.Skip(index)
	}
	return answers
}

// Append adds an entry that is no cluster's: a bare machine's.
func (l *Log) Append(e *fsm.Entry) error {
	data, err := fsm.AppendEntry(nil, e)
	if err != nil {
		return fmt.Errorf("encoding an entry: %w", err)
	}
	return l.add(&raft.Log{Index: l.Last() + 1, Type: raft.LogCommand, Data: data})
}

// Gather takes from a node's store what it has beyond what is known, up to the index that the node has applied. It must
// come by before the node compacts what no other has given. The node's snapshots may be nil.
func (l *Log) Gather(store raft.LogStore, snapshots raft.SnapshotStore, applied uint64) error {
	first, err := store.FirstIndex()
	if err != nil {
		return fmt.Errorf("gathering the log: %w", err)
	}
	if first > l.Last()+1 {
		return nil // it began after a snapshot: another node has what is between
	}
	for l.Last() < applied {
		var r raft.Log
		if err := store.GetLog(l.Last()+1, &r); err != nil {
			if covered(snapshots, l.Last()+1) {
				return nil
			}
			return fmt.Errorf("gathering entry %d, which is applied: %w", l.Last()+1, err)
		}
		if err := l.add(&r); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) add(r *raft.Log) error {
	rec := record{kind: r.Type, term: r.Term, data: bytes.Clone(r.Data)}
	read := l.EntryOf
	if read == nil {
		read = func(r *raft.Log) (*fsm.Entry, error) { return fsm.DecodeEntry(r.Data) }
	}
	if r.Type == raft.LogCommand {
		e, err := read(r)
		if err != nil {
			return fmt.Errorf("decoding entry %d: %w", r.Index, err)
		}
		rec.entry = e
	}
	l.records = append(l.records, rec)
	return nil
}

// Agrees checks I1 against one node: what was once committed is never another entry, on any node, for ever. The node's snapshots may be nil.
func (l *Log) Agrees(store raft.LogStore, snapshots raft.SnapshotStore, applied uint64) error {
	first, err := store.FirstIndex()
	if err != nil {
		return fmt.Errorf("comparing the log: %w", err)
	}
	for i := max(first, l.before+1); i <= min(applied, l.Last()); i++ {
		var r raft.Log
		if err := store.GetLog(i, &r); err != nil {
			if covered(snapshots, i) {
				continue
			}
			return fmt.Errorf("I1: entry %d was committed and is gone: %w", i, err)
		}
		if known := l.records[i-1-l.before]; known.kind != r.Type || known.term != r.Term || !bytes.Equal(known.data, r.Data) {
			return fmt.Errorf("I1: entry %d was committed in term %d and is another one now, of term %d", i, known.term, r.Term)
		}
	}
	return nil
}

// covered reports whether a snapshot holds what an entry did. A node that was given a snapshot never had the entries between its own last
// one and the snapshot's: stores that allow it keep a hole there until they compact.
func covered(snapshots raft.SnapshotStore, index uint64) bool {
	if snapshots == nil {
		return false
	}
	usable, err := snapshots.List()
	return err == nil && len(usable) > 0 && index <= usable[0].Index
}
