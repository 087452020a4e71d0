package cluster

// This file is what every node does about membership: it answers greetings, greets the others, and finds out when it was removed.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// When a node greets the others: while it is not led, when gossip has news or a server is not known yet, while it leads and the level
// waits for the others, and else seldom. After silenceLimit without a leader it asks whether it was removed.
const (
	greetEvery   = 2 * time.Second
	greetAnyway  = time.Minute
	silenceLimit = 5 * time.Second
)

// membership is a node's part in who belongs to the cluster.
type membership struct {
	cfg       *Config
	dir       *dataDir
	transport *transport
	gossip    *gossip
	raft      func() *raft.Raft // nil before it is up
	propose   func(ctx context.Context, c fsm.Command) error
	view      func(func(fsm.View))
	stamp     func() (fleet.Time, bool) // the leader's clock, if this node leads
	room      func() room               // on this node's disk
	// checkpoint is what this node's state was at a checkpoint, if it knows.
	checkpoint func(index uint64) (fsm.Checkpoint, bool)
	log        hclog.Logger
	stop       func(error)

	clockAhead  atomic.Int64 // this node's clock, of the median of the voters' clocks, in nanoseconds
	stampsAhead atomic.Int64 // the leader's stamps, of this node's clock

	leading  atomic.Bool // lead runs
	changing slot        // held during one change of Raft's configuration; taken before mu

	mu       sync.Mutex            // guards what follows
	joiners  map[string]*joiner    // by server id, while this node leads
	replies  map[string]helloReply // the latest answer of each server
	promoted map[string]time.Time  // since when a non-voter keeps up
	seldom   seldom
}

// start begins to answer greetings.
func (m *membership) start() {
	m.mu.Lock()
	m.joiners, m.replies, m.promoted = map[string]*joiner{}, map[string]helloReply{}, map[string]time.Time{}
	m.mu.Unlock()
	m.transport.setConfigured(m.configured)
	m.transport.setOnHello(m.answer)
}

// answer answers a greeting of a holder of the secret. The transport adds who this node is.
func (m *membership) answer(peerID, _ string, req helloRequest) helloReply {
	reply := helloReply{Clock: m.cfg.Clock.Now().UnixNano(), State: "joining", ContactMs: -1}
	m.view(func(v fsm.View) {
		reply.Applied, reply.AtLevel = v.Index(), v.Level()
		reply.Removed = rowOf(v, peerID).Removed
	})
	if stamp, leads := m.stamp(); leads {
		reply.Stamp = int64(stamp)
	}
	own := m.dir.identity()
	if r := m.raft(); r != nil {
		reply.State = stateWord(r.State())
		if last := r.LastContact(); !last.IsZero() {
			reply.ContactMs = time.Since(last).Milliseconds()
		}
		addr, id := r.LeaderWithID()
		reply.LeaderID, reply.LeaderAddr = string(id), bareAddr(string(addr))
	}
	switch req.Op {
	case opClock:
		return reply
	case opPromise:
		reply.Granted, reply.Refused = m.promise(peerID, req)
	case opRelease:
		if err := m.release(peerID, req.Cluster); err != nil {
			m.stop(fmt.Errorf("%w: taking a promise back: %w", ErrStorage, err))
		}
		reply.Granted = true
	case opJoin:
		reply.Granted, reply.Refused = m.joined(peerID, req.From, reply.Removed)
	case opStatus:
		own := m.room()
		reply.DiskFree, reply.Reserve = own.free, own.reserve
	case opCheckpoint:
		if c, known := m.checkpoint(req.Index); known {
			reply.Checkpoint = &c
		}
	case opWho:
		if own.ClusterID == "" {
			reply.Join = m.cfg.Join
		}
	}
	return reply
}

func stateWord(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "stopped"
	}
	return "follower"
}

func rowOf(v fsm.View, id string) fsm.Server {
	for _, s := range v.Servers() {
		if s.ID == id {
			return s
		}
	}
	return fsm.Server{}
}

// configuration is Raft's latest, empty before it is up.
func (m *membership) configuration() ([]raft.Server, uint64) {
	r := m.raft()
	if r == nil {
		return nil, 0
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil, 0
	}
	return f.Configuration().Servers, f.Index()
}

