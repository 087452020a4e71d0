package fsm

// This file is the state that benchmarks begin with, and the commands of a cluster at work.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// sizes are how many jobs there are. A million takes half a minute to make: -short leaves it out.
func sizes() []int {
	if testing.Short() {
		return []int{1_000, 100_000}
	}
	return []int{1_000, 100_000, 1_000_000}
}

// bySize runs a benchmark with states of all sizes. Each is made once, however many benchmarks and counts begin with it.
func bySize(b *testing.B, benchmark func(b *testing.B, n int, st *state)) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) { benchmark(b, n, populated(b, n)) })
	}
}

// body1K is the text of a job.
var body1K = strings.Repeat("find out why the job fails when its test runs twice, ", 20)[:1024]

// The ids of the jobs of populated, by number: a third is held, a third waits, a third has failed.
func heldID(i int) string   { return fmt.Sprintf("held%07d", i) }
func queuedID(i int) string { return fmt.Sprintf("queued%07d", i) }
func failedID(i int) string { return fmt.Sprintf("failed%07d", i) }
func holderID(i int) string { return fmt.Sprintf("holder%06d", i) } // of the held jobs from 10*i on

// seatsOfHolder is how many jobs a holder holds.
const seatsOfHolder = 10

// bodied is a job that a factory with all ten capabilities can serve; every tenth is alike.
func bodied(i int) fleet.Submission {
	return submission(func(s *fleet.Submission) {
		s.BodyMd, s.Capabilities = body1K, []string{"c" + fmt.Sprint(i%10)}
	})
}

// populated is a state with n jobs in ten lines, the holders of a third of them, and the factory f1, which never runs out of seats.
func populated(b *testing.B, n int) *state {
	b.Helper()
	r := newReplica(b)
	submit := func(id func(int) string) {
		for i := 0; i < n/3; {
			c := &SubmitBatch{ProductID: "p"}
			for ; i < n/3 && len(c.JobIDs) < fleet.MaxBatch; i++ {
				c.JobIDs, c.Submissions = append(c.JobIDs, id(i)), append(c.Submissions, bodied(i))
			}
			must1[*fleet.SubmitResults](r, c)
		}
	}
	register := func(id string, seats int64) {
		caps := fleet.Strings{}
		for i := range 10 {
			caps = append(caps, fmt.Sprint("c", i))
		}
		must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, SeatLimit: &seats, Capabilities: &caps}})
	}
	submit(heldID)
	for i := 0; i < n/3; i += seatsOfHolder {
		holder := holderID(i / seatsOfHolder)
		register(holder, seatsOfHolder)
		must1[*fleet.Claims](r, &ClaimBatch{ProductID: "p", FactoryID: holder, LeaseSeconds: 60, Max: seatsOfHolder})
	}
	submit(failedID)
	for i := range n / 3 {
		must1[*fleet.Job](r, &Cancel{ProductID: "p", JobID: failedID(i)})
	}
	submit(queuedID)
	register("f1", 1<<40)
	return r.m.st
}

// work is one kind of command.
type work struct {
	name  string
	uses  int  // jobs that it changes for good
	late  bool // all leases have expired
	keyed bool // it comes with an Idempotency-Key, as the client's calls do
	make  func(i int) Command
}

// batched is how many jobs are in a command for many.
const batched = 16

