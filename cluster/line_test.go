package cluster

// This file holds the line of waiters against the rule it follows: each in order of arrival is promised the first job that nobody before it was.

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// lineModel is a line of waiters, and beside it what each was promised by a walk along all of them.
type lineModel struct {
	node     *Node
	index    uint64
	inLine   []*waiter // in order of arrival
	promised map[*waiter]string
	jobs     int
}

// apply applies a command as root, and wakes who hears of it.
func (m *lineModel) apply(t *rapid.T, c fsm.Command) fsm.Answer {
	m.index++
	answers, news := m.node.machine.Apply(m.index, &fsm.Entry{
		Stamp: 1, Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c}},
	})
	if answers[0].Err != nil && answers[0].Err.Code != fleet.SeatsExhausted {
		t.Fatalf("applying %T: %v", c, answers[0].Err)
	}
	m.node.spread(news)
	m.wake()
	return answers[0]
}

// wake does what waiters.run does, and the walk if there was news.
func (m *lineModel) wake() {
	ws := m.node.waiters
	for product, each := range ws.news {
		delete(ws.news, product)
		ws.wake(product, each)
		m.walk()
	}
}

func (m *lineModel) walk() {
	m.node.machine.View(func(v fsm.View) {
		for _, w := range m.inLine {
			if m.promised[w] != "" {
				continue
			}
			job, found, err := v.Claimable(w.proposal.Caller, "p", w.factory, func(id string) bool {
				return slices.ContainsFunc(m.inLine, func(other *waiter) bool { return m.promised[other] == id })
			})
			if err == nil && found {
				m.promised[w] = job
			}
		}
	})
}

// part takes a waiter out of the line for good.
func (m *lineModel) part(w *waiter) {
	m.inLine = slices.DeleteFunc(m.inLine, func(other *waiter) bool { return other == w })
	delete(m.promised, w)
	m.node.waiters.remove(w)
	m.wake()
}

// Whom a job wakes is the same as if the whole line was walked, whatever comes: jobs, seats, factories that learn and unlearn, waiters
// that leave with what they were promised, take another job, or hand it on.
func TestLineIsServedAsIfItWasWalked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &lineModel{
			node:     &Node{machine: fsm.New(), feeds: map[string]chan struct{}{}, deadlines: make(chan struct{}, 1)},
			promised: map[*waiter]string{},
		}
		m.node.waiters = newWaiters(m.node)
		abilities := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID)
		factory := rapid.SampledFrom([]string{"f0", "f1", "f2", "f3"})
		heartbeat := func(id string) {
			can, seats := fleet.Strings(abilities.Draw(t, "abilities")), rapid.Int64Range(1, 3).Draw(t, "seats")
			m.apply(t, &fsm.Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, Capabilities: &can, SeatLimit: &seats}})
		}
		for i := range 4 {
			heartbeat(fmt.Sprint("f", i))
		}
		var held []*fleet.Job
		someone := func() *waiter { return rapid.SampledFrom(m.inLine).Draw(t, "waiter") }
		t.Repeat(map[string]func(*rapid.T){
			"heartbeat": func(t *rapid.T) { heartbeat(factory.Draw(t, "factory")) },
			"submit": func(t *rapid.T) {
				m.jobs++
				s := submit(fmt.Sprint("j", m.jobs))
				s.Submission.Capabilities = abilities.Draw(t, "required")
				s.Submission.Normalize()
				m.apply(t, s)
			},
			"arrive": func(t *rapid.T) {
				w := &waiter{
					product: "p", factory: factory.Draw(t, "factory"), woken: make(chan struct{}, 1),
					proposal: &fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}},
				}
				m.inLine = append(m.inLine, w)
				m.node.waiters.add(w)
			},
			"leave": func(t *rapid.T) {
				if len(m.inLine) > 0 {
					m.part(someone())
				}
			},
			"claim": func(t *rapid.T) {
				if len(m.inLine) == 0 {
					return
				}
				w := someone()
				a := m.apply(t, &fsm.Claim{ProductID: "p", FactoryID: w.factory, LeaseSeconds: 60})
				if c, ok := a.Result.(*fleet.Claim); ok && c.Job != nil {
					held = append(held, c.Job)
					m.part(w)
				}
			},
			"hand on": func(t *rapid.T) {
				if len(m.inLine) == 0 {
					return
				}
				if w := someone(); m.promised[w] != "" {
					delete(m.promised, w)
					m.node.waiters.handOn(w)
					m.wake()
				}
			},
			"release": func(t *rapid.T) {
				if len(held) > 0 {
					m.apply(t, &fsm.Release{ProductID: "p", JobID: held[0].ID, LeaseEpoch: held[0].LeaseEpoch})
					held = held[1:]
				}
			},
			"": func(t *rapid.T) {
				for i, w := range m.inLine {
					if w.promised != m.promised[w] {
						t.Fatalf("waiter %d, for %s: was promised %q, want %q", i, w.factory, w.promised, m.promised[w])
					}
				}
				if lines := len(m.node.waiters.lines); (lines > 0) != (len(m.inLine) > 0) {
					t.Fatalf("%d lines are kept for %d waiters", lines, len(m.inLine))
				}
			},
		})
	})
}

// Who comes back to the line after its token has ended hears so: the news of it is over.
func TestLineRefusesAtOnce(t *testing.T) {
	n := &Node{machine: fsm.New()}
	n.waiters = newWaiters(n)
	w := &waiter{product: "p", woken: make(chan struct{}, 1), proposal: &fsm.Proposal{Caller: fsm.Caller{Actor: "ended"}}}
	n.waiters.add(w)
	if !n.waiters.refused(w) || len(w.woken) != 1 {
		t.Errorf("a waiter with no token was promised %q, want that it hears of it", w.promised)
	}
	if n.waiters.remove(w); len(n.waiters.lines) != 0 {
		t.Error("a line is kept for nobody")
	}
}