// configured is where Raft's configuration has a server.
func (m *membership) configured(id raft.ServerID) raft.ServerAddress {
	servers, _ := m.configuration()
	for _, s := range servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

// greetAll asks everybody that gossip or Raft's configuration knows who they are. It returns those that answered, by server id.
func (m *membership) greetAll(ctx context.Context) map[string]helloReply {
	own := m.dir.identity().ServerID
	addrs := map[string]struct{}{}
	for _, g := range m.gossip.members() {
		addrs[g.NodeAddr] = struct{}{}
	}
	servers, _ := m.configuration()
	for _, s := range servers {
		if string(s.ID) == own {
			continue
		}
		if met := m.transport.metAt(string(s.ID)); met != "" {
			addrs[met] = struct{}{}
		} else {
			addrs[string(s.Address)] = struct{}{}
		}
	}
	delete(addrs, m.transport.advertised())
	var mu sync.Mutex // guards replies
	var wait sync.WaitGroup
	replies := map[string]helloReply{}
	for addr := range addrs {
		wait.Go(func() {
			reply, err := m.transport.hello(ctx, addr, helloRequest{Op: opWho})
			if err != nil || reply.ServerID == own || reply.Discarded {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			replies[reply.ServerID] = reply
		})
	}
	wait.Wait()
	return replies
}

// run greets the others until ctx ends, so that nodes that moved find each other, and ends a node that was removed.
func (m *membership) run(ctx context.Context) {
	if m.dir.identity().Bootstrapping { // Raft has it now: never again, whatever becomes of its log
		if err := m.dir.update(func(n *identity) { n.Bootstrapping, n.Promised, n.Minter, n.Mint = false, "", "", nil }); err != nil {
			m.stop(fmt.Errorf("%w: %w", ErrStorage, err))
			return
		}
	}
	began, greeted, known := time.Now(), time.Time{}, ""
	ticker := time.NewTicker(greetEvery)
	defer ticker.Stop()
	for {
		r, neighbours := m.raft(), m.neighbours()
		if !m.dir.identity().Started && r.LastIndex() > 0 {
			if err := m.dir.update(func(n *identity) { n.Started = true }); err != nil {
				m.stop(fmt.Errorf("%w: %w", ErrStorage, err))
				return
			}
		}
		led := r.State() == raft.Leader || time.Since(later(r.LastContact(), began)) < silenceLimit
		if !led || neighbours != known || m.strangers() || m.lagging() || time.Since(greeted) > greetAnyway {
			replies := m.greetAll(ctx)
			greeted, known = time.Now(), neighbours
			m.mu.Lock()
			maps.Copy(m.replies, replies)
			m.mu.Unlock()
			m.compareClocks(replies)
			if at := m.double(ctx); at != "" {
				m.stop(fmt.Errorf("another process at %s runs on a copy of this data directory: wipe this one, then the node joins as a new one", at))
				return
			}
			if !led && m.removedFrom(replies) {
				m.wasRemoved()
				return
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// wasRemoved ends a node that was removed, and a start on its data directory too.
func (m *membership) wasRemoved() {
	if err := m.dir.update(func(n *identity) { n.Removed = true }); err != nil {
		m.log.Warn("writing down that this node was removed", "error", err)
	}
	m.stop(ErrRemoved)
}

// clockLimit is how far a node's clock may be from the median before it says so.
const clockLimit = 5 * time.Second

// compareClocks compares this node's clock with the other voters' and with the leader's stamps.
func (m *membership) compareClocks(replies map[string]helloReply) {
	ahead := []time.Duration{0} // of this node's clock: its own, and the others'
	servers, _ := m.configuration()
	for _, s := range servers {
		p, answered := replies[string(s.ID)]
		if answered && s.Suffrage == raft.Voter {
			ahead = append(ahead, p.ahead)
		}
		if answered && p.Stamp != 0 {
			m.stampsAhead.Store(int64(p.ahead) + p.Stamp - p.Clock)
		}
	}
	slices.Sort(ahead)
	off := -ahead[(len(ahead)-1)/2]
	m.clockAhead.Store(int64(off))
	if off.Abs() > clockLimit && m.seldom.allow("clock", time.Minute) {
		m.log.Warn("this node's clock differs from the median of the voters' clocks: set it right", "aheadSeconds", off.Seconds())
	}
}

// double is the address in the configuration at which somebody else answers as this server, empty if nobody does.
func (m *membership) double(ctx context.Context) string {
	own := m.dir.identity().ServerID
	at := string(m.configured(raft.ServerID(own)))
	if at == "" || at == m.transport.advertised() {
		return ""
	}
	reply, err := m.transport.hello(ctx, at, helloRequest{Op: opWho})
	if err != nil || reply.ServerID != own || reply.NodeAddr == m.transport.advertised() {
		return ""
	}
	return at
}

// nameOf is a server's name: as the table of servers has it, or as the server itself last said; its id if neither knows it yet.
func (m *membership) nameOf(id string) (name string) {
	m.view(func(v fsm.View) { name = rowOf(v, id).Name })
	if name != "" {
		return name
	}
	m.mu.Lock()
	name = m.replies[id].Name
	m.mu.Unlock()
	for _, g := range m.gossip.members() {
		if g.ID == id {
			name = cmp.Or(name, g.Name)
		}
	}
	return cmp.Or(name, id)
}

// neighbours is what gossip says of the others, to see that it changed.
func (m *membership) neighbours() string {
	var all []string
	for _, g := range m.gossip.members() {
		all = append(all, g.ID+" "+g.NodeAddr+" "+g.HTTPAddr+" "+g.Version)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// strangers reports whether a server of the configuration has not been greeted yet.
func (m *membership) strangers() bool {
	own := m.dir.identity().ServerID
	servers, _ := m.configuration()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(servers, func(s raft.Server) bool {
		return string(s.ID) != own && m.replies[string(s.ID)].ServerID == ""
	})
}

// removedFrom reports whether a server of this node's cluster knows that it was removed: what is removed stays so.
func (m *membership) removedFrom(replies map[string]helloReply) bool {
	own := m.dir.identity().ClusterID
	for _, p := range replies {
		if p.Removed && p.ClusterID == own {
			return true
		}
	}
	return false
}

// remove removes a server for ever: first it is written down, then Raft's configuration follows. The leader hands over before
// it is removed itself; the error is errNotProposed then.
func (m *membership) remove(ctx context.Context, name string) error {
	var row fsm.Server
	m.view(func(v fsm.View) {
		for _, s := range v.Servers() {
			if s.Name == name && !s.Removed {
				row = s
			}
		}
	})
	if row.ID == "" {
		return fleet.Errorf(fleet.NotFound, "no server of this cluster is named %q", name)
	}
	servers, _ := m.configuration()
	others := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter && string(s.ID) != row.ID {
			others++
		}
	}
	if others == 0 {
		return fleet.Errorf(fleet.LastVoter, "server %q is the last voter: without it there is no cluster", name)
	}
	if row.ID == m.dir.identity().ServerID {
		if err := m.raft().LeadershipTransfer().Error(); err != nil {
			m.log.Warn("handing leadership over before this node is removed", "error", err)
		}
		return errNotProposed
	}
	if err := m.propose(ctx, &fsm.RemoveServer{ID: row.ID}); err != nil {
		return err
	}
	m.log.Info("a server is removed", "node", name, "server", row.ID)
	err := m.change(ctx, func(r *raft.Raft, index uint64) raft.IndexFuture {
		return r.RemoveServer(raft.ServerID(row.ID), index, changeWait)
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		m.log.Warn("the configuration will follow later", "server", row.ID, "error", err)
	}
	return nil // it is decided: this leader or the next one finishes it
}

// changeWait bounds one change of Raft's configuration.
const changeWait = 10 * time.Second

// change makes one change of Raft's configuration, if it is still the one that was looked at, and waits until it is committed.
func (m *membership) change(ctx context.Context, do func(r *raft.Raft, index uint64) raft.IndexFuture) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	_, index := m.configuration()
	done := outcome(do(m.raft(), index))
	timer := time.NewTimer(changeWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errors.New("the change is not committed yet")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// outcome waits for a future. Raft may leave it unanswered at shutdown: then the goroutine stays until the process ends.
func outcome(f raft.Future) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	return done
}