// works are the commands of a cluster at work on a populated state. Those of once in a cluster's life are left out.
func works() []work {
	one, seats := uint64(1), int64(1<<40)
	held := func(i int, stage fleet.Stage) fleet.JobReport {
		return fleet.JobReport{JobID: heldID(i), Report: report(1, stage, "")}
	}
	all := []work{
		{name: "submit", uses: 1, make: func(i int) Command {
			return &Submit{ProductID: "p", JobID: fmt.Sprintf("new%07d", i), Submission: bodied(i)}
		}},
		{name: "claim", uses: 1, make: func(int) Command { return &Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60} }},
		{name: "patch", uses: 1, make: func(i int) Command {
			return &Patch{ProductID: "p", JobID: heldID(i), Report: report(1, fleet.Building, "")}
		}},
		{name: "ship", uses: 1, make: func(i int) Command {
			return &Patch{ProductID: "p", JobID: heldID(i), Report: report(1, fleet.Shipped, "")}
		}},
		{name: "heartbeat", uses: 1, make: func(int) Command {
			return &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats}}
		}},
		{name: "heartbeat_10_leases", uses: seatsOfHolder, make: func(i int) Command {
			q := fleet.HeartbeatRequest{FactoryID: holderID(i)}
			for j := range seatsOfHolder {
				q.Leases = append(q.Leases, fleet.HeldLease{JobID: heldID(seatsOfHolder*i + j), LeaseEpoch: 1})
			}
			return &Heartbeat{ProductID: "p", Heartbeat: q}
		}},
		{name: "renew", uses: 1, make: func(i int) Command { return &Renew{ProductID: "p", JobID: heldID(i), LeaseEpoch: 1} }},
		{name: "release", uses: 1, make: func(i int) Command { return &Release{ProductID: "p", JobID: heldID(i), LeaseEpoch: 1} }},
		{name: "cancel", uses: 1, make: func(i int) Command { return &Cancel{ProductID: "p", JobID: queuedID(i)} }},
		{name: "requeue", uses: 1, make: func(i int) Command { return &Requeue{ProductID: "p", JobID: failedID(i)} }},
		{name: "operator_patch", uses: 1, make: func(i int) Command {
			return &OperatorPatch{ProductID: "p", JobID: queuedID(i), IfMatch: IfMatch{Any: true}, Report: fleet.Report{Reason: "later"}}
		}},
		{name: "comment", uses: 1, make: func(i int) Command {
			return &Comment{ProductID: "p", JobID: heldID(i), LeaseEpoch: &one, Data: `{"text":"half way"}`}
		}},
		{name: "artifact", uses: 1, make: func(i int) Command {
			return &AddArtifact{ProductID: "p", JobID: heldID(i), Request: fleet.ArtifactRequest{LeaseEpoch: &one, Name: "log", Kind: "log", URI: "file:x"}}
		}},
		{name: "submit_16", uses: batched, make: func(i int) Command {
			c := &SubmitBatch{ProductID: "p"}
			for j := range batched {
				c.JobIDs, c.Submissions = append(c.JobIDs, fmt.Sprintf("new%07d", batched*i+j)), append(c.Submissions, bodied(j))
			}
			return c
		}},
		{name: "claim_16", uses: batched, make: func(int) Command {
			return &ClaimBatch{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60, Max: batched}
		}},
		{name: "report_16", uses: batched, make: func(i int) Command {
			c := &Report{ProductID: "p"}
			for j := range batched {
				c.Reports = append(c.Reports, held(batched*i+j, fleet.Shipped))
			}
			return c
		}},
		{name: "reap_1", uses: 2, late: true, make: func(int) Command { return &Reap{Limit: 1} }},
		{name: "profile", uses: 1, make: func(i int) Command {
			return &PutProfile{ProductID: "p", Name: fmt.Sprint("profile", i), Snapshot: `{"model":"small"}`}
		}},
		{name: "token", uses: 1, make: func(i int) Command {
			return &CreateToken{ID: fmt.Sprint("t", i), Hash: fmt.Appendf(nil, "%032d", i), Request: fleet.TokenRequest{Roles: []fleet.Role{fleet.RoleReader}}}
		}},
		{name: "noop", uses: 1, make: func(int) Command { return &Noop{} }},
	}
	for _, w := range all[:4] {
		w.name, w.keyed = w.name+"_keyed", true
		all = append(all, w)
	}
	return all
}

// hot are the works that a cluster does all the time.
func hot() (list []work) {
	for _, w := range works() {
		switch w.name {
		case "submit", "claim", "patch", "ship", "heartbeat", "renew", "report_16":
			list = append(list, w)
		}
	}
	return list
}

// entry is the i-th of a work, in an entry of its own.
func (w work) entry(i int) *Entry {
	e := &Entry{Stamp: start, Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: w.make(i)}}}
	if w.keyed {
		e.Proposals[0].Key, e.Proposals[0].Request = fmt.Sprintf("key%07d", i), fmt.Sprintf("%032d", i)
	}
	if w.late {
		e.Stamp = start.Add(3600)
	}
	if e.Proposals[0].Command.role() == "" {
		e.Proposals[0].Caller.Actor = ActorFleet
	}
	return e
}
