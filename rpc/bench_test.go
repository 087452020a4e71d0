package rpc_test

// This file is the node that benchmarks call, alone in its cluster with its stores in memory, and the calls.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/testcluster"
)

// body1K is the text of a job.
var body1K = strings.Repeat("find out why the job fails when its test runs twice, ", 20)[:1024]

// bench is a node with a factory that never runs out of seats, and a job that it holds at epoch 1.
type bench struct {
	*testing.B
	node *cluster.Node
	api  *rpc.API
	jobs int // submitted without HTTP
}

func newBench(b *testing.B) *bench {
	c := testcluster.Start(b, 1)
	n := &bench{B: b, node: c.Node(0)}
	n.api = rpc.New(rpc.Config{Node: n.node, RootToken: []byte(testcluster.Token)})
	seats, hour := int64(1<<40), int64(3600)
	n.propose(&fsm.Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats, HeartbeatSeconds: &hour}})
	n.queue(1)
	n.propose(&fsm.Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: fleet.MaxLeaseSeconds})
	return n
}

func (n *bench) propose(c fsm.Command) {
	a, err := n.node.Propose(n.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c})
	if err != nil || a.Err != nil {
		n.Fatalf("proposing %T: %v, %v", c, err, a.Err)
	}
}

// queue submits jobs job0, job1, … in one entry.
func (n *bench) queue(count int) {
	c := &fsm.SubmitBatch{ProductID: "p"}
	for range count {
		s := fleet.Submission{BodyMd: body1K}
		s.Normalize()
		c.JobIDs, c.Submissions = append(c.JobIDs, fmt.Sprint("job", n.jobs)), append(c.Submissions, s)
		n.jobs++
	}
	n.propose(c)
}

// request is one kind of call. What its body depends on is the turn.
type request struct {
	name, method, path string
	body               func(turn int) string
	status             int
	claims             bool // it needs a queued job each time
}

func requests() []request {
	fixed := func(text string) func(int) string { return func(int) string { return text } }
	return []request{
		{name: "submit", method: "POST", path: "/fleet/jobs", body: fixed(`{"bodyMd":"` + body1K + `","capabilities":["go"]}`), status: 201},
		{name: "claim", method: "POST", path: "/fleet/claim", body: fixed(`{"factoryId":"f1","leaseSeconds":3600}`), status: 200, claims: true},
		{name: "patch", method: "PATCH", path: "/fleet/jobs/job0", body: func(turn int) string {
			return `{"leaseEpoch":1,"stage":"` + []string{"building", "testing"}[turn%2] + `"}`
		}, status: 200},
		{name: "heartbeat", method: "POST", path: "/fleet/factories/heartbeat", body: fixed(`{"factoryId":"f1","leases":[{"jobId":"job0","leaseEpoch":1}]}`), status: 200},
		{name: "get", method: "GET", path: "/fleet/jobs/job0", body: fixed(""), status: 200},
	}
}

// loop calls once an iteration. Jobs to claim are made while the clock stands.
func (n *bench) loop(r request, call func(turn int)) {
	const stock = 1000
	n.ReportAllocs()
	if r.claims {
		n.queue(stock)
	}
	for turn := 0; n.Loop(); turn++ {
		if r.claims && turn%stock == stock-1 {
			n.StopTimer()
			n.queue(stock)
			n.StartTimer()
		}
		call(turn)
	}
}
