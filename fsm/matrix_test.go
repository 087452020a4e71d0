package fsm

// This file holds every move of a job to a table written from docs/semantics.md, "Stages and who may move a job": each
// place a job can be in × each stage × each actor, with what becomes of the job, its epoch, its lease and its run.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// In the tables a stage is what the job is in afterwards, "same" is a call that moves nothing, "stale" is stale_epoch and
// "illegal" is illegal_transition. Of places, +held and +parked tell apart what one stage can be.

// patches is what a PATCH comes to: a column for each stage that it names.
const patches = `
holder         queued  blocked assigned building review  testing shipped failed  dead_letter
queued         stale   stale   stale    stale    stale   stale   stale   stale   stale
blocked        stale   stale   stale    stale    stale   stale   stale   stale   stale
assigned       illegal illegal same     building review  testing shipped failed  illegal
building       illegal illegal illegal  same     review  testing shipped failed  illegal
review+held    illegal illegal illegal  building same    testing shipped failed  illegal
testing+held   illegal illegal illegal  building review  same    shipped failed  illegal
review+parked  stale   stale   stale    stale    stale   stale   stale   stale   stale
testing+parked stale   stale   stale    stale    stale   stale   stale   stale   stale
shipped        stale   stale   stale    stale    stale   stale   stale   stale   stale
failed         stale   stale   stale    stale    stale   stale   stale   stale   stale
dead_letter    stale   stale   stale    stale    stale   stale   stale   stale   stale

zombie         queued  blocked assigned building review  testing shipped failed  dead_letter
queued         stale   stale   stale    stale    stale   stale   stale   stale   stale
blocked        stale   stale   stale    stale    stale   stale   stale   stale   stale
assigned       stale   stale   stale    stale    stale   stale   stale   stale   stale
building       stale   stale   stale    stale    stale   stale   stale   stale   stale
review+held    stale   stale   stale    stale    stale   stale   stale   stale   stale
testing+held   stale   stale   stale    stale    stale   stale   stale   stale   stale
review+parked  stale   stale   stale    stale    stale   stale   stale   stale   stale
testing+parked stale   stale   stale    stale    stale   stale   stale   stale   stale
shipped        stale   stale   stale    stale    stale   stale   stale   stale   stale
failed         stale   stale   stale    stale    stale   stale   stale   stale   stale
dead_letter    stale   stale   stale    stale    stale   stale   stale   stale   stale

operator       queued  blocked assigned building review  testing shipped failed  dead_letter
queued         same    illegal illegal  illegal  illegal illegal illegal illegal illegal
blocked        illegal same    illegal  illegal  illegal illegal illegal illegal illegal
assigned       illegal illegal illegal  illegal  illegal illegal illegal illegal illegal
building       illegal illegal illegal  illegal  illegal illegal illegal illegal illegal
review+held    illegal illegal illegal  illegal  illegal illegal illegal illegal illegal
testing+held   illegal illegal illegal  illegal  illegal illegal illegal illegal illegal
review+parked  queued  illegal illegal  illegal  same    testing shipped failed  illegal
testing+parked queued  illegal illegal  illegal  review  same    shipped failed  illegal
shipped        illegal illegal illegal  illegal  illegal illegal same    illegal illegal
failed         illegal illegal illegal  illegal  illegal illegal illegal same    illegal
dead_letter    illegal illegal illegal  illegal  illegal illegal illegal illegal same
`

// routes is what the other calls and the reaper come to: a column for each.
const routes = `
               claim    renew release   cancel  requeue expire wall
queued         assigned stale stale     failed  illegal same   same
blocked        same     stale stale     failed  illegal same   same
assigned       same     same  queued    failed  illegal queued failed
building       same     same  queued    failed  illegal queued failed
review+held    same     same  review    failed  illegal queued failed
testing+held   same     same  testing   failed  illegal queued failed
review+parked  same     stale stale     failed  illegal same   same
testing+parked same     stale stale     failed  illegal same   same
shipped        same     stale stale     illegal illegal same   same
failed         same     stale stale     illegal queued  same   same
dead_letter    same     stale stale     illegal queued  same   same
`

