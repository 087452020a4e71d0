package cluster

// This file restores a backup: spooled to disk, verified to its last byte, then given to raft by the leader with a raise in front.
//
// Whichever node is called spools it and sends it to the leader. There it is like the beginning of another term: everything that
// leads ends, what is in flight is answered, raft takes the snapshot and replicates it, and leading begins anew.

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// spoolPattern is what spools are named; spoolWait is how long another node may be silent in the middle of one.
const (
	spoolPattern = "restore-*.spool"
	spoolWait    = 30 * time.Second
)

// restoreRequest is a verified backup on its way to the goroutine that leads.
type restoreRequest struct {
	file   *os.File
	size   int64
	backup *fsm.Backup
	more   uint64

	plan *fsm.Raise
	err  error
	done chan struct{}
}

func (q *restoreRequest) finish(plan *fsm.Raise, err error) {
	q.plan, q.err = plan, err
	close(q.done)
}

// Restore replaces the whole state by a backup, more is added to the generation that follows from both. A bad file is
// invalid_snapshot and changes nothing; outcome_unknown says that leadership was lost on the way. It does not give up with ctx
// once the leader has begun.
func (n *Node) Restore(ctx context.Context, backup io.Reader, more uint64) (*fleet.RestoreResult, error) {
	n.enter()
	defer n.leave()
	file, size, err := n.spool(backup)
	if err != nil {
		return nil, err
	}
	defer unspool(file)
	for {
		to, err := n.awaitLeader(ctx, leaderWait)
		if err != nil {
			return nil, err
		}
		var result *fleet.RestoreResult
		if to.self {
			result, err = n.restoreHere(ctx, file, size, more)
		} else {
			result, err = n.restoreThere(ctx, to, file, size, more)
		}
		if !errors.Is(err, errNotProposed) {
			return result, err
		}
		if err := n.pauseForLeader(ctx, to); err != nil {
			return nil, err
		}
	}
}

// spool writes a backup to the data directory: it may be larger than memory, and raft wants to know its size.
func (n *Node) spool(r io.Reader) (*os.File, int64, error) {
	file, err := os.CreateTemp(n.cfg.DataDir, spoolPattern) // it has mode 0600: tokens' hashes are in it
	if err != nil {
		return nil, 0, fleet.Errorf(fleet.DiskFull, "the backup can't be spooled: %v", err)
	}
	read := &readErrors{r: r}
	size, err := io.Copy(file, read)
	switch {
	case read.err != nil:
		err = fleet.Errorf(fleet.InvalidSnapshot, "the backup ended early, after %d bytes: %v", size, read.err)
	case err != nil:
		err = fleet.Errorf(fleet.DiskFull, "the backup can't be spooled: %v", err)
	default:
		return file, size, nil
	}
	unspool(file)
	return nil, 0, err
}

// readErrors tells an error of the sender from one of the disk.
type readErrors struct {
	r   io.Reader
	err error
}

func (e *readErrors) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}

func unspool(file *os.File) {
	_ = file.Close()
	_ = os.Remove(file.Name()) // the next start tries again
}

// removeSpools removes what a crash left.
func removeSpools(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, spoolPattern))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// restoreHere verifies the backup and has it restored, if this node leads.
func (n *Node) restoreHere(ctx context.Context, file *os.File, size int64, more uint64) (*fleet.RestoreResult, error) {
	select {
	case n.oneBackup <- struct{}{}:
		defer n.oneBackup.Unlock()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	backup, err := fsm.ReadBackup(io.NewSectionReader(file, 0, size))
	if err != nil {
		var refused *fleet.Error
		if errors.As(err, &refused) {
			return nil, refused
		}
		return nil, err
	}
	if _, err := n.machine.Raise(backup, more, 0); err != nil { // it will be asked again; nothing has to stop for a refusal
		return nil, err
	}
	q := &restoreRequest{file: file, size: size, backup: backup, more: more, done: make(chan struct{})}
	select {
	case n.restores <- q:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-n.closing:
		return nil, errNotProposed
	}
	select {
	case <-q.done:
	case <-n.done: // closed: nobody reads the file any more
		return nil, unknownOutcome("the node stopped")
	}
	if q.err != nil {
		return nil, q.err
	}
	result := &fleet.RestoreResult{Generation: q.plan.Generation, Tokens: q.plan.Tokens(backup)}
	ctx, cancel := context.WithTimeout(n.lifetime, leaderWait)
	defer cancel()
	n.machine.View(func(v fsm.View) { result.Index = v.Index() })
	_ = n.Read(ctx, Linearizable, 0, func(v fsm.View) { result.Index = v.Index() }) // it is restored, whether or not it can be read yet
	return result, nil
}

// takeBackup gives a backup to raft. The caller leads, and has ended all else that leads. The error is errNotProposed, or says what
// became of it.
func (n *Node) takeBackup(q *restoreRequest) error {
	n.proposer.busy.Lock() // until what is in flight is answered
	defer n.proposer.release()
	if err := n.settled(n.raft.Barrier(barrierWait)); err != nil {
		return errNotProposed
	}
	now, known := n.clock.median(n.lifetime, majorityWait)
	if !known { // its time could not be taken back
		return errNotProposed
	}
	plan, err := n.machine.Raise(q.backup, q.more, now)
	if err != nil {
		return err
	}
	q.plan = plan
	front := plan.Front()
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: q.backup.Index, Size: int64(len(front)) + q.size}
	n.log.Info("restoring a backup", "bytes", q.size, "backupIndex", q.backup.Index, "backupAt", q.backup.Now, "generation", plan.Generation)
	restored := make(chan error, 1)
	go func() {
		restored <- n.raft.Restore(meta, io.MultiReader(bytes.NewReader(front), io.NewSectionReader(q.file, 0, q.size)), 0)
	}()
	select {
	case err = <-restored:
	case <-n.closing:
		return unknownOutcome("the node stopped")
	}
	pending := n.restoring.pending.Load() != nil
	switch {
	case err == nil: // raft has committed an entry behind it
		if err := n.restoring.clear(); err != nil {
			n.stop(err)
			return unknownOutcome(err.Error())
		}
		n.log.Info("restored a backup", "generation", plan.Generation)
		return nil
	case pending:
		return unknownOutcome(fmt.Sprintf("a backup was restored on the leader, which failed to replicate it: %v", err))
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errNotProposed
	}
	return fleet.Errorf(fleet.Internal, "raft does not take the backup, nothing was changed: %v", err)
}

