package cluster

// This file knows who leads, and does what only the leader does.

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
)

// target is where a write goes.
type target struct {
	self bool
	id   raft.ServerID
	addr raft.ServerAddress
	term uint64
}

// leader is the current target; false while none is known, or while this node leads but has not applied its leader-change
// entry yet.
func (n *Node) leader() (target, bool) {
	r := n.raftIfUp()
	if r == nil {
		return target{}, false
	}
	addr, id := r.LeaderWithID()
	if id == "" {
		return target{}, false
	}
	if id == raft.ServerID(n.id) {
		return target{self: true}, n.leading.Load()
	}
	// If the term is already a later one than this leader's, the leader refuses what is sent to it in that term.
	return target{id: id, addr: addr, term: r.CurrentTerm()}, true
}

// awaitLeader waits for a leader, at most as long as given.
func (n *Node) awaitLeader(ctx context.Context, patience time.Duration) (target, error) {
	var timer *time.Timer
	for {
		changed := n.leaderChanged()
		if t, ok := n.leader(); ok {
			return t, nil
		}
		if timer == nil {
			timer = time.NewTimer(patience)
			defer timer.Stop()
		}
		select {
		case <-changed:
		case <-timer.C:
			e := fleet.Errorf(fleet.NoLeader, "the cluster has no leader at the moment: a majority of its voters must be up and reach each other; nothing was done")
			e.RetryAfterSeconds = 1
			return target{}, e
		case <-ctx.Done():
			return target{}, context.Cause(ctx)
		case <-n.closing:
			return target{}, fleet.Errorf(fleet.NoLeader, "this node is stopping; try another one")
		}
	}
}

// pauseForLeader waits a moment for another leader than the one that just turned a call away.
func (n *Node) pauseForLeader(ctx context.Context, was target) error {
	changed := n.leaderChanged()
	if t, ok := n.leader(); ok && t != was {
		return nil
	}
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.closing:
	}
	return nil
}

// leaderChanged is closed when who leads changes.
func (n *Node) leaderChanged() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leaderNews
}

func (n *Node) announceLeader() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.leaderNews)
	n.leaderNews = make(chan struct{})
}

// followLeadership runs lead while this node leads. Raft blocks on notify, so it is always drained.
func (n *Node) followLeadership(notify <-chan bool) {
	var stop context.CancelFunc
	var ended chan struct{}
	resign := func() {
		if stop != nil {
			stop()
			<-ended
			stop = nil
		}
		n.leading.Store(false)
		n.proposer.setOpen(false)
		n.announceLeader()
	}
	begin := func() {
		ctx, cancel := context.WithCancel(context.Background())
		stop, ended = cancel, make(chan struct{})
		go func() { defer close(ended); n.lead(ctx) }()
	}
	defer resign()
	for {
		select {
		case leads := <-notify:
			resign()
			if p := n.restoring.pending.Load(); !leads && p != nil && !p.Only {
				n.stop(ErrUnconfirmed)
				return
			}
			if leads {
				begin()
			}
		case q := <-n.restores: // as the beginning of another term: a clock, a first entry, then everything else
			if !n.leading.Load() {
				q.finish(nil, errNotProposed)
				continue
			}
			resign()
			err := n.takeBackup(q)
			if n.restoring.pending.Load() != nil {
				n.stop(ErrUnconfirmed)
			}
			q.finish(q.plan, err)
			begin()
		case <-n.closing:
			return
		}
	}
}

// lead is a leader's term: its clock, its first entry, then proposals, the reaper, the membership, the disks and the checkpoints.
func (n *Node) lead(ctx context.Context) {
	n.clock.start(ctx)
	for { // nothing is served, stamped or reaped before this entry is applied (hashicorp/raft #509)
		if n.commit(nil) == nil {
			break
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	n.clock.reach(n.machine.Now())
	n.log.Info("leading the cluster", "term", n.raft.CurrentTerm())
	n.metrics.leaderChanges.Inc()
	n.space.begin()
	n.leading.Store(true)
	n.proposer.setOpen(true)
	n.announceLeader()
	done := make(chan struct{}, 5)
	for _, run := range []func(context.Context){n.clock.run, n.reap, n.membership.lead, n.space.lead, n.prover.lead} {
		go func() { run(ctx); done <- struct{}{} }()
	}
	for range cap(done) {
		<-done
	}
}
