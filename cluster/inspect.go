package cluster

// This file reads a log as a node does, for what replays one.

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// EntryOf is what a node applies at a log entry: nil if it only moves the machine's index.
func EntryOf(l *raft.Log) (*fsm.Entry, error) {
	if l.Type != raft.LogCommand {
		return nil, nil
	}
	if err := verifyLog(l); err != nil {
		return nil, fmt.Errorf("reading entry %d: %w", l.Index, err)
	}
	head, data, err := openEnvelope(l.Data)
	if err != nil {
		return nil, fmt.Errorf("reading entry %d: %w", l.Index, err)
	}
	if head.term != l.Term {
		return nil, nil
	}
	e, err := fsm.DecodeEntry(data)
	if err != nil {
		return nil, fmt.Errorf("reading entry %d: %w", l.Index, err)
	}
	return e, nil
}
