package cluster

// This file decides when the log is compacted into a snapshot: by bytes, because entries are groups of any size.

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// trailingLogs is how many entries stay behind a snapshot until the first two are known.
const trailingLogs = 10240

// compactEvery is how often the bytes are looked at. The nodes are out of step by chance, so that not all write at once.
const compactEvery = 5 * time.Second

// compact snapshots when the log has grown by SnapshotBytes, or by half of the last snapshot if that is more. The log is
// kept back to the snapshot before the last, so that either can be started from.
func (n *Node) compact(r *raft.Raft) {
	for {
		timer := time.NewTimer(compactEvery + rand.N(compactEvery))
		select {
		case <-timer.C:
		case <-n.closing:
			timer.Stop()
			return
		}
		snapshots, err := n.stores.Snapshots.List()
		if err != nil {
			n.log.Warn("listing snapshots", "error", err)
			continue
		}
		enough := n.cfg.SnapshotBytes
		keep := uint64(trailingLogs)
		if len(snapshots) > 0 {
			enough = max(enough, snapshots[0].Size/2)
			if applied := r.AppliedIndex(); applied > snapshots[0].Index {
				keep = max(keep, (applied-snapshots[0].Index)/10*11)
			}
		}
		written := n.logBytes.Load()
		if written < enough {
			continue
		}
		reloadable := r.ReloadableConfig()
		reloadable.TrailingLogs = keep
		if err := r.ReloadConfig(reloadable); err != nil {
			n.log.Warn("setting how much log is kept", "error", err)
			continue
		}
		began := time.Now()
		if err := r.Snapshot().Error(); err != nil {
			if !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
				n.log.Warn("writing a snapshot", "error", err)
			}
			continue
		}
		n.logBytes.Add(-written)
		n.log.Info("wrote a snapshot", "index", r.AppliedIndex(), "durationSeconds", time.Since(began).Seconds())
	}
}