// outcomes is how the open run is closed by what takes a job from its holder; nothing else closes one.
var outcomes = map[string]fleet.Outcome{
	"shipped": fleet.OutcomeShipped, "failed": fleet.OutcomeFailed, "release": fleet.OutcomeReleased, "park": fleet.OutcomeParked,
	"cancel": fleet.OutcomeCancelled, "expire": fleet.OutcomeLeaseExpired, "wall": fleet.OutcomeBudgetExceeded,
}

func TestStageMatrix(t *testing.T) {
	for _, table := range strings.Split(strings.TrimSpace(patches), "\n\n") {
		rows := strings.Split(table, "\n")
		head := strings.Fields(rows[0])
		for _, row := range rows[1:] {
			cells := strings.Fields(row)
			for i, stage := range head[1:] {
				moved(t, cells[0], head[0]+" "+stage, cells[i+1])
			}
		}
	}
	rows := strings.Split(strings.TrimRight(routes, "\n"), "\n")[1:]
	for _, row := range rows[1:] {
		cells := strings.Fields(row)
		for i, route := range strings.Fields(rows[0]) {
			moved(t, cells[0], route, cells[i+1])
		}
	}
}

// moved brings a job to a place and holds what an action does to it to what is wanted; a second time while the job's
// dependency is not met, so that it is blocked wherever it would be queued.
func moved(t *testing.T, place, action, want string) {
	for _, unmet := range []bool{false, true} {
		if unmet && place == "queued" || !unmet && place == "blocked" {
			continue
		}
		r := at(t, place, unmet)
		name := fmt.Sprintf("%s, %s, dependency unmet %t", place, action, unmet)
		before, beforeLease, hash := *r.job("a"), *r.lease("a"), timeless(r.m)
		held := beforeLease.Status == fleet.LeaseHeld
		a := r.act(action, before.LeaseEpoch, held)
		after, afterLease := *r.job("a"), *r.lease("a")

		code := map[string]fleet.Code{"stale": fleet.StaleEpoch, "illegal": fleet.IllegalTransition}[want]
		if code != "" {
			if a.Err == nil || a.Err.Code != code {
				t.Errorf("%s: got %v, %v, want %s", name, a.Result, a.Err, code)
			}
			if timeless(r.m) != hash {
				t.Errorf("%s: a refusal changed the state", name)
			}
			continue
		}
		stage := fleet.Stage(want)
		switch {
		case want == "same":
			stage = before.Stage
		case stage == fleet.Queued && unmet:
			stage = fleet.Blocked
		}
		if a.Err != nil || after.Stage != stage {
			t.Errorf("%s: got %s, %v, want %s", name, after.Stage, a.Err, stage)
			continue
		}
		epoch := before.LeaseEpoch
		switch {
		case action == "claim" && want == "assigned", action == "cancel", held && (action == "expire" || action == "wall"):
			epoch++
		}
		if after.LeaseEpoch != epoch || afterLease.LeaseEpoch != epoch {
			t.Errorf("%s: got epoch %d and a lease at %d, want %d", name, after.LeaseEpoch, afterLease.LeaseEpoch, epoch)
		}
		keeps := held && (want == "same" || strings.HasPrefix(action, "holder ") && stage.Active()) || action == "claim" && want == "assigned"
		if got := afterLease.Status == fleet.LeaseHeld; got != keeps {
			t.Errorf("%s: got a lease that is held %t, want %t", name, got, keeps)
		}
		if (afterLease.Status == fleet.LeaseExpired) != (held && action == "expire") {
			t.Errorf("%s: got a lease that is %s", name, afterLease.Status)
		}
		if held && !keeps {
			how := action[strings.LastIndexByte(action, ' ')+1:]
			if action == "release" && stage.Active() {
				how = "park"
			}
			runs := r.runs("a")
			if run := runs[len(runs)-1]; run.Outcome != outcomes[how] || run.EndedAt == 0 {
				t.Errorf("%s: got a run that ended %q at %v, want %q", name, run.Outcome, run.EndedAt, outcomes[how])
			}
		}
		if f, _ := r.m.st.products.Get("p"); must(f.factories.Get("f1")).doc.ActiveLeases != map[bool]int64{true: 1}[keeps] {
			t.Errorf("%s: the factory's seats are not right", name)
		}
		if (after.FinishedAt != 0) != stage.Terminal() {
			t.Errorf("%s: got finishedAt %v in %s", name, after.FinishedAt, stage)
		}
	}
}

