package check_test

// This file tests the judges: a history with one false answer must be refused, whichever judge should see it.

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"

	"github.com/lysnrai/fleet/internal/check"
)

// lies are ways to falsify one answer of a history. Each reports whether there was one to falsify.
var lies = map[string]func(ops []*check.Operation) bool{
	"a stale report was taken": func(ops []*check.Operation) bool {
		for _, o := range ops {
			p, ok := o.Proposal.Command.(*fsm.Patch)
			if ok && o.Answer.Err != nil && o.Answer.Err.Code == fleet.StaleEpoch && p.Report.Stage == fleet.Building {
				job := &fleet.Job{ID: p.JobID, ProductID: product, Stage: fleet.Building, LeaseEpoch: *p.Report.LeaseEpoch, Version: 1000, Attempt: 1}
				o.Answer.Err, o.Answer.Result = nil, job
				return true
			}
		}
		return false
	},
	"the holder was refused": func(ops []*check.Operation) bool {
		for _, o := range ops {
			if r, ok := o.Proposal.Command.(*fsm.Renew); ok && o.Answer.Err == nil {
				o.Answer.Result, o.Answer.Err = nil, &fleet.Error{Code: fleet.StaleEpoch, CurrentEpoch: r.LeaseEpoch}
				return true
			}
		}
		return false
	},
	"one epoch was given to two": func(ops []*check.Operation) bool {
		var first *fleet.Claim
		for _, o := range ops {
			c, ok := o.Answer.Result.(*fleet.Claim)
			switch {
			case !ok:
			case c.Job != nil:
				first = c
			case first != nil:
				o.Answer.Result = first
				return true
			}
		}
		return false
	},
	"a grant had an old epoch": func(ops []*check.Operation) bool {
		for _, o := range ops {
			if c, ok := o.Answer.Result.(*fleet.Claim); ok && c.Job != nil && c.Job.LeaseEpoch > 1 {
				job, lease := *c.Job, *c.Lease
				job.LeaseEpoch--
				lease.LeaseEpoch--
				o.Answer.Result = &fleet.Claim{Job: &job, Lease: &lease, Run: c.Run}
				return true
			}
		}
		return false
	},
	"a read was stale": func(ops []*check.Operation) bool {
		shown := map[string]*fleet.Job{}
		for _, o := range ops {
			j, ok := o.Answer.Result.(*fleet.Job)
			if !ok {
				continue
			}
			if old := shown[j.ID]; old != nil && o.Proposal.Command == nil && old.Stage != j.Stage && j.Stage.Index() >= fleet.Assigned.Index() &&
				j.Kind == fleet.Leaf && j.ParentID == "" { // composites are the witness's alone
				o.Answer.Result = old
				return true
			}
			if shown[j.ID] == nil {
				shown[j.ID] = j
			}
		}
		return false
	},
	"an acknowledged job was lost": func(ops []*check.Operation) bool {
		there := map[string]bool{}
		for _, o := range ops {
			if s, ok := o.Answer.Result.(*fleet.SubmitResult); ok {
				there[s.Job.ID] = true
			}
			if o.Proposal.Command == nil && o.Query.Subject == check.Jobs && o.Query.Product == product && there[o.Query.ID] {
				o.Answer.Result, o.Answer.Err = nil, &fleet.Error{Code: fleet.NotFound}
				return true
			}
		}
		return false
	},
	"a failure was not counted": func(ops []*check.Operation) bool {
		for _, o := range ops {
			if j, ok := o.Answer.Result.(*fleet.Job); ok && j.Failures > 0 {
				c := *j
				c.Failures--
				o.Answer.Result = &c
				return true
			}
		}
		return false
	},
}

func history(seed uint64) *bench {
	b, r := newBench(), rand.New(rand.NewPCG(seed, 4))
	b.run(r, newLoad(), 300)
	return b
}

// The model of a job and the witness each refuse every lie; neither refuses the truth.
func TestJudgesRefuseLies(t *testing.T) {
	for name, lie := range lies {
		told := 0
		for seed := range uint64(12) {
			b := history(seed)
			if err := b.history.CheckJobs(product, 10*time.Second); err != nil {
				t.Fatalf("seed %d: the truth was refused: %v", seed, err)
			}
			if !lie(b.history.Operations()) {
				continue
			}
			told++
			if b.history.CheckJobs(product, 10*time.Second) == nil {
				t.Errorf("seed %d: %s, and the model of a job saw nothing", seed, name)
			}
			replay, err := b.log.Replay(b.history)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if replay.Witness(b.history) == nil {
				t.Errorf("seed %d: %s, and the witness saw nothing", seed, name)
			}
		}
		if told < 3 {
			t.Errorf("%s: told in %d histories only", name, told)
		}
	}
}

