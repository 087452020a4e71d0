package client

// This file is the calls by which factories get work, keep it and give it back.

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
)

const (
	// recallWait is how long a claim that its caller broke off is asked after.
	recallWait = 250 * time.Millisecond
	// releaseWait is how long all that it was granted may take to be given back, so many at once.
	releaseWait    = time.Second
	releasesAtOnce = 16
)

// Claim asks for one job and waits for it up to r.WaitSeconds, at another node if one ends the wait early. It returns
// nil if nothing was eligible. If ctx ends while it waits, a job that was granted at that moment is given back.
func (c *Client) Claim(ctx context.Context, r fleet.ClaimRequest) (*fleet.Claim, error) {
	r.Max = nil
	claims, _, err := c.claim(ctx, "/fleet/claim", r)
	if err != nil || len(claims) == 0 {
		return nil, err
	}
	return &claims[0], nil
}

// ClaimBatch asks for up to *r.Max jobs and waits for the first as Claim does.
func (c *Client) ClaimBatch(ctx context.Context, r fleet.ClaimRequest) ([]fleet.Claim, error) {
	claims, _, err := c.claim(ctx, "/fleet/claim/batch", r)
	return claims, err
}

// ClaimAndHold claims a job as Claim does, and holds it until working ends. It does not renew the lease: whoever calls it
// does, and says so by Renewed. (Claims does both.)
func (c *Client) ClaimAndHold(ctx, working context.Context, r fleet.ClaimRequest) (*Held, error) {
	r.Max = nil
	held, err := c.claimAndHold(ctx, working, "/fleet/claim", r)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	return held[0], nil
}

// ClaimBatchAndHold claims up to *r.Max jobs as ClaimBatch does, and holds each as ClaimAndHold does one: under an epoch and
// with a context of its own.
func (c *Client) ClaimBatchAndHold(ctx, working context.Context, r fleet.ClaimRequest) ([]*Held, error) {
	return c.claimAndHold(ctx, working, "/fleet/claim/batch", r)
}

func (c *Client) claimAndHold(ctx, working context.Context, path string, r fleet.ClaimRequest) ([]*Held, error) {
	claims, sent, err := c.claim(ctx, path, r)
	if err != nil || len(claims) == 0 {
		return nil, err
	}
	begun := make([]time.Time, len(claims)) // of each lease, or before that
	for i := range begun {
		begun[i] = sent
	}
	if ttl := time.Duration(claims[0].Lease.TTLSeconds) * time.Second; time.Since(sent) > ttl/3 {
		// The leases began somewhere in that time, and may be almost whole or as good as over by this process's clock. A
		// renewal tells.
		c.renewAll(working, ttl, r.FactoryID, claims, begun)
	}
	held := make([]*Held, len(claims))
	for i, claim := range claims {
		held[i] = c.hold(working, claim, begun[i])
	}
	return held, nil
}

// renewAll renews the leases of fresh claims by one heartbeat, which leaves the factory as it is. What is not renewed stays
// as it was granted.
func (c *Client) renewAll(ctx context.Context, ttl time.Duration, factoryID string, claims []fleet.Claim, begun []time.Time) {
	ctx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	request := fleet.HeartbeatRequest{FactoryID: factoryID}
	for _, claim := range claims {
		request.Leases = append(request.Leases, fleet.HeldLease{JobID: claim.Job.ID, LeaseEpoch: claim.Lease.LeaseEpoch})
	}
	sent := time.Now()
	result, err := c.Heartbeat(ctx, request)
	if err != nil || len(result.Leases) != len(claims) {
		return
	}
	for i, renewed := range result.Leases {
		if renewed.OK && renewed.Lease != nil {
			claims[i].Lease, begun[i] = renewed.Lease, sent
		}
	}
}

// claim asks until something is granted or the time is over. It returns also when the request that was answered was sent.
func (c *Client) claim(ctx context.Context, path string, r fleet.ClaimRequest) (claims []fleet.Claim, sent time.Time, err error) {
	wait := time.Duration(r.WaitSeconds) * time.Second
	over := time.Now().Add(wait)
	for backoff := firstBackoff; ctx.Err() == nil; backoff = min(2*backoff, lastBackoff) {
		in := post(path)
		in.wait, in.key = time.Duration(r.WaitSeconds)*time.Second, rand.Text()
		sent = time.Now()
		claims, err = c.claimOnce(ctx, in, r)
		if err != nil && ctx.Err() != nil {
			c.recall(ctx, in, r)
		}
		left := time.Until(over)
		if err != nil || len(claims) > 0 || left <= max(time.Second, wait/10) { // a node's time is not exact
			return claims, sent, err
		}
		// This node stops, or knows no leader: others may.
		c.shared.next.Add(1)
		_ = sleep(ctx, backoff)
		r.WaitSeconds = int64(left / time.Second)
	}
	return nil, sent, context.Cause(ctx)
}