// at is a world with job a in a place: under the hands of f1, or of nobody. It depends softly on d, which f2 holds.
func at(t *testing.T, place string, unmet bool) *replica {
	t.Helper()
	r := newReplica(t)
	never := int64(3600)
	for id, capability := range map[string]string{"f1": "go", "f2": "other"} {
		caps := fleet.Strings{capability}
		must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, Capabilities: &caps, HeartbeatSeconds: &never}})
	}
	r.submit("d", func(s *fleet.Submission) { s.Capabilities = []string{"other"} })
	must1[*fleet.Claim](r, &Claim{ProductID: "p", FactoryID: "f2", LeaseSeconds: 86_400})
	r.patch("d", report(1, fleet.Testing, ""))
	wall := int64(100)
	r.submit("a", func(s *fleet.Submission) {
		s.Capabilities, s.Deps, s.DepsMode, s.Budget = []string{"go"}, []string{"d"}, fleet.Soft, &fleet.Budget{Wall: &wall}
		if place == "dead_letter" {
			s.Retry = &fleet.Retry{}
		}
	})
	stage, parked := strings.CutSuffix(place, "+parked")
	stage, _, _ = strings.Cut(stage, "+")
	to := fleet.Stage(stage)
	if to != fleet.Queued && to != fleet.Blocked {
		r.claim()
		r.now = r.now.Add(1)
		switch {
		case to == fleet.Assigned:
		case to == fleet.Failed, to == fleet.DeadLetter:
			r.patch("a", report(1, fleet.Failed, "red"))
		default:
			r.patch("a", report(1, to, ""))
		}
		if parked {
			must1[*fleet.Lease](r, &Release{ProductID: "p", JobID: "a", LeaseEpoch: 1})
		}
	}
	if unmet {
		r.patch("d", report(1, fleet.Building, ""))
	}
	if got := r.job("a").Stage; got != to {
		t.Fatalf("could not bring the job to %s: it is %s", place, got)
	}
	return r
}

// act does one action of the tables.
func (r *replica) act(action string, epoch uint64, held bool) Answer {
	r.t.Helper()
	actor, stage, isPatch := strings.Cut(action, " ")
	if isPatch {
		q := fleet.Report{Stage: fleet.Stage(stage), Reason: "red"}
		switch actor {
		case "operator":
			return r.try(&OperatorPatch{ProductID: "p", JobID: "a", IfMatch: IfMatch{Versions: []uint64{r.job("a").Version}}, Report: q})
		case "zombie":
			epoch--
		}
		q.LeaseEpoch = &epoch
		return r.try(&Patch{ProductID: "p", JobID: "a", Report: q})
	}
	switch action {
	case "claim":
		if held { // a factory that has a seat left
			caps := fleet.Strings{"go"}
			must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f3", Capabilities: &caps}})
			return r.try(&Claim{ProductID: "p", FactoryID: "f3", LeaseSeconds: 60})
		}
		return r.try(&Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60})
	case "renew":
		return r.try(&Renew{ProductID: "p", JobID: "a", LeaseEpoch: epoch})
	case "release":
		return r.try(&Release{ProductID: "p", JobID: "a", LeaseEpoch: epoch})
	case "cancel":
		return r.try(&Cancel{ProductID: "p", JobID: "a"})
	case "requeue":
		return r.try(&Requeue{ProductID: "p", JobID: "a"})
	case "expire":
		r.now = r.now.Add(61)
		return r.try(&Reap{})
	case "wall":
		if held {
			must1[*fleet.Lease](r, &Renew{ProductID: "p", JobID: "a", LeaseEpoch: epoch, LeaseSeconds: 1000})
		}
		r.now = r.now.Add(101)
		return r.try(&Reap{})
	}
	r.t.Fatalf("unknown action %s", action)
	return Answer{}
}

func (r *replica) lease(id string) (l *fleet.Lease) {
	r.m.View(func(v View) { l, _ = v.Lease("p", id) })
	return l
}

func (r *replica) runs(id string) (runs []*fleet.Run) {
	r.m.View(func(v View) { runs, _ = v.Runs("p", id) })
	return runs
}
