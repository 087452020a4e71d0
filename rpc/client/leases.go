package client

// This file is the calls by which factories get work, keep it and give it back.

import (
	"context"
	"net/url"
	"time"

	"github.com/lysnrai/fleet"
)

// Claim asks for one job and waits for it up to r.WaitSeconds. It returns nil if nothing was eligible.
func (c *Client) Claim(ctx context.Context, r fleet.ClaimRequest) (*fleet.Claim, error) {
	r.Max = nil
	in := post("/fleet/claim")
	in.wait = time.Duration(r.WaitSeconds) * time.Second
	claim, err := post1[fleet.Claim](ctx, c, in, r)
	if err != nil || claim.Job == nil {
		return nil, err
	}
	return claim, nil
}

// ClaimBatch asks for up to *r.Max jobs and waits for the first up to r.WaitSeconds.
func (c *Client) ClaimBatch(ctx context.Context, r fleet.ClaimRequest) ([]fleet.Claim, error) {
	in := post("/fleet/claim/batch")
	in.wait = time.Duration(r.WaitSeconds) * time.Second
	claims, err := post1[fleet.Claims](ctx, c, in, r)
	if err != nil {
		return nil, err
	}
	return claims.Claims, nil
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
