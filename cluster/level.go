package cluster

// This file sees to it that every member can read all that is written: nothing above the cluster's level is proposed, the leader raises
// the level once every server of the configuration says that it knows the next one, and whoever knows less is not let in
// (docs/decisions/005-levels.md).

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// ErrTooOld ends a node that its cluster does not let in, because it can't read what the cluster writes.
var ErrTooOld = errors.New("this release is too old for the cluster that it would join")

// newerRelease is what to do about data that a newer release wrote. Nothing of it is lost.
const newerRelease = "a newer release wrote it: start that release, or a later one, on this data directory again"

// aboveLevel refuses proposals of which one is above the cluster's level; the answers say which. It is nil if all may pass. Whoever
// proposes looks at the level first, so this only keeps a fault of this build from ending the nodes of an older one.
func (n *Node) aboveLevel(proposals []fsm.Proposal) (refused []fsm.Answer) {
	for i, p := range proposals {
		level := fsm.LevelOf(p.Command)
		var allowed int
		switch raise, raises := p.Command.(*fsm.Level); {
		case level == 1: // without a look at the machine, which may be busy
			continue
		case raises && p.Caller.Actor == fsm.ActorFleet:
			level, allowed = raise.To, n.cfg.MaxLevel
		default:
			allowed = n.machine.Level()
		}
		if level <= allowed {
			continue
		}
		if refused == nil {
			refused = make([]fsm.Answer, len(proposals))
		}
		refused[i].Err = fleet.Errorf(fleet.Internal, "%T is of level %d, at most %d is allowed now: until every node runs a release that knows it, it can't be proposed", p.Command, level, allowed)
	}
	return refused
}

// knows is an error that wraps fsm.ErrFormat if an entry of the log is above a level. What else may be wrong with it is not judged.
func knows(level int, l *raft.Log) error {
	if l.Type != raft.LogCommand {
		return nil
	}
	_, body, err := openEnvelope(l.Data)
	switch {
	case errors.Is(err, fsm.ErrFormat):
		return err
	case err == nil && len(body) > 0 && int(body[0]) > level: // as fsm.AppendEntry begins
		return fmt.Errorf("%w: it is of level %d, this node knows %d", fsm.ErrFormat, body[0], level)
	}
	return nil
}

// level is the cluster's, as this node has applied it.
func (m *membership) level() (level int) {
	m.view(func(v fsm.View) { level = v.Level() })
	return level
}

// tooOld says why a node can't be a member, because it does not know the cluster's level; empty if it can.
func (m *membership) tooOld(g greeter) string {
	if level := m.level(); g.Level < level {
		return fmt.Sprintf("the cluster is at level %d, and the release %q that this node runs knows level %d: start one that knows level %d", level, g.Version, g.Level, level)
	}
	return ""
}

// lowest is the newest level that all these servers know, 0 if one of them is not among the replies.
func (m *membership) lowest(servers []raft.Server, replies map[string]helloReply) int {
	own, lowest := m.dir.identity().ServerID, m.cfg.MaxLevel
	for _, s := range servers {
		if id := string(s.ID); id != own {
			lowest = min(lowest, replies[id].Level)
		}
	}
	return lowest
}

// lagging reports whether this node leads a cluster whose level waits for servers to be upgraded.
func (m *membership) lagging() bool {
	return m.leading.Load() && m.level() < m.cfg.MaxLevel
}

// raiseLevel raises the level if every server of the configuration, asked once more, knows a newer one. Whoever calls it is the only one
// that lets servers in. A server that is down holds the level back: nobody knows which release it comes back with.
func (m *membership) raiseLevel(ctx context.Context, servers []raft.Server) error {
	level := m.level()
	if m.cfg.MaxLevel <= level {
		return nil
	}
	m.mu.Lock()
	heard := m.lowest(servers, m.replies)
	m.mu.Unlock()
	if heard <= level || !m.seldom.allow("level", greetEvery) {
		return nil
	}
	to := m.lowest(servers, m.greet(ctx, servers))
	if to <= level {
		return nil
	}
	if err := m.propose(ctx, &fsm.Level{To: to}); err != nil {
		return fmt.Errorf("raising the level to %d: %w", to, err)
	}
	m.log.Info("every server knows a newer level: it is raised, and no older release can read what is written from now on", "from", level, "to", to)
	return nil
}

// greet asks these servers who they are, all at once. It returns those that answered, by server id.
func (m *membership) greet(ctx context.Context, servers []raft.Server) map[string]helloReply {
	own := m.dir.identity().ServerID
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex // guards replies
	var wait sync.WaitGroup
	replies := map[string]helloReply{}
	for _, s := range servers {
		if string(s.ID) == own {
			continue
		}
		addr := string(s.Address)
		if met := m.transport.metAt(string(s.ID)); met != "" {
			addr = met
		}
		wait.Go(func() {
			reply, err := m.transport.hello(ctx, addr, helloRequest{Op: opWho})
			if err == nil && reply.ServerID == string(s.ID) {
				mu.Lock()
				defer mu.Unlock()
				replies[reply.ServerID] = reply
			}
		})
	}
	wait.Wait()
	return replies
}
