package fsm

// This file counts: for a product's readers, and over all products for metrics.

import (
	"maps"
	"time"

	"github.com/lysnrai/fleet"
)

// oldestScan is how many queued jobs are looked at to find which has been queued for longest. Those that came back to
// the queue stand before younger ones; there are rarely this many.
const oldestScan = 1000

// Stats counts the product's jobs and factories; ages are taken against now, which the caller's clock gives.
func (v View) Stats(product string, now fleet.Time) *fleet.Stats {
	s := &fleet.Stats{
		Stages:    map[fleet.Stage]int64{},
		Factories: map[fleet.Health]int64{fleet.HealthOK: 0, fleet.HealthDegraded: 0, fleet.HealthDown: 0},
	}
	p, ok := v.st.products.Get(product)
	for i, stage := range fleet.Stages {
		s.Stages[stage] = 0
		if ok {
			s.Stages[stage] = int64(p.stages[i].Len())
		}
	}
	if !ok {
		return s
	}
	if oldest := p.oldestQueued(); oldest != 0 {
		age := max(0, int64(now-oldest)/1e9)
		s.OldestQueuedSeconds = &age
	}
	p.factories.Scan(func(_ string, f *factory) bool {
		s.Factories[shownFactory(f).Health]++
		return true
	})
	minute := int64(now) / 60e9
	p.endings.Ascend(minute-59, func(m int64, n *endings) bool {
		if m > minute {
			return false
		}
		s.ShippedLastHour += n.shipped
		s.FailedLastHour += n.failed
		return true
	})
	return s
}

// oldestQueued is since when the leaf is queued that has been for longest, zero if there is none.
func (p *product) oldestQueued() (oldest fleet.Time) {
	looked := 0
	p.stages[fleet.Queued.Index()].Scan(func(_ uint64, id string) bool {
		if r, _ := p.jobs.Get(id); r.group == nil && (oldest == 0 || r.job.QueuedAt < oldest) {
			oldest = r.job.QueuedAt
		}
		looked++
		return looked < oldestScan
	})
	return oldest
}

// tally counts what happened since this process started. Only Apply writes to it.
type tally struct {
	events      map[fleet.EventType]uint64
	staleEpochs uint64
	runs        map[fleet.Outcome]*RunTotals
	usd         fleet.USD // of runs that closed
	tokens      Tokens
}

func newTally() *tally {
	t := &tally{events: map[fleet.EventType]uint64{}, runs: map[fleet.Outcome]*RunTotals{}}
	for _, o := range fleet.Outcomes {
		t.runs[o] = &RunTotals{}
	}
	for _, e := range fleet.EventTypes {
		t.events[e] = 0
	}
	return t
}

// RunBounds are the upper bounds of the classes in which RunTotals counts, in seconds.
var RunBounds = [...]int64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}

// RunTotals counts the runs that closed with one outcome since this process started.
type RunTotals struct {
	Count  uint64
	Took   time.Duration          // all of them together
	Within [len(RunBounds)]uint64 // how many took at most so long
}

// Tokens are what runs that closed since this process started have used, by kind.
type Tokens struct{ In, Out, Cached int64 }

// closed counts a run that has just closed.
func (t *tally) closed(run *fleet.Run) {
	total, took := t.runs[run.Outcome], run.EndedAt.Sub(run.StartedAt)
	total.Count++
	total.Took += took
	for i, bound := range RunBounds {
		if took <= time.Duration(bound)*time.Second {
			total.Within[i]++
		}
	}
	in := &run.Insights
	t.usd = add(t.usd, in.CostUSD)
	t.tokens.In, t.tokens.Out = add(t.tokens.In, in.TokensIn), add(t.tokens.Out, in.TokensOut)
	t.tokens.Cached = add(t.tokens.Cached, in.TokensCached)
}

// add adds what was reported, if it was.
func add[T fleet.USD | int64](sum T, reported *T) T {
	if reported == nil {
		return sum
	}
	return T(plus(int64(sum), int64(*reported)))
}

// Totals counts jobs and factories over all products, for metrics.
func (v View) Totals(now fleet.Time) Totals {
	t := Totals{
		Factories:    map[fleet.Health]int64{fleet.HealthOK: 0, fleet.HealthDegraded: 0, fleet.HealthDown: 0},
		StaleEpochs:  v.st.tally.staleEpochs,
		EventsByType: maps.Clone(v.st.tally.events),
		Runs:         map[fleet.Outcome]RunTotals{},
		USD:          v.st.tally.usd,
		Tokens:       v.st.tally.tokens,
	}
	for outcome, total := range v.st.tally.runs {
		t.Runs[outcome] = *total
	}
	v.st.products.Scan(func(_ string, p *product) bool {
		for i := range p.stages {
			t.Jobs[i] += int64(p.stages[i].Len())
		}
		t.LeasesHeld += int64(p.held.Len())
		if at := p.oldestQueued(); at != 0 && (t.OldestQueued == 0 || at < t.OldestQueued) {
			t.OldestQueued = at
		}
		p.factories.Scan(func(_ string, f *factory) bool {
			d := shownFactory(f)
			t.Factories[d.Health]++
			t.SeatsUsed += d.ActiveLeases
			if d.Health != fleet.HealthDown {
				t.SeatsFree += max(0, d.SeatLimit-d.ActiveLeases)
			}
			return true
		})
		return true
	})
	return t
}

// Totals are the counts of all products together.
type Totals struct {
	Jobs         [len(fleet.Stages)]int64 // by fleet.Stage.Index
	LeasesHeld   int64
	Factories    map[fleet.Health]int64
	SeatsUsed    int64
	SeatsFree    int64
	OldestQueued fleet.Time // zero: nothing is queued

	// Since this process started.
	StaleEpochs  uint64 // refusals
	EventsByType map[fleet.EventType]uint64
	Runs         map[fleet.Outcome]RunTotals
	USD          fleet.USD
	Tokens       Tokens
}
