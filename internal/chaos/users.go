package chaos

// This file is programs that use the cluster as programs do: with package rpc/client, which hides what passes.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// users submit, claim, renew and ship jobs in a product of their own; some of them hold leases for as long as the run lasts.
type users struct {
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex // guards what follows
	calls  int
	failed []string // what calls came to that failed for good
	holds  int
	lost   []string // leases that a holder lost, though it renewed them in time
}

const (
	heldLeases   = 10
	heldSeconds  = 5
	renewalEvery = time.Second
)

// use starts n users, and one that holds leases.
func (r *Run) use(n int) *users {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	u := &users{stop: stop}
	r.t.Cleanup(u.halt)
	of := func(product string) *client.Client {
		var addresses []string
		for _, n := range r.Nodes {
			addresses = append(addresses, n.HTTPAddr)
		}
		c, err := client.New(client.Config{Addresses: addresses, Token: RootToken, Product: product})
		if err != nil {
			r.t.Fatal(err)
		}
		return c
	}
	holding := make(chan struct{})
	u.workers.Go(func() { u.hold(ctx, of("held"), holding) })
	for i := range n {
		u.workers.Go(func() { u.work(ctx, of("used"), fmt.Sprintf("user%d", i)) })
	}
	<-holding
	return u
}

func (u *users) halt() {
	u.stop()
	u.workers.Wait()
}

// did counts a call. What the end of the run has cut short is none.
func (u *users) did(ctx context.Context, what string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls++
	if err != nil {
		u.failed = append(u.failed, what+": "+err.Error())
	}
	return err == nil
}

// work takes one job after the other from its submission to its end.
func (u *users) work(ctx context.Context, c *client.Client, factory string) {
	seats := int64(1000)
	for ctx.Err() == nil {
		_, err := c.Heartbeat(ctx, fleet.HeartbeatRequest{FactoryID: factory, SeatLimit: &seats})
		u.did(ctx, "heartbeat", err)
		_, err = c.Submit(ctx, fleet.Submission{BodyMd: "work"})
		u.did(ctx, "submit", err)
		claim, err := c.Claim(ctx, fleet.ClaimRequest{FactoryID: factory})
		if !u.did(ctx, "claim", err) || claim.Job == nil {
			continue
		}
		_, err = c.Renew(ctx, claim.Job.ID, fleet.RenewRequest{LeaseEpoch: claim.Lease.LeaseEpoch})
		u.did(ctx, "renew", err)
		_, err = c.Report(ctx, claim.Job.ID, fleet.Report{LeaseEpoch: &claim.Lease.LeaseEpoch, Stage: fleet.Shipped})
		u.did(ctx, "report", err)
		_, err = c.Job(ctx, claim.Job.ID)
		u.did(ctx, "read", err)
	}
}

// hold claims jobs with short leases, and renews them for as long as it can.
func (u *users) hold(ctx context.Context, c *client.Client, holding chan<- struct{}) {
	seats, seconds := int64(heldLeases), int64(heldSeconds)
	var leases []*fleet.Claim
	_, err := c.Heartbeat(ctx, fleet.HeartbeatRequest{FactoryID: "holder", SeatLimit: &seats})
	for range heldLeases {
		if err == nil {
			_, err = c.Submit(ctx, fleet.Submission{BodyMd: "hold"})
		}
		if err == nil {
			var claim *fleet.Claim
			if claim, err = c.Claim(ctx, fleet.ClaimRequest{FactoryID: "holder", LeaseSeconds: &seconds}); err == nil && claim.Job != nil {
				leases = append(leases, claim)
			}
		}
	}
	u.mu.Lock()
	u.holds = len(leases)
	u.mu.Unlock()
	u.did(ctx, "taking leases", err)
	close(holding)
	for ctx.Err() == nil {
		for i, l := range leases {
			if l == nil {
				continue
			}
			_, err := c.Renew(ctx, l.Job.ID, fleet.RenewRequest{LeaseEpoch: l.Lease.LeaseEpoch})
			if errors.Is(err, fleet.StaleEpoch) {
				u.mu.Lock()
				u.lost = append(u.lost, err.Error())
				u.mu.Unlock()
				leases[i] = nil
				continue
			}
			u.did(ctx, "renewing a held lease", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(renewalEvery):
		}
	}
}

// sum is what users saw, for the report.
func (u *users) sum() (text string, failed, lost int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	text = fmt.Sprintf("%d calls of programs, %d failed; %d leases held, %d lost", u.calls, len(u.failed), u.holds, len(u.lost))
	for _, words := range append(u.failed[:min(3, len(u.failed))], u.lost[:min(3, len(u.lost))]...) {
		text += "; " + words
	}
	return text, len(u.failed), len(u.lost)
}
