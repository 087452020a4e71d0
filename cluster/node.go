package cluster

// This file starts a node, wires its parts together and stops it.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// ErrRemoved ends a node that was removed from its cluster; ErrStorage one that can't trust its disk any more.
var (
	ErrRemoved = errors.New("this server was removed from its cluster; wipe its data directory to let it join as a new one")
	ErrStorage = errors.New("storage failed")
	// ErrUnconfirmed ends a node that lost leadership while a backup that it restored was not confirmed by the others.
	ErrUnconfirmed = errors.New("a restored backup was not confirmed; start this node again: it throws its state away and joins as a new server")
)

// Node is one member of a cluster. All methods may be called at once.
type Node struct {
	cfg       Config
	id        string // raft server id
	log       hclog.Logger
	wall      Clock
	dir       *dataDir
	stores    Stores
	transport *transport
	gossip    *gossip

	machine    *fsm.Machine
	applier    *applier
	raftUp     atomic.Pointer[raft.Raft]
	raft       *raft.Raft // set before raftUp
	proposer   *proposer
	nudger     *nudger
	forwarder  *forwarder
	reads      *reads // of this node
	confirms   *reads // of the whole cluster, while this node leads
	clock      *leaderClock
	waiters    *waiters
	membership *membership
	space      *space
	prover     *prover
	metrics    *metrics

	restoring *restoreMark         // a restore that is not confirmed yet
	restores  chan *restoreRequest // for the goroutine that leads
	oneBackup slot                 // held while a backup is verified and restored: each takes the memory of a whole state

	leading   atomic.Bool   // leads, and has applied its leader-change entry
	deadlines chan struct{} // something is due before the reaper would wake
	reapsAt   atomic.Int64  // when the reaper wakes by itself, as a fleet.Time; 0 while this node does not lead
	notify    chan bool     // raft's word that this node leads, or no more
	startedAt uint64        // what was in the log at the start: ready once that is applied
	logBytes  atomic.Int64  // log written since the last snapshot
	snapping  slot          // held while a snapshot is written

	work     sync.WaitGroup  // what runs as long as the node does
	lifetime context.Context // ends when closing does
	draining chan struct{}   // closed when the node stops taking on new waits
	closing  chan struct{}   // closed when it closes
	broken   chan struct{}   // closed when the disk can't be trusted any more
	done     chan struct{}   // closed when it has closed
	drain    sync.Once
	stopOnce sync.Once
	end      context.CancelFunc

	mu         sync.Mutex // guards what follows
	leaderNews chan struct{}
	feeds      map[string]chan struct{}
	calls      int           // in flight
	silence    chan struct{} // closed when the last call ends; nil: nobody waits for that
	err        error
}

