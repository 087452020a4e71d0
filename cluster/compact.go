package cluster

// This file decides when the log is compacted into a snapshot, how fast that is written, and how much of the log stays: by bytes, because
// entries are groups of any size.

import (
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// compactEvery is how often the bytes are looked at. The nodes are out of step by chance, so that not all write at once.
const compactEvery = 5 * time.Second

// compact snapshots when it is due, until the node closes.
func (n *Node) compact(r *raft.Raft) {
	for {
		timer := time.NewTimer(compactEvery + rand.N(compactEvery))
		select {
		case <-timer.C:
		case <-n.closing:
			timer.Stop()
			return
		}
		if n.snapshotDue(n.logBytes.Load()) {
			n.takeSnapshot(r)
		}
	}
}

// takeSnapshot writes a snapshot and lets go of the log before it, and reports whether it did.
func (n *Node) takeSnapshot(r *raft.Raft) bool {
	n.snapping.Lock()
	defer n.snapping.Unlock()
	written, began := n.logBytes.Load(), time.Now()
	if err := r.Snapshot().Error(); err != nil {
		if n.lifetime.Err() == nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) && n.space.spoken.allow("snapshot", spaceSay) {
			n.log.Warn("writing a snapshot", "error", err)
		}
		return false
	}
	n.logBytes.Add(-written)
	n.log.Info("wrote a snapshot", "index", n.machine.Index(), "durationSeconds", time.Since(began).Seconds())
	return true
}

// snapshotBusy reports whether a snapshot is being read, which is while a follower is sent one.
func (n *Node) snapshotBusy() bool {
	s, ok := n.stores.Snapshots.(*usableSnapshots)
	return ok && s.reading.Load() > 0
}

// snapshotDue: the log has grown by SnapshotBytes, or by half of the last snapshot if that is more; or there is no snapshot any more
// that a follower could be given. Never while one is read, which is while a follower is sent one.
func (n *Node) snapshotDue(written int64) bool {
	if n.snapshotBusy() {
		return false
	}
	snapshots, err := n.stores.Snapshots.List()
	if err != nil {
		n.log.Warn("the snapshots are no use any more: writing another", "error", err)
		return true
	}
	return written >= n.enoughLog(snapshots)
}

// enoughLog is how many bytes of log are worth a snapshot.
func (n *Node) enoughLog(snapshots []*raft.SnapshotMeta) int64 {
	if len(snapshots) == 0 {
		return n.cfg.SnapshotBytes
	}
	return max(n.cfg.SnapshotBytes, snapshots[0].Size/2)
}

// The writer of a snapshot works for snapshotWork, then rests for snapshotRest times as long: calls come first
// (BenchmarkWritesDuringSnapshot).
const (
	snapshotWork = 1 * time.Millisecond
	snapshotRest = 2
)

// errGivenUp ends a snapshot that is being written when the node closes.
var errGivenUp = errors.New("given up: the node closes")

// slowly writes a snapshot with rests, but none once the log has grown by enough for the next, or while the disk is short of the room that
// it will give back.
func (n *Node) slowly(w io.Writer) io.Writer {
	snapshots, _ := n.stores.Snapshots.List() // without one, the least is enough
	most := n.logBytes.Load() + n.enoughLog(snapshots)
	hurry := func() bool { return n.logBytes.Load() >= most || n.space.low() }
	return &slowWriter{w, n.rests(snapshotWork, snapshotRest), hurry}
}

// slowWriter rests between writes.
type slowWriter struct {
	io.Writer
	rest  func() bool
	hurry func() bool
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if !w.hurry() && !w.rest() {
		return 0, errGivenUp
	}
	return w.Writer.Write(b)
}

// persisted is called when a snapshot is written but not yet in force.
func (n *Node) persisted(size int64, took time.Duration) {
	n.metrics.snapshot.Observe(took.Seconds())
	n.space.snapshot.Store(size)
	n.keepLog()
}

// keepLog is called when a snapshot is written but not yet in force. It keeps the log back to the one before, and a tenth more for what
// comes meanwhile, so that either can be started from; with no other one, the whole log.
func (n *Node) keepLog() {
	r := n.raftIfUp()
	if r == nil {
		return
	}
	previous := uint64(0)
	if snapshots, err := n.stores.Snapshots.List(); err == nil && len(snapshots) > 0 {
		previous = snapshots[0].Index
	}
	entries := r.LastIndex() - min(previous, r.LastIndex())
	reloadable := r.ReloadableConfig()
	reloadable.TrailingLogs = entries + entries/10 + 64
	if err := r.ReloadConfig(reloadable); err != nil {
		n.log.Warn("setting how much log is kept", "error", err)
	}
}
