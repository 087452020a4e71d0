package cluster

// This file is what an operator sees and does: the state of every node, readiness, removal, a change of leader.

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// The words of a node that is not ready.
var (
	errBootstrapping = errors.New("bootstrapping")
	errJoining       = errors.New("joining")
	errNoLeader      = errors.New("no_leader")
	errCatchingUp    = errors.New("catching_up")
	errDisk          = errors.New("disk")
	errStopping      = errors.New("stopping")
)

// Ready is nil if the node can serve well; else the error is one of the words bootstrapping, joining, no_leader,
// catching_up, disk, stopping.
func (n *Node) Ready() error {
	select {
	case <-n.draining:
		return errStopping
	default:
	}
	r := n.raftIfUp()
	if r == nil {
		if n.cfg.BootstrapExpect > 0 {
			return errBootstrapping
		}
		return errJoining
	}
	voter := false
	for _, s := range n.configuration() {
		if string(s.ID) == n.id && s.Suffrage == raft.Voter {
			voter = true
		}
	}
	if !voter {
		return errJoining
	}
	if _, known := n.leader(); !known {
		return errNoLeader
	}
	// What was in the log at the start may have been cut off since, because it was never committed.
	if n.restoring.refusal() != nil || n.machine.LeaderSince() == 0 || n.machine.Index() < min(n.startedAt, r.LastIndex()) {
		return errCatchingUp
	}
	if n.space.low() {
		return errDisk
	}
	return nil
}

