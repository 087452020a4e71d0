package check

// This file is what must be true of any state, on any node, at any index.

import (
	"fmt"
	"math"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// State checks what a view shows of a product: I2, I7, I10 and I12, and what documents say of each other.
func State(v fsm.View, product string) error {
	jobs := map[string]*fleet.Job{}
	children := map[string][]*fleet.Job{}
	stages := map[fleet.Stage]int64{}
	seats := map[string]int64{}
	var order []*fleet.Job
	for after := uint64(0); ; {
		page, next := v.Jobs(product, fsm.JobFilter{}, after, 1000)
		for _, j := range page {
			if jobs[j.ID] != nil {
				return fmt.Errorf("I10: job %s is listed twice", j.ID)
			}
			jobs[j.ID] = j
			order = append(order, j)
			stages[j.Stage]++
			children[j.ParentID] = append(children[j.ParentID], j)
		}
		if next == 0 {
			break
		}
		after = next
	}
	for _, j := range order {
		if j.ProductID != product {
			return fmt.Errorf("I14: job %s of product %s is shown in product %s", j.ID, j.ProductID, product)
		}
		lease, ok := v.Lease(product, j.ID)
		if !ok || lease.LeaseEpoch != j.LeaseEpoch {
			return fmt.Errorf("I2: job %s is at epoch %d, its lease is %+v", j.ID, j.LeaseEpoch, lease)
		}
		if lease.Status == fleet.LeaseHeld {
			seats[lease.HolderFactoryID]++
		}
		if err := place(v, j, lease); err != nil {
			return err
		}
		if err := runs(v, j, lease.Status == fleet.LeaseHeld); err != nil {
			return err
		}
		if err := derived(j, children[j.ID]); err != nil {
			return err
		}
	}
	for _, f := range v.Factories(product) {
		if f.ActiveLeases != seats[f.FactoryID] {
			return fmt.Errorf("I10: factory %s has %d active leases, but holds %d", f.FactoryID, f.ActiveLeases, seats[f.FactoryID])
		}
		delete(seats, f.FactoryID)
	}
	for id := range seats {
		return fmt.Errorf("I10: factory %s holds a lease and is not there", id)
	}
	for stage, n := range v.Stats(product, v.Now()).Stages {
		if stages[stage] != n {
			return fmt.Errorf("I10: %d jobs are counted as %s, %d are", n, stage, stages[stage])
		}
	}
	if err := acyclic(v, product, order, children); err != nil {
		return err
	}
	return feed(v, product, jobs)
}

// place is I10: a leaf is in exactly one of queued, blocked, held and parked, or has ended; and I12: which of the first two
// is for its deps to say.
func place(v fsm.View, j *fleet.Job, lease *fleet.Lease) error {
	if j.Kind == fleet.Composite {
		if lease.Status != fleet.LeaseReleased || j.LeaseEpoch != 0 && j.Reason != "cancelled" && j.Attempt != 0 {
			return fmt.Errorf("I10: composite %s was claimed: %+v", j.ID, lease)
		}
		return nil
	}
	held := lease.Status == fleet.LeaseHeld
	switch j.Stage {
	case fleet.Assigned, fleet.Building:
		if !held {
			return fmt.Errorf("I10: job %s is %s, but its lease is %s", j.ID, j.Stage, lease.Status)
		}
	case fleet.Review, fleet.Testing: // held or parked
	default:
		if held {
			return fmt.Errorf("I10: job %s is %s, but %s holds it", j.ID, j.Stage, lease.HolderFactoryID)
		}
	}
	if j.Stage != fleet.Queued && j.Stage != fleet.Blocked {
		return nil
	}
	unmet := false
	for _, dep := range j.Deps {
		id, ok := resolve(v, j.ProductID, dep)
		if !ok {
			continue
		}
		d, found := v.Job(j.ProductID, id)
		unmet = unmet || !found || !met(d, j.DepsMode)
	}
	if unmet != (j.Stage == fleet.Blocked) {
		return fmt.Errorf("I12: job %s is %s, unmet deps: %t", j.ID, j.Stage, unmet)
	}
	return nil
}

// runs checks that a job has as many runs as attempts, and that the last one is open if and only if the job is held.
func runs(v fsm.View, j *fleet.Job, held bool) error {
	all, _ := v.Runs(j.ProductID, j.ID)
	if int64(len(all)) != j.Attempt {
		return fmt.Errorf("I10: job %s has %d runs after %d attempts", j.ID, len(all), j.Attempt)
	}
	for i, r := range all {
		if open := held && i == len(all)-1; open != (r.EndedAt == 0) || open != (r.Outcome == "") || r.Attempt != int64(i+1) {
			return fmt.Errorf("I10: run %s of job %s (held: %t) has attempt %d, outcome %q, end %q", r.ID, j.ID, held, r.Attempt, r.Outcome, r.EndedAt)
		}
	}
	return nil
}

// derived checks a composite against its children. One that was cancelled is not derived, and one whose children are
// composites themselves is left to them.
func derived(j *fleet.Job, children []*fleet.Job) error {
	if j.Kind != fleet.Composite || j.Reason == "cancelled" {
		return nil
	}
	shipped, ended, live, claimed := 0, 0, 0, false
	for _, c := range children {
		if c.Kind == fleet.Composite {
			return nil
		}
		claimed = claimed || c.Attempt > 0
		switch {
		case c.Stage == fleet.Shipped:
			shipped++
		case c.Stage.Terminal():
			ended++
		case c.Stage != fleet.Blocked:
			live++
		}
	}
	want := fleet.Queued
	switch {
	case len(children) > 0 && shipped == len(children):
		want = fleet.Shipped
	case live == 0 && ended > 0:
		want = fleet.Failed
	case claimed:
		want = fleet.Building
	}
	if j.Stage != want {
		return fmt.Errorf("I10: composite %s is %s, its %d children (%d shipped, %d ended, %d live, claimed: %t) make it %s",
			j.ID, j.Stage, len(children), shipped, ended, live, claimed, want)
	}
	return nil
}

// acyclic is I12: no job waits for itself, over deps and children.
func acyclic(v fsm.View, product string, order []*fleet.Job, children map[string][]*fleet.Job) error {
	const white, grey, black = 0, 1, 2
	colour := map[string]int{}
	jobs := map[string]*fleet.Job{}
	for _, j := range order {
		jobs[j.ID] = j
	}
	var visit func(j *fleet.Job) error
	visit = func(j *fleet.Job) error {
		switch colour[j.ID] {
		case grey:
			return fmt.Errorf("I12: job %s waits for itself", j.ID)
		case black:
			return nil
		}
		colour[j.ID] = grey
		for _, dep := range j.Deps {
			if id, ok := resolve(v, product, dep); ok && jobs[id] != nil {
				if err := visit(jobs[id]); err != nil {
					return err
				}
			}
		}
		if j.Kind == fleet.Composite {
			for _, c := range children[j.ID] {
				if err := visit(c); err != nil {
					return err
				}
			}
		}
		colour[j.ID] = black
		return nil
	}
	for _, j := range order {
		if err := visit(j); err != nil {
			return err
		}
	}
	return nil
}

// feed is I7: a job's events count from 1 without a gap, the product's feed grows strictly and has all of them, and I10: as
// many jobs were submitted as are there, while none was purged.
func feed(v fsm.View, product string, jobs map[string]*fleet.Job) error {
	seqs := map[string]uint64{}
	submitted := 0
	events, first, last := v.Feed(product, 0, math.MaxInt32)
	index := uint64(0)
	for _, e := range events {
		if e.Index <= index || e.Index > last {
			return fmt.Errorf("I7: event %d of job %s follows event %d in the feed", e.Index, e.JobID, index)
		}
		index = e.Index
		if seqs[e.JobID]++; e.Seq != seqs[e.JobID] {
			return fmt.Errorf("I7: event %d of job %s has seq %d, want %d", e.Index, e.JobID, e.Seq, seqs[e.JobID])
		}
		if e.Type == fleet.EventSubmitted {
			submitted++
		}
		if e.ProductID != product {
			return fmt.Errorf("I14: the feed of product %s has an event of product %s", product, e.ProductID)
		}
	}
	if first == 0 && submitted != len(jobs) {
		return fmt.Errorf("I10: %d jobs were submitted, %d are there", submitted, len(jobs))
	}
	for id := range jobs {
		own, _ := v.Events(product, id, 0, math.MaxInt32)
		if uint64(len(own)) != seqs[id] {
			return fmt.Errorf("I7: job %s has %d events, %d in the feed", id, len(own), seqs[id])
		}
	}
	return nil
}
