package chaos

// This file is the calls that a cluster still takes that is short of room: each that brings work to its end.

import (
	"fmt"
	"net/http"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// works is jobs in a product of their own, which no verdict is about, to be brought to their ends where new ones are turned away.
type works struct {
	run    *Run
	client *http.Client
}

// worksProduct is their product.
const worksProduct = "works"

// prepare submits the jobs.
func (r *Run) prepare() *works {
	r.t.Helper()
	w := &works{r, newClient()}
	r.t.Cleanup(w.client.CloseIdleConnections)
	for range 2 {
		w.succeeds(leaderWait, w.submit())
	}
	return w
}

// call is one of these calls, under a key of its own.
func (w *works) call(command fsm.Command) *call {
	return &call{product: worksProduct, command: command, key: fmt.Sprintf("works%d", w.run.numbers.Add(1))}
}

func (w *works) submit() *call {
	s := fleet.Submission{BodyMd: "work"}
	s.Normalize()
	return w.call(&fsm.Submit{ProductID: worksProduct, JobID: "unknown", Submission: s})
}

// end does all that brings work to its end: a cluster that is short of room still lets each of it through within the limit.
func (w *works) end(limit time.Duration) {
	w.run.t.Helper()
	const factory = "worker"
	seats, beat := int64(100), int64(3600)
	do := func(command fsm.Command) fsm.Answer {
		w.run.t.Helper()
		return w.succeeds(limit, w.call(command))
	}
	claim := func() (id string, epoch uint64) {
		w.run.t.Helper()
		c := do(&fsm.Claim{ProductID: worksProduct, FactoryID: factory, LeaseSeconds: 60}).Result.(*fleet.Claim)
		if c.Job == nil {
			w.run.t.Fatal("F6: a claim found no job, though one is queued")
		}
		return c.Job.ID, c.Lease.LeaseEpoch
	}
	do(&fsm.Heartbeat{ProductID: worksProduct, Heartbeat: fleet.HeartbeatRequest{FactoryID: factory, SeatLimit: &seats, HeartbeatSeconds: &beat}})
	id, epoch := claim()
	do(&fsm.Renew{ProductID: worksProduct, JobID: id, LeaseEpoch: epoch, LeaseSeconds: 60})
	do(&fsm.Patch{ProductID: worksProduct, JobID: id, Report: fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Building}})
	do(&fsm.Patch{ProductID: worksProduct, JobID: id, Report: fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Failed, Reason: "no room"}})
	id, epoch = claim()
	do(&fsm.Release{ProductID: worksProduct, JobID: id, LeaseEpoch: epoch})
	do(&fsm.Cancel{ProductID: worksProduct, JobID: id, Reason: "no room"})
}

// succeeds makes a call until it does.
func (w *works) succeeds(limit time.Duration, c *call) fsm.Answer {
	w.run.t.Helper()
	var answer fsm.Answer
	at := 0
	if why := within(limit, func() string {
		a, err := w.run.try(w.client, at%len(w.run.Nodes), c)
		at++
		if answer = a; err != nil {
			return err.Error()
		}
		if a.Err != nil {
			w.run.t.Fatalf("%T: %v", c.command, a.Err)
		}
		return ""
	}); why != "" {
		w.run.t.Fatalf("F6: waited %s in vain for a %T: %s", limit, c.command, why)
	}
	return answer
}

// refused makes a call until it is refused with a code: a leader that is new does not yet know how the others' disks are.
func (w *works) refused(limit time.Duration, make func() *call, want fleet.Code) *call {
	w.run.t.Helper()
	var c *call
	at := 0
	if why := within(limit, func() string {
		c = make()
		a, err := w.run.try(w.client, at%len(w.run.Nodes), c)
		at++
		if got := code(a, err); got != string(want) {
			time.Sleep(100 * time.Millisecond)
			return got
		}
		return ""
	}); why != "" {
		w.run.t.Fatalf("F6: waited %s in vain until a %T is refused with %s: got %s", limit, c.command, want, why)
	}
	return c
}