// Start opens the data directory, joins or forms the cluster in the background, and serves at once: until there is a leader,
// calls answer no_leader. The error is one line that says what to do.
func Start(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir, cfg.Name)
	if err != nil {
		return nil, err
	}
	restoring, err := loadRestoreMark(cfg.DataDir)
	if err == nil {
		err = errors.Join(removeSpools(cfg.DataDir), discardUnconfirmed(&cfg, dir, restoring))
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	n := &Node{
		restoring: restoring, restores: make(chan *restoreRequest), oneBackup: newSlot(),
		cfg: cfg, dir: dir, id: dir.identity().ServerID, log: cfg.Logger, wall: cfg.Clock, machine: fsm.New(),
		deadlines: make(chan struct{}, 1), notify: make(chan bool, 64),
		snapping: newSlot(), draining: make(chan struct{}), closing: make(chan struct{}), broken: make(chan struct{}), done: make(chan struct{}),
		leaderNews: make(chan struct{}), feeds: map[string]chan struct{}{},
	}
	n.lifetime, n.end = context.WithCancel(context.Background())
	if dir.identity().Removed {
		_ = dir.Close()
		return nil, ErrRemoved
	}
	if n.stores, err = openStores(&n.cfg, n.storageFailed); err != nil {
		_ = dir.Close()
		return nil, err
	}
	if err := checkNotEmptied(dir.identity(), n.stores); err != nil {
		_ = n.stores.Close()
		_ = dir.Close()
		return nil, err
	}
	if n.transport, err = newTransport(&n.cfg, dir, n.log); err != nil {
		_ = n.stores.Close()
		_ = dir.Close()
		return nil, err
	}
	if n.gossip, err = newGossip(&n.cfg, dir, n.transport, n.log); err != nil {
		_ = n.transport.Close()
		_ = n.stores.Close()
		_ = dir.Close()
		return nil, err
	}
	n.metrics = newMetrics(n, cfg.Metrics)
	n.applier = newApplier(n.machine)
	n.applier.level = cfg.MaxLevel
	n.applier.fatal, n.applier.news, n.applier.renewed = n.stop, n.spread, n.spreadAll
	n.applier.applied, n.applier.bytes = n.metrics.applied, func(b int) { n.logBytes.Add(int64(b)) }
	n.applier.slowly, n.applier.persisted = n.slowly, n.persisted
	n.stores.Log.(haltingLog).dog.stored = n.metrics.stored
	n.applier.confirm = func(index uint64) {
		if err := n.restoring.passed(index); err != nil {
			n.stop(err)
		}
	}
	if s, ok := n.stores.Snapshots.(*usableSnapshots); ok {
		s.raised = func(index uint64, members raft.Configuration) error {
			return n.restoring.set(pendingRestore{index, onlyVoter(members, raft.ServerID(n.id))})
		}
	}
	n.proposer, n.nudger, n.forwarder = newProposer(n), newNudger(n), newForwarder(n)
	n.reads, n.confirms = &reads{node: n, round: n.readIndex}, &reads{node: n, round: n.confirmedIndex}
	n.clock, n.waiters, n.space = &leaderClock{node: n}, newWaiters(n), newSpace(n)
	n.applier.granted = n.waiters.granted
	n.prover = newProver(n)
	n.applier.judge, n.applier.passed = n.prover.judge, n.prover.applied
	n.transport.shy = n.space.shy
	n.membership = &membership{
		changing: newSlot(),
		cfg:      &n.cfg, dir: dir, transport: n.transport, gossip: n.gossip, raft: n.raftIfUp,
		propose: func(ctx context.Context, c fsm.Command) error { _, err := n.proposeInternal(ctx, c); return err },
		view:    n.machine.View, stamp: n.stamp, room: n.space.own, checkpoint: n.prover.own, log: n.log, stop: n.stop,
	}
	n.transport.onForward, n.transport.onRestore = n.serveForward, n.serveRestore
	n.membership.start()
	n.work.Go(n.proposer.run)
	n.work.Go(n.nudger.run)
	n.work.Go(n.forwarder.run)
	n.work.Go(n.waiters.run)
	n.work.Go(n.space.run)
	n.work.Go(n.reread)
	n.work.Go(func() { n.followLeadership(n.notify) })
	n.work.Go(n.join)
	return n, nil
}

// join finds the node's cluster, or forms one, and starts raft. No Raft message is sent or answered before.
func (n *Node) join() {
	clusterID, first, err := n.membership.findCluster(n.lifetime)
	if err != nil {
		if n.lifetime.Err() == nil {
			n.stop(err)
		}
		return
	}
	n.transport.setClusterID(clusterID)
	r, err := n.startRaft()
	if err != nil {
		n.stop(fmt.Errorf("%w: starting raft: %w", ErrStorage, err))
		return
	}
	n.mu.Lock()
	select {
	case <-n.closing:
		n.mu.Unlock()
		_ = r.Shutdown().Error() // the stores are closed after it
		return
	default:
	}
	n.startedAt = r.LastIndex()
	n.raft = r
	n.raftUp.Store(r)
	n.mu.Unlock()
	if first != nil {
		if err := r.BootstrapCluster(*first).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			n.stop(fmt.Errorf("%w: bootstrapping: %w", ErrStorage, err))
			return
		}
	}
	n.work.Go(func() { n.watchLeader(r) })
	n.work.Go(func() { n.compact(r) })
	n.membership.run(n.lifetime)
}

