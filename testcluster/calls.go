package testcluster

// This file is calls as a test wants them: by any node that is up, with what a refusal is, and fatal on what can't be.

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Product is the product that all calls of this package act in.
const Product = "test"

// Propose puts a command into the log as root, by the first node that is up, and tries again while there is no leader. A
// refusal is the error.
func (c *Cluster) Propose(t testing.TB, command fsm.Command) (fsm.Result, error) {
	t.Helper()
	return c.ProposeKeyed(t, "", command)
}

// ProposeKeyed does the same with an Idempotency-Key, and tries again also when the outcome is unknown.
func (c *Cluster) ProposeKeyed(t testing.TB, key string, command fsm.Command) (fsm.Result, error) {
	t.Helper()
	p := fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Key: key, Command: command}
	deadline := time.Now().Add(patience)
	for i := 0; ; i++ {
		m := c.members()[i%len(c.members())]
		if node := m.node.Load(); node != nil && m.up() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			a, err := node.Propose(ctx, p)
			cancel()
			switch {
			case err == nil && a.Err != nil:
				return nil, a.Err
			case err == nil:
				return a.Result, nil
			case errors.Is(err, fleet.NoLeader), key != "" && (errors.Is(err, fleet.OutcomeUnknown) || errors.Is(err, context.DeadlineExceeded)):
			default:
				return nil, err
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no node took %T in %s", command, patience)
		}
		if i%len(c.members()) == len(c.members())-1 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Submit submits a job and returns it. A refusal fails the test.
func (c *Cluster) Submit(t testing.TB, s fleet.Submission) *fleet.Job {
	t.Helper()
	s.Normalize()
	c.ids++
	r, err := c.ProposeKeyed(t, fmt.Sprintf("submit-%d", c.ids), &fsm.Submit{ProductID: Product, JobID: fmt.Sprintf("j%d", c.ids), Submission: s})
	if err != nil {
		t.Fatalf("submitting: %v", err)
	}
	return r.(*fleet.SubmitResult).Job
}

// Job reads a job, linearizably. It fails the test if there is none.
func (c *Cluster) Job(t testing.TB, id string) *fleet.Job {
	t.Helper()
	var job *fleet.Job
	c.Until(t, "job "+id+" can be read", func() bool {
		for _, m := range c.members() {
			node := m.node.Load()
			if node == nil || !m.up() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err := node.Read(ctx, 0, 0, func(v fsm.View) { job, _ = v.Job(Product, id) })
			cancel()
			if err == nil {
				return true
			}
		}
		return false
	})
	if job == nil {
		t.Fatalf("there is no job %s", id)
	}
	return job
}

// Factory is a worker of a test.
type Factory struct {
	c  *Cluster
	ID string
}

// Factory registers a factory with 16 seats. A refusal fails the test.
func (c *Cluster) Factory(t testing.TB, id string, capabilities ...string) *Factory {
	t.Helper()
	caps, seats := fleet.Strings(capabilities), int64(16)
	_, err := c.Propose(t, &fsm.Heartbeat{ProductID: Product, Heartbeat: fleet.HeartbeatRequest{FactoryID: id, Capabilities: &caps, SeatLimit: &seats}})
	if err != nil {
		t.Fatalf("registering %s: %v", id, err)
	}
	return &Factory{c: c, ID: id}
}

// Claim claims one job. Job is nil if nothing is eligible; a refusal fails the test.
func (f *Factory) Claim(t testing.TB, lease time.Duration) *fleet.Claim {
	t.Helper()
	f.c.ids++
	r, err := f.c.ProposeKeyed(t, fmt.Sprintf("claim-%d", f.c.ids), &fsm.Claim{ProductID: Product, FactoryID: f.ID, LeaseSeconds: int64(lease / time.Second)})
	if err != nil {
		t.Fatalf("claiming for %s: %v", f.ID, err)
	}
	return r.(*fleet.Claim)
}

// Renew keeps a lease; the error is the refusal.
func (f *Factory) Renew(t testing.TB, l *fleet.Lease) error {
	t.Helper()
	_, err := f.c.Propose(t, &fsm.Renew{ProductID: Product, JobID: l.JobID, LeaseEpoch: l.LeaseEpoch})
	return err
}

// Report reports on a job under a lease; the error is the refusal.
func (f *Factory) Report(t testing.TB, l *fleet.Lease, r fleet.Report) (*fleet.Job, error) {
	t.Helper()
	r.LeaseEpoch = &l.LeaseEpoch
	f.c.ids++
	res, err := f.c.ProposeKeyed(t, fmt.Sprintf("report-%d", f.c.ids), &fsm.Patch{ProductID: Product, JobID: l.JobID, Report: r})
	if err != nil {
		return nil, err
	}
	return res.(*fleet.Job), nil
}
