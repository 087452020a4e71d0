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
	claimWait   time.Duration // from queued to claimed
}

func newTally() *tally { return &tally{events: map[fleet.EventType]uint64{}} }

// Totals counts jobs and factories over all products, for metrics.
func (v View) Totals(now fleet.Time) Totals {
	t := Totals{
		Factories:        map[fleet.Health]int64{fleet.HealthOK: 0, fleet.HealthDegraded: 0, fleet.HealthDown: 0},
		StaleEpochs:      v.st.tally.staleEpochs,
		EventsByType:     maps.Clone(v.st.tally.events),
		ClaimWaitSeconds: v.st.tally.claimWait.Seconds(),
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
	Jobs             [len(fleet.Stages)]int64 // by fleet.Stage.Index
	LeasesHeld       int64
	Factories        map[fleet.Health]int64
	SeatsUsed        int64
	SeatsFree        int64
	OldestQueued     fleet.Time // zero: nothing is queued
	StaleEpochs      uint64     // refusals with stale_epoch since this process started
	EventsByType     map[fleet.EventType]uint64
	ClaimWaitSeconds float64
}