// claimOnce makes one call for one claim or many.
func (c *Client) claimOnce(ctx context.Context, in *call, r fleet.ClaimRequest) ([]fleet.Claim, error) {
	var granted struct {
		fleet.Claim
		Claims []fleet.Claim `json:"claims"`
	}
	if _, err := c.do(ctx, in, r, &granted); err != nil {
		return nil, err
	}
	claims := granted.Claims
	if granted.Job != nil {
		claims = append(claims, granted.Claim)
	}
	most := int64(1)
	if r.Max != nil {
		most = *r.Max
	}
	if int64(len(claims)) > most {
		return nil, fmt.Errorf("reading the answer to POST %s: %w: it has %d claims, asked for were %d", in.path, errGarbage, len(claims), most)
	}
	for _, claim := range claims {
		if claim.Job == nil || claim.Lease == nil || claim.Run == nil {
			return nil, fmt.Errorf("reading the answer to POST %s: %w: a claim is job, lease and run", in.path, errGarbage)
		}
	}
	return claims, nil
}

// recall asks once more after a claim that was broken off. The same key tells what was granted, and all of it is given back:
// it would wait for the end of leases that nobody uses.
func (c *Client) recall(ctx context.Context, broken *call, r fleet.ClaimRequest) {
	ctx = context.WithoutCancel(ctx)
	asking, cancel := context.WithTimeout(ctx, recallWait)
	defer cancel()
	again := *broken
	claims, err := c.Patient(-1).claimOnce(asking, &again, r)
	if err != nil {
		return
	}
	releasing, cancelReleases := context.WithTimeout(ctx, releaseWait)
	defer cancelReleases()
	var (
		releases sync.WaitGroup
		places   = make(chan struct{}, releasesAtOnce)
	)
	for _, claim := range claims {
		places <- struct{}{}
		releases.Go(func() {
			_, _ = c.Release(releasing, claim.Job.ID, fleet.ReleaseRequest{LeaseEpoch: claim.Lease.LeaseEpoch})
			<-places
		})
	}
	releases.Wait()
}

// Lease reads who may work on a job until when.
func (c *Client) Lease(ctx context.Context, jobID string, options ...ReadOption) (*fleet.Lease, error) {
	return get1[fleet.Lease](ctx, c, jobPath(jobID, "/lease"), options)
}

// Renew keeps a lease.
func (c *Client) Renew(ctx context.Context, jobID string, r fleet.RenewRequest) (*fleet.Lease, error) {
	in := post(jobPath(jobID, "/lease/renew"))
	in.keyless = true
	return post1[fleet.Lease](ctx, c, in, r)
}

// Release gives a lease back.
func (c *Client) Release(ctx context.Context, jobID string, r fleet.ReleaseRequest) (*fleet.Lease, error) {
	return post1[fleet.Lease](ctx, c, post(jobPath(jobID, "/lease/release")), r)
}

// Heartbeat registers a factory, reports on it, and renews its leases.
func (c *Client) Heartbeat(ctx context.Context, r fleet.HeartbeatRequest) (*fleet.HeartbeatResult, error) {
	in := post("/fleet/factories/heartbeat")
	in.keyless = true
	return post1[fleet.HeartbeatResult](ctx, c, in, r)
}

// Factories reads all factories of the product.
func (c *Client) Factories(ctx context.Context, options ...ReadOption) ([]*fleet.Factory, error) {
	var list struct {
		Factories []*fleet.Factory `json:"factories"`
	}
	err := c.get(ctx, "/fleet/factories", nil, &list, options)
	return list.Factories, err
}

// Factory reads one factory.
func (c *Client) Factory(ctx context.Context, id string, options ...ReadOption) (*fleet.Factory, error) {
	return get1[fleet.Factory](ctx, c, "/fleet/factories/"+url.PathEscape(id), options)
}