// configuration is raft's latest, empty before raft is up.
func (n *Node) configuration() []raft.Server {
	r := n.raftIfUp()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

func (n *Node) voters() (count int) {
	for _, s := range n.configuration() {
		if s.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

func (n *Node) hasNonvoter() bool {
	for _, s := range n.configuration() {
		if s.Suffrage != raft.Voter {
			return true
		}
	}
	return false
}

func (n *Node) otherVoters() (others []raft.Server) {
	for _, s := range n.configuration() {
		if s.Suffrage == raft.Voter && string(s.ID) != n.id {
			others = append(others, s)
		}
	}
	return others
}

// addressOf is where a server was last met, or else where Raft's configuration has it.
func (n *Node) addressOf(s raft.Server) string {
	if met := n.transport.metAt(string(s.ID)); met != "" {
		return met
	}
	return string(s.Address)
}

// askClock asks for another node's wall clock, and finds when it showed that.
func (n *Node) askClock(ctx context.Context, s raft.Server) (clock fleet.Time, read time.Time, err error) {
	reply, err := n.transport.hello(ctx, n.addressOf(s), helloRequest{Op: opClock})
	if err == nil && reply.ServerID != string(s.ID) {
		err = errors.New("another server answers there")
	}
	return fleet.Time(reply.Clock), reply.read, err
}

// Status is the cluster as this node sees it: every server of the configuration, asked over the node port.
func (n *Node) Status(ctx context.Context) (*fleet.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s := &fleet.ClusterStatus{Leader: n.Leader(), Nodes: []fleet.NodeStatus{}}
	known := map[string]fsm.Server{}
	n.machine.View(func(v fsm.View) {
		s.ClusterID, s.Index = v.ClusterID(), v.Index()
		for _, server := range v.Servers() {
			known[server.ID] = server
		}
	})
	if r := n.raftIfUp(); r != nil {
		s.Term = r.CurrentTerm()
	}
	servers := n.configuration()
	s.Nodes = make([]fleet.NodeStatus, len(servers))
	done := make(chan struct{}, len(servers))
	for i, server := range servers {
		go func() {
			defer func() { done <- struct{}{} }()
			s.Nodes[i] = n.statusOf(ctx, server, known[string(server.ID)])
		}()
	}
	for range servers {
		<-done
	}
	return s, nil
}

func (n *Node) statusOf(ctx context.Context, server raft.Server, known fsm.Server) fleet.NodeStatus {
	s := fleet.NodeStatus{
		ID: string(server.ID), Name: known.Name, HTTPAddr: known.HTTPAddr, NodeAddr: string(server.Address),
		Voter: server.Suffrage == raft.Voter, Version: known.Version, State: "unreachable",
	}
	if s.ID == n.id {
		s.Name, s.HTTPAddr, s.Version = n.cfg.Name, n.cfg.HTTPAddr, n.cfg.Version
		s.State, s.Healthy, s.AppliedIndex = n.raftState(), true, n.machine.Index()
		s.ClockOffsetSeconds = fleet.TimeOf(n.wall.Now()).Sub(n.Now()).Round(time.Millisecond).Seconds()
		return s
	}
	reply, err := n.transport.hello(ctx, n.addressOf(server), helloRequest{Op: opStatus})
	if err != nil || reply.ServerID != s.ID {
		return s
	}
	s.State, s.Healthy, s.AppliedIndex = reply.State, true, reply.Applied
	s.ClockOffsetSeconds = (reply.ahead + fleet.TimeOf(n.wall.Now()).Sub(n.Now())).Round(time.Millisecond).Seconds()
	return s
}

// raftState is follower, candidate or leader.
func (n *Node) raftState() string {
	r := n.raftIfUp()
	if r == nil {
		return "joining"
	}
	switch r.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "stopped"
	}
	return "follower"
}

// Remove removes the server with this name for ever. It is refused with not_found or last_voter. A leader that removes
// itself hands over first. From a follower, the leader is asked.
func (n *Node) Remove(ctx context.Context, name string) error {
	for lost := false; ; lost = true {
		_, err := n.askLeader(ctx, frameRemove, []byte(name), func(ctx context.Context) error { return n.membership.remove(ctx, name) })
		switch {
		case lost && errors.Is(err, fleet.NotFound): // the answer was lost, not what it said
			return nil
		case !errors.Is(err, fleet.OutcomeUnknown):
			return err
		}
		timer := time.NewTimer(removeAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-n.closing:
			timer.Stop()
			return err
		}
	}
}

// removeAgain is when a removal is asked for again whose answer was lost: a leader that goes takes some with it, and to remove a server
// twice is to remove it once.
const removeAgain = 50 * time.Millisecond

// TransferLeadership hands leadership to the named server, or to the most up-to-date one with room on its disk if to is empty. It is
// refused with disk_full if the named one is shorter of room than the leader. From a follower, the leader is asked.
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	_, err := n.askLeader(ctx, frameTransfer, []byte(to), func(ctx context.Context) error { return n.transfer(ctx, to) })
	return err
}

func (n *Node) transfer(ctx context.Context, to string) error {
	if to == n.cfg.Name {
		return nil
	}
	n.space.ask(ctx)
	if to == "" {
		if len(n.otherVoters()) == 0 {
			return fleet.Errorf(fleet.LastVoter, "there is no other voter to lead")
		}
		if s, found := n.space.roomiest(n.space.own().allows()); found {
			return n.transferred(n.raft.LeadershipTransferToServer(s.ID, s.Address).Error())
		}
		return n.transferred(n.raft.LeadershipTransfer().Error())
	}
	var id string
	n.machine.View(func(v fsm.View) {
		for _, s := range v.Servers() {
			if s.Name == to && !s.Removed {
				id = s.ID
			}
		}
	})
	for _, s := range n.otherVoters() {
		if string(s.ID) == id && n.space.shorter(s.ID) {
			e := fleet.Errorf(fleet.DiskFull, "leadership was not handed over: the disk of %q is short of room; free some, or name another server", to)
			e.RetryAfterSeconds = spaceRetry
			return e
		}
		if string(s.ID) == id {
			return n.transferred(n.raft.LeadershipTransferToServer(s.ID, s.Address).Error())
		}
	}
	return fleet.Errorf(fleet.NotFound, "no voter of this cluster is named %q", to)
}

func (n *Node) transferred(err error) error {
	if err == nil {
		return nil
	}
	e := fleet.Errorf(fleet.NoLeader, "leadership was not handed over: %v", err)
	e.RetryAfterSeconds = 1
	return e
}

// WriteSnapshot streams the state of this node, as it is after a linearizable read, in the format of fsm.Machine.Restore.
func (n *Node) WriteSnapshot(ctx context.Context, w io.Writer) error {
	if err := n.Read(ctx, Linearizable, 0, func(fsm.View) {}); err != nil {
		return err
	}
	frozen := n.machine.Handle()
	if err := n.restoring.refusal(); err != nil { // looked at after the state, which the mark precedes
		return err
	}
	_, err := frozen.WriteTo(w)
	return err
}

// StateHash is a hash over this node's whole state, for tests: equal on any two nodes at one index. It takes O(state).
func (n *Node) StateHash() [32]byte { return n.machine.Hash() }