// cachedEntries is how many of the last entries stay in memory: of 512 KiB each, seldom more.
const cachedEntries = 8

// startRaft starts raft over the node's stores and transport (docs/decisions/002-raft-settings.md).
func (n *Node) startRaft() (*raft.Raft, error) {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
	c.Logger = raftLogger{n.log.Named("raft")}
	switch n.cfg.Timing {
	case TimingLocal:
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 250*time.Millisecond, 250*time.Millisecond, 125*time.Millisecond
	case TimingLAN:
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
	case TimingWAN:
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 2*time.Second, 2*time.Second, time.Second
	}
	// nudge.go tells the followers sooner that an entry is committed. But these messages are pipelined and heartbeats are not: where a LAN is
	// slow, at 100 ms each way, only they keep the leader's lease.
	c.CommitTimeout = c.HeartbeatTimeout / 2
	if n.cfg.Timing == TimingLAN {
		c.CommitTimeout = 50 * time.Millisecond
	}
	c.MaxAppendEntries = 16
	c.SnapshotThreshold, c.SnapshotInterval = 1<<62, 365*24*time.Hour // compact.go decides, by bytes; so it does for TrailingLogs
	c.ShutdownOnRemove = true
	c.NotifyCh = n.notify
	// An entry that was just stored is read three times: for each follower, and to be applied there.
	log, err := raft.NewLogCache(cachedEntries, n.stores.Log)
	if err != nil {
		return nil, err
	}
	s := &starting{}
	return raft.NewRaft(c, n.applier, startingLog{log, s, n.stores.tail}, n.stores.Stable,
		startingSnapshots{n.stores.Snapshots.(*usableSnapshots), s}, startingTransport{n.transport.raft(), s})
}

func (n *Node) raftIfUp() *raft.Raft { return n.raftUp.Load() }

// watchLeader turns raft's observations into news of who leads, and ends the node when raft ended by itself.
func (n *Node) watchLeader(r *raft.Raft) {
	observations := make(chan raft.Observation, 16)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	last := ""
	for {
		n.announceLeader()
		if leader := n.Leader(); leader != last {
			n.log.Info("the leader changed", "leader", leader)
			last = leader
		}
		select {
		case o := <-observations:
			if o.Data == raft.Shutdown && n.lifetime.Err() == nil { // raft ends by itself only when it was removed
				n.membership.wasRemoved()
			}
		case <-n.closing:
			return
		}
	}
}

// spread tells of an entry's news. The state machine's goroutine calls it, so it does not block.
func (n *Node) spread(news fsm.News) {
	n.waiters.notify(false, news.Products...)
	n.waiters.notify(true, news.Factories...)
	if news.TokenEnded {
		n.spreadAll()
	}
	if len(news.Feeds) > 0 {
		n.mu.Lock()
		for _, product := range news.Feeds {
			if ch, ok := n.feeds[product]; ok {
				close(ch)
				delete(n.feeds, product)
			}
		}
		n.mu.Unlock()
	}
	n.hurryReaper()
}

// spreadAll tells everybody to look again: a token has ended, or the whole state is another, which a snapshot brought.
func (n *Node) spreadAll() {
	n.waiters.notifyAll()
	n.mu.Lock()
	for product, ch := range n.feeds {
		close(ch)
		delete(n.feeds, product)
	}
	n.mu.Unlock()
}

// FeedChanged is closed when the product's feed on this node grows, or who may read it has changed. Take it before reading the feed.
func (n *Node) FeedChanged(product string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch, ok := n.feeds[product]
	if !ok {
		ch = make(chan struct{})
		n.feeds[product] = ch
	}
	return ch
}

// Name is the node's label.
func (n *Node) Name() string { return n.cfg.Name }

// Leader is the name of the current leader, empty if none is known.
func (n *Node) Leader() string {
	r := n.raftIfUp()
	if r == nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if id == "" {
		return ""
	}
	if string(id) == n.id {
		return n.cfg.Name
	}
	return n.membership.nameOf(string(id))
}