// The model of a product sees what spans jobs: the order of the line, seats, and claims that found nothing.
func TestProductModelRefusesLies(t *testing.T) {
	submit := func(id string, p fleet.Priority) fsm.Proposal {
		s := fleet.Submission{BodyMd: id, Priority: p}
		s.Normalize()
		return fsm.Proposal{Caller: root, Request: "submit " + id, Command: &fsm.Submit{ProductID: product, JobID: id, Submission: s}}
	}
	beat := fsm.Proposal{Caller: root, Request: "beat", Command: &fsm.Heartbeat{ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f0"}}}
	claim := func(n string) fsm.Proposal {
		return fsm.Proposal{Caller: root, Request: "claim " + n, Command: &fsm.Claim{ProductID: product, FactoryID: "f0", LeaseSeconds: 60}}
	}
	grant := func(id string) *fleet.Claim {
		return &fleet.Claim{
			Job:   &fleet.Job{ID: id, Stage: fleet.Assigned, LeaseEpoch: 1, Attempt: 1, Version: 2},
			Lease: &fleet.Lease{JobID: id, Status: fleet.LeaseHeld, HolderFactoryID: "f0", LeaseEpoch: 1},
		}
	}
	for name, c := range map[string]struct {
		second fleet.Priority
		first  fsm.Answer // of the first claim
		then   fsm.Answer // of the second
		ok     bool
	}{
		"the truth":        {fleet.Medium, fsm.Answer{Result: grant("a")}, fsm.Answer{Err: &fleet.Error{Code: fleet.SeatsExhausted}}, true},
		"the younger":      {fleet.Medium, fsm.Answer{Result: grant("b")}, fsm.Answer{Err: &fleet.Error{Code: fleet.SeatsExhausted}}, false},
		"the urgent":       {fleet.High, fsm.Answer{Result: grant("b")}, fsm.Answer{Err: &fleet.Error{Code: fleet.SeatsExhausted}}, true},
		"the less urgent":  {fleet.High, fsm.Answer{Result: grant("a")}, fsm.Answer{Err: &fleet.Error{Code: fleet.SeatsExhausted}}, false},
		"more than seats":  {fleet.Medium, fsm.Answer{Result: grant("a")}, fsm.Answer{Result: grant("b")}, false},
		"nothing, wrongly": {fleet.Medium, fsm.Answer{Result: &fleet.Claim{}}, fsm.Answer{Result: grant("a")}, false},
		"no seat, wrongly": {fleet.Medium, fsm.Answer{Err: &fleet.Error{Code: fleet.SeatsExhausted}}, fsm.Answer{Result: grant("a")}, false},
	} {
		b := newBench()
		for _, p := range []fsm.Proposal{submit("a", fleet.Medium), submit("b", c.second), beat} {
			b.do(0, check.Move{Proposal: p})
		}
		b.history.Propose(0, claim("1")).Done(c.first, nil)
		b.history.Propose(0, claim("2")).Done(c.then, nil)
		if err := b.history.CheckProduct(product, 10*time.Second); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// An answer with a document of another product is seen, though the log says the same.
func TestWitnessSeesForeignDocuments(t *testing.T) {
	b := history(1)
	for _, o := range b.history.Operations() {
		if o.Proposal.Command == nil && o.Query.Product == product && o.Answer.Err == nil {
			o.Query.Product = "other"
			break
		}
	}
	replay, err := b.log.Replay(b.history)
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Witness(b.history); err == nil || !strings.Contains(err.Error(), "I14") {
		t.Errorf("got %v, want I14", err)
	}
}

// A claim that waited ends with none though its factory went down meanwhile, but not though a job is there for it.
func TestWitnessKnowsClaimsThatWaited(t *testing.T) {
	for name, c := range map[string]struct {
		health fleet.Health
		beats  bool
		jobs   int
		ok     bool
	}{
		"nothing to do": {fleet.HealthOK, true, 0, true},
		"down":          {fleet.HealthDown, true, 1, true},
		"a job":         {fleet.HealthOK, true, 1, false},
		"unknown":       {"", false, 0, false},
	} {
		b := newBench()
		for i := range c.jobs {
			s := fleet.Submission{BodyMd: "x"}
			s.Normalize()
			b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "submit", Command: &fsm.Submit{ProductID: product, JobID: fmt.Sprint(i), Submission: s}}})
		}
		b.apply(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Noop{}})
		if c.beats {
			b.apply(fsm.Proposal{Caller: root, Request: "beat", Command: &fsm.Heartbeat{
				ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f0", Health: c.health},
			}})
		}
		o := b.history.Propose(1, fsm.Proposal{Caller: root, Request: "claim", Command: &fsm.Claim{ProductID: product, FactoryID: "f0", LeaseSeconds: 60}})
		o.Done(fsm.Answer{Result: &fleet.Claim{}, Index: b.index}, nil)
		replay, err := b.log.Replay(b.history)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.Witness(b.history); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// A claim that found nothing in the log is answered from a read, at the index of an entry in which more happened after it.
func TestWitnessKnowsClaimsThatCameSecond(t *testing.T) {
	down := &fleet.Error{Code: fleet.FactoryDown, Detail: "factory f0 is down, as it reported"}
	for name, c := range map[string]struct {
		health fleet.Health // what f0 says behind the claim, in the same entry
		ok     bool
	}{"down": {fleet.HealthDown, true}, "well": {fleet.HealthOK, false}} {
		b := newBench()
		beat := func(h fleet.Health) fsm.Proposal {
			return fsm.Proposal{Caller: root, Request: "beat", Command: &fsm.Heartbeat{
				ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f0", Health: h},
			}}
		}
		claim := fsm.Proposal{Caller: root, Request: "claim", Command: &fsm.Claim{ProductID: product, FactoryID: "f0", LeaseSeconds: 60}}
		b.apply(beat(fleet.HealthOK))
		o := b.history.Propose(1, claim)
		b.apply(claim, beat(c.health))
		o.Done(fsm.Answer{Err: down, Index: b.index}, nil)
		replay, err := b.log.Replay(b.history)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.Witness(b.history); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// A call of unknown outcome may have happened or not, but not before it was made.
func TestUnknownCallsMayHaveHappened(t *testing.T) {
	cancel := fsm.Proposal{Caller: root, Request: "cancel", Command: &fsm.Cancel{ProductID: product, JobID: "a"}}
	for name, c := range map[string]struct {
		before bool // the read ends before the cancel begins
		stage  fleet.Stage
		err    error // of the cancel
		ok     bool
	}{
		"it did":                      {false, fleet.Failed, fleet.OutcomeUnknown, true},
		"it did not":                  {false, fleet.Queued, fleet.OutcomeUnknown, true},
		"it can't have":               {true, fleet.Failed, fleet.OutcomeUnknown, false},
		"it promised not to have":     {false, fleet.Failed, fleet.NoLeader, false},
		"it promised, and it had not": {false, fleet.Queued, fleet.NoLeader, true},
	} {
		b := newBench()
		s := fleet.Submission{BodyMd: "x"}
		s.Normalize()
		b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "submit", Command: &fsm.Submit{ProductID: product, JobID: "a", Submission: s}}})
		read := func() {
			j := &fleet.Job{ID: "a", Stage: c.stage, Version: 1}
			if c.stage == fleet.Failed {
				j.Version, j.LeaseEpoch, j.Reason = 2, 1, "cancelled"
			}
			b.history.Read(1, check.Query{Product: product, Subject: check.Jobs, ID: "a"}).Done(fsm.Answer{Result: j}, nil)
		}
		if c.before {
			read()
		}
		b.history.Propose(0, cancel).Done(fsm.Answer{}, c.err)
		if !c.before {
			read()
		}
		if err := b.history.CheckJobs(product, 10*time.Second); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// A try whose answer was lost may land behind the next one, if that one's answer is not remembered: a claim that found nothing.
func TestLostTryMayLandBehindTheNext(t *testing.T) {
	for name, c := range map[string]struct {
		late bool // the job was submitted behind the second try, else before it
		ok   bool
	}{"behind it": {true, true}, "before it": {false, false}} {
		b := newBench()
		beat := func() {
			b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "beat", Command: &fsm.Heartbeat{
				ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f0", Health: fleet.HealthOK},
			}}})
		}
		submit := func() {
			s := fleet.Submission{BodyMd: "x"}
			s.Normalize()
			b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "submit", Command: &fsm.Submit{ProductID: product, JobID: "a", Submission: s}}})
		}
		claim := fsm.Proposal{Caller: root, Key: "k", Command: &fsm.Claim{ProductID: product, FactoryID: "f0", LeaseSeconds: 60}}
		beat()
		if !c.late {
			submit()
		}
		o := b.history.Propose(1, claim)
		o.Retry(fleet.OutcomeUnknown)
		if c.late {
			b.apply(claim)
		} else {
			b.apply()
		}
		o.Done(fsm.Answer{Result: &fleet.Claim{}, Index: b.index}, nil)
		if c.late {
			submit()
		}
		b.apply(claim) // the first try
		beat()         // shows that f0 holds it
		b.look()
		replay, err := b.log.Replay(b.history)
		if err != nil {
			t.Fatal(err)
		}
		replay.Settle(b.history)
		if err := b.history.CheckProduct(product, 10*time.Second); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// A call of unknown outcome may have changed the version that a later call names.
func TestUnknownCallsMayHaveMovedTheVersion(t *testing.T) {
	b := newBench()
	s := fleet.Submission{BodyMd: "x"}
	s.Normalize()
	b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "submit", Command: &fsm.Submit{ProductID: product, JobID: "a", Submission: s}}})
	b.do(0, check.Move{Proposal: fsm.Proposal{Caller: root, Request: "cancel", Command: &fsm.Cancel{ProductID: product, JobID: "a"}}})
	operate := fsm.Proposal{Caller: root, Request: "operate", Command: &fsm.OperatorPatch{
		ProductID: product, JobID: "a", IfMatch: fsm.IfMatch{Versions: []uint64{2}}, Report: fleet.Report{Result: `{"pr":1}`},
	}}
	b.history.Propose(0, operate).Done(fsm.Answer{}, fleet.OutcomeUnknown)
	again := operate
	again.Request = "again"
	b.history.Propose(1, again).Done(fsm.Answer{Err: fleet.Errorf(fleet.VersionMismatch, "it is at 3")}, nil)
	if err := b.history.CheckJobs(product, 10*time.Second); err != nil {
		t.Error(err)
	}
}