// barrierWait is how long a restore waits for its turn in raft.
const barrierWait = 10 * time.Second

// settled waits for a future until the node closes.
func (n *Node) settled(f raft.Future) error {
	select {
	case err := <-outcome(f):
		return err
	case <-n.closing:
		return raft.ErrRaftShutdown
	}
}

// restoreThere sends a backup to the leader: what is added, its size, its bytes. The answer is one byte and what belongs to it.
func (n *Node) restoreThere(ctx context.Context, to target, file *os.File, size int64, more uint64) (*fleet.RestoreResult, error) {
	dialing, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	conn, err := n.transport.dialStream(dialing, streamRestore, to.id, string(to.addr))
	if err != nil {
		return nil, errNotProposed
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, more), uint64(size))
	if _, err := io.Copy(patientConn{conn}, io.MultiReader(bytes.NewReader(head), io.NewSectionReader(file, 0, size))); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errNotProposed // the leader never had all of it
	}
	answered := make(chan struct{})
	go n.attend(to, conn, answered)
	b, err := io.ReadAll(conn)
	close(answered)
	switch {
	case err != nil || len(b) == 0:
		return nil, unknownOutcome("the connection to the leader was lost")
	case b[0] == replyOK:
		result := &fleet.RestoreResult{}
		if err := json.Unmarshal(b[1:], result); err != nil {
			return nil, fmt.Errorf("reading the leader's answer: %w", err)
		}
		return result, nil
	case b[0] == replyRefused:
		if a, _, err := fsm.DecodeAnswer(b[1:]); err == nil && a.Err != nil {
			return nil, a.Err
		}
	case b[0] == replyNotProposed:
		return nil, errNotProposed
	}
	return nil, unknownOutcome("the leader failed")
}

// attend hangs up on a leader that has led no more for a while, until it has answered: one that is cut off never does.
func (n *Node) attend(to target, conn net.Conn, answered <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for led := time.Now(); time.Since(led) < spoolWait; {
		select {
		case <-ticker.C:
			if now, ok := n.leader(); ok && now.id == to.id {
				led = time.Now()
			}
		case <-answered:
			return
		}
	}
	_ = conn.Close()
}

// serveRestore is the leader's side of restoreThere.
func (n *Node) serveRestore(conn net.Conn, peer string) {
	defer conn.Close()
	stop := context.AfterFunc(n.lifetime, func() { _ = conn.Close() })
	defer stop()
	var head [16]byte
	in := patientConn{conn}
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return
	}
	more, size := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:])
	file, got, err := n.spool(io.LimitReader(in, int64(size&(1<<62-1))))
	if err == nil {
		defer unspool(file)
		if got < int64(size) {
			n.log.Warn("a backup that another node sent ended early", "peer", peer)
			return
		}
	}
	var result *fleet.RestoreResult
	switch {
	case err != nil:
	case !n.leading.Load():
		err = errNotProposed
	default:
		result, err = n.restoreHere(n.lifetime, file, got, more)
	}
	reply := []byte{replyUnknown}
	var refused *fleet.Error
	switch {
	case err == nil:
		if b, err := json.Marshal(result); err == nil {
			reply = append([]byte{replyOK}, b...)
		}
	case errors.Is(err, errNotProposed):
		reply = []byte{replyNotProposed}
	case errors.As(err, &refused):
		if b, err := fsm.AppendAnswer([]byte{replyRefused}, &fsm.Answer{Err: refused}); err == nil {
			reply = b
		}
	}
	_, _ = in.Write(reply) // the asker notices
}

// patientConn gives up on a peer that is silent, not on one that is slow.
type patientConn struct{ net.Conn }

func (c patientConn) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(spoolWait))
	return c.Conn.Read(b)
}

func (c patientConn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(spoolWait))
	return c.Conn.Write(b)
}