// IsLeader reports whether this node leads and has applied its leader-change entry.
func (n *Node) IsLeader() bool { return n.leading.Load() }

// Now is this node's clock, corrected by its offset to the leader's stamps.
func (n *Node) Now() fleet.Time {
	if stamp, leads := n.stamp(); leads {
		return stamp
	}
	return max(fleet.TimeOf(n.wall.Now())+fleet.Time(n.membership.stampsAhead.Load()), n.machine.Now())
}

// stamp is the leader's clock, if this node leads.
func (n *Node) stamp() (fleet.Time, bool) { return n.clock.stamp(), n.leading.Load() }

// Draining is closed when the node takes on no more waits: streams should end then.
func (n *Node) Draining() <-chan struct{} { return n.draining }

// Drain prepares the end: the node is not ready any more, waiting claims are answered with nothing, and leadership is handed
// over. Calls are still served.
func (n *Node) Drain(ctx context.Context) {
	n.drain.Do(func() { close(n.draining) })
	r := n.raftIfUp()
	if r == nil || r.State() != raft.Leader || n.voters() < 2 {
		return
	}
	if err := n.TransferLeadership(ctx, ""); err != nil {
		n.log.Warn("handing leadership over", "error", err)
	}
}

// drainWait bounds how long calls in flight are waited for.
const drainWait = 10 * time.Second

// Shutdown drains the node, waits for the calls in flight, then closes it. What is still in flight after 10 s, or when ctx ends, ends
// with outcome_unknown.
func (n *Node) Shutdown(ctx context.Context) error {
	n.Drain(ctx)
	timer := time.NewTimer(drainWait)
	defer timer.Stop()
	select {
	case <-n.quiet():
	case <-timer.C:
	case <-ctx.Done():
	case <-n.done:
	}
	n.stop(nil)
	select {
	case <-n.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Kill closes the node at once: it hands nothing over and finishes nothing, much as a crash would. It is for tests.
func (n *Node) Kill() {
	n.stop(nil)
	<-n.done
	_ = n.dir.Close() // one that can't trust its disk has kept it, until its process ends
}

// Done is closed when the node has stopped, by Shutdown or by itself; Err then says why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is nil after Shutdown; it wraps ErrRemoved, ErrTooOld or ErrStorage if the node stopped itself.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// storageFailed ends the node at the first fault of its disk; it is called once at most.
func (n *Node) storageFailed(why error) {
	close(n.broken)
	n.stop(why)
}

// stop ends the node once, for a reason or none. It may be called from anywhere, raft's goroutines too.
func (n *Node) stop(why error) {
	n.stopOnce.Do(func() {
		n.mu.Lock()
		n.err = why
		close(n.closing)
		n.end()
		n.mu.Unlock()
		if why != nil {
			n.log.Error("this node stops", "error", why)
		}
		n.drain.Do(func() { close(n.draining) })
		go n.close(why)
	})
}

// close closes the parts. A node that can't trust its disk any more leaves its stores as they are: a write may hang for ever.
func (n *Node) close(why error) {
	defer close(n.done)
	n.gossip.Close()
	broken := errors.Is(why, ErrStorage) && !errors.Is(why, fsm.ErrFormat) // a newer release can go on with what is there
	var ended raft.Future
	if r := n.raftIfUp(); r != nil {
		ended = r.Shutdown()
	}
	_ = n.transport.Close() // before raft has ended: it would wait for the answers of nodes that say nothing
	if ended != nil && !broken {
		select {
		case err := <-outcome(ended):
			if err != nil {
				n.log.Warn("stopping raft", "error", err)
			}
		case <-n.broken: // while it was closing: a goroutine of raft has ended, and others may wait for it
			broken = true
		}
	}
	if broken {
		return
	}
	n.work.Wait()
	if n.stores.Close != nil {
		if err := n.stores.Close(); err != nil {
			n.log.Warn("closing the stores", "error", err)
		}
	}
	if err := n.dir.Close(); err != nil {
		n.log.Warn("closing the data directory", "error", err)
	}
}
