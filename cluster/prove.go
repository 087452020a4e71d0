package cluster

// This file proves in the log that all nodes hold the same: the leader asks the voters for the hash that their state had at the latest
// checkpoint, and puts what a majority of them had into the log, where every node holds it against its own. A node that is not like the
// majority ends, the leader too.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

const (
	proveWait  = time.Second            // how long an answer is waited for
	proveSoon  = 100 * time.Millisecond // when the leader first asks again: the others apply a moment later; then after twice as long
	proveTries = 7                      // until a checkpoint counts as not proven: some 6 s
	proveSay   = time.Minute            // how often it says so
)

// prover is a node's part in it.
type prover struct {
	node   *Node
	passed chan struct{}                  // the machine has passed a checkpoint
	agreed atomic.Pointer[fsm.Checkpoint] // by a majority of the voters, for the next group; only while this node leads
	proven atomic.Uint64                  // the index of the latest checkpoint that the log proved
	latest uint64                         // that was passed; the applier's
	spoken seldom
}

func newProver(n *Node) *prover { return &prover{node: n, passed: make(chan struct{}, 1)} }

// own is what this node had at a checkpoint, if it knows.
func (p *prover) own(index uint64) (fsm.Checkpoint, bool) {
	c, known := p.node.machine.Checkpoint(index)
	c.Version = p.node.cfg.HashVersion
	return c, known
}

// applied wakes the leader if the machine has passed a checkpoint. The state machine's goroutine calls it.
func (p *prover) applied(index uint64) {
	if at := (index - 1) / fsm.CheckpointEvery; at != p.latest {
		p.latest = at
		select {
		case p.passed <- struct{}{}:
		default:
		}
	}
}

// judge holds what an entry says of checkpoints against this node's own, before it is applied. The error ends the node.
func (p *prover) judge(e *fsm.Entry) error {
	for i := range e.Proposals {
		c, ok := e.Proposals[i].Command.(*fsm.Checkpoint)
		if !ok || e.Proposals[i].Caller.Actor != fsm.ActorFleet {
			continue
		}
		if own, known := p.own(c.Index); known && own.Version == c.Version && own.Hash != c.Hash {
			return p.diverged(own, *c)
		}
		p.proven.Store(max(p.proven.Load(), c.Index))
	}
	return nil
}

func (p *prover) diverged(own, others fsm.Checkpoint) error {
	return p.node.untrue(fmt.Errorf("%w: before entry %d its hash was %016x, that of most voters %016x", fsm.ErrDiverged, own.Index+1, own.Hash, others.Hash))
}

// untrue ends a node by words that say what to do.
func (n *Node) untrue(err error) error {
	return fmt.Errorf("%w: %w: look at this machine's memory and its disk; %s, with the others' state (%s)", ErrStorage, err, remedy, n.cfg.DataDir)
}

// take is what a majority agreed on, if every node can read it: it goes into an entry that is made anyway, so an idle cluster is silent.
func (p *prover) take() *fsm.Checkpoint {
	if !p.allowed() {
		return nil
	}
	return p.agreed.Swap(nil)
}

func (p *prover) allowed() bool {
	return p.node.machine.Level() >= fsm.LevelOf(&fsm.Checkpoint{})
}

// lead proves one checkpoint after the other, until the term ends. It is never in the way of a proposal.
func (p *prover) lead(ctx context.Context) {
	p.agreed.Store(nil)
	defer p.agreed.Store(nil)
	asked := p.proven.Load()
	for ctx.Err() == nil {
		if c, known := p.node.machine.LastCheckpoint(); known && c.Index > asked && p.allowed() {
			p.prove(ctx, c.Index)
			asked = c.Index
			continue
		}
		select {
		case <-p.passed:
		case <-ctx.Done():
		}
	}
}

// prove asks until a majority of all voters had one hash at a checkpoint.
func (p *prover) prove(ctx context.Context, index uint64) {
	n := p.node
	var v verdict
	for try, wait := 0, proveSoon; ; try, wait = try+1, 2*wait {
		own, known := p.own(index)
		if !known {
			return // a restore has replaced the state
		}
		answers := p.ask(ctx, index)
		answers[n.id] = own
		voters := len(n.otherVoters()) + 1
		if v = judgeCheckpoints(answers, voters); ctx.Err() != nil {
			return
		}
		if v.agreed != nil || len(answers) == voters || try == proveTries-1 {
			break
		}
		n.sleep(ctx, wait)
	}
	if v.conflict {
		n.metrics.conflicts.Inc()
		n.log.Error("voters have different states: whichever is not like most of them ends itself; look at its memory and its disk", "checkpoint", index, "voters", v.said)
	}
	own, known := p.own(index)
	switch {
	case !known:
	case v.agreed == nil:
		n.metrics.unproven.Inc()
		if p.spoken.allow("unproven", proveSay) {
			n.log.Warn("no majority of the voters has one hash of the state, so none is logged: some are down or slow, or of another release", "checkpoint", index, "voters", v.said)
		}
	case v.agreed.Version == own.Version && v.agreed.Hash != own.Hash:
		n.stop(p.diverged(own, *v.agreed))
	default:
		p.agreed.Store(v.agreed)
	}
}

// ask asks the other voters what they had at a checkpoint. Those that don't know are not among the answers.
func (p *prover) ask(ctx context.Context, index uint64) map[string]fsm.Checkpoint {
	n := p.node
	ctx, cancel := context.WithTimeout(ctx, proveWait)
	defer cancel()
	var mu sync.Mutex // guards answers
	answers := map[string]fsm.Checkpoint{}
	var wait sync.WaitGroup
	for _, v := range n.otherVoters() {
		wait.Go(func() {
			reply, err := n.transport.hello(ctx, n.addressOf(v), helloRequest{Op: opCheckpoint, Index: index})
			if err != nil || reply.ServerID != string(v.ID) || reply.Checkpoint == nil || reply.Checkpoint.Index != index {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[reply.ServerID] = *reply.Checkpoint
		})
	}
	wait.Wait()
	return answers
}

// verdict is what answers come to.
type verdict struct {
	agreed   *fsm.Checkpoint // what a majority of all voters had, by one hash and version
	conflict bool            // two had different hashes of one version
	said     string          // how many had which, for a log
}

// judgeCheckpoints counts what voters had at one checkpoint. Hashes of different versions say nothing of each other.
func judgeCheckpoints(answers map[string]fsm.Checkpoint, voters int) (v verdict) {
	count := map[fsm.Checkpoint]int{}
	hashes := map[uint64]uint64{} // version → the first hash
	for _, c := range answers {
		count[c]++
		if first, seen := hashes[c.Version]; seen && first != c.Hash {
			v.conflict = true
		}
		hashes[c.Version] = c.Hash
		if count[c] > voters/2 {
			v.agreed = &c
		}
	}
	said := make([]string, 0, len(count)+1)
	for c, n := range count {
		said = append(said, fmt.Sprintf("%d of %d have %016x (version %d)", n, voters, c.Hash, c.Version))
	}
	slices.Sort(said)
	if silent := voters - len(answers); silent > 0 {
		said = append(said, fmt.Sprintf("%d of %d did not say", silent, voters))
	}
	v.said = strings.Join(said, ", ")
	return v
}
