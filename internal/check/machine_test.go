package check_test

// This file judges the bare state machine by the models: one client after the other, no cluster.

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"

	"github.com/lysnrai/fleet/internal/check"
)

const product = "test"

func newLoad() *check.Load { return check.NewLoad(product) }

// bench is a machine, its log, and what was asked of it.
type bench struct {
	machine *fsm.Machine
	index   uint64
	now     fleet.Time
	history *check.History
	log     check.Log
}

func newBench() *bench {
	return &bench{machine: fsm.New(), now: fleet.TimeOf(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), history: check.NewHistory()}
}

func (b *bench) apply(proposals ...fsm.Proposal) []fsm.Answer {
	b.index++
	e := &fsm.Entry{Stamp: b.now, Proposals: proposals}
	if err := b.log.Append(e); err != nil {
		panic(err)
	}
	answers, _ := b.machine.Apply(b.index, e)
	return answers
}

// reap proposes what the leader's reaper would.
func (b *bench) reap() {
	for {
		due := false
		b.machine.View(func(v fsm.View) {
			at, any := v.NextDeadline()
			due = any && at < b.now
		})
		if !due {
			return
		}
		b.apply(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Reap{Limit: 1000}})
		b.look()
	}
}

// do carries a call out and records it.
func (b *bench) do(client int, c check.Move) fsm.Answer {
	if c.Proposal.Command == nil {
		o := b.history.Read(client, c.Query)
		var a fsm.Answer
		b.machine.View(func(v fsm.View) { a = c.Query.Of(v) })
		o.Done(a, nil)
		return a
	}
	o := b.history.Propose(client, c.Proposal)
	a := b.apply(c.Proposal)[0]
	o.Done(a, nil)
	return a
}

func (b *bench) look() {
	b.machine.View(func(v fsm.View) {
		events, _, _ := v.Feed(product, 0, 1_000_000)
		b.history.Saw(events...)
	})
}

func (b *bench) run(r *rand.Rand, l *check.Load, calls int) {
	for range calls {
		b.now = b.now.Add(int64(r.IntN(8)))
		b.reap()
		client := r.IntN(6)
		c := l.Next(r, client)
		l.Learn(b.do(client, c))
	}
	b.look()
}

// The machine does what the contract of a job says.
func TestMachineKeepsTheContractOfAJob(t *testing.T) {
	for seed := range uint64(60) {
		b, r := newBench(), rand.New(rand.NewPCG(seed, 1))
		b.run(r, newLoad(), 400)
		if err := b.history.CheckJobs(product, 10*time.Second); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// The machine does what the contract of a product says.
func TestMachineKeepsTheContractOfAProduct(t *testing.T) {
	for seed := range uint64(200) {
		b, r := newBench(), rand.New(rand.NewPCG(seed, 2))
		l := newLoad()
		l.Plain, l.JobsMax = true, 6
		b.run(r, l, 150)
		if err := b.history.CheckProduct(product, 10*time.Second); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// The machine keeps the invariants at every step, and its log gives what was answered.
func TestMachineKeepsTheInvariants(t *testing.T) {
	for seed := range uint64(12) {
		b, r := newBench(), rand.New(rand.NewPCG(seed, 3))
		b.run(r, newLoad(), 500)
		replay, err := b.log.Replay(b.history, check.Judges()...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := replay.Witness(b.history); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if replay.Machine.Hash() != b.machine.Hash() {
			t.Fatalf("seed %d: I8: the replay ends in another state", seed)
		}
		b.machine.View(func(v fsm.View) {
			if err := check.State(v, product); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
	}
}
