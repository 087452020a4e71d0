package rpc

// This file is the calls by which factories get work and report on it.

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// claim leases one job to a factory, waiting for one if it is asked to.
func (a *API) claim(ctx context.Context, c *call[fleet.ClaimRequest]) (*fleet.Claim, error) {
	if c.Body.Max != nil {
		return nil, fleet.InvalidField("max", "is for /fleet/claim/batch; this route claims one job")
	}
	claim, err := await[*fleet.Claim](ctx, a, c, &fsm.Claim{
		ProductID: c.product, FactoryID: c.Body.FactoryID, LeaseSeconds: leaseSeconds(c.Body.LeaseSeconds),
	})
	if err == nil && claim.Job != nil && !c.replayed {
		a.metrics.granted(*claim)
	}
	a.metrics.claimed(err, err == nil && claim.Job != nil)
	return claim, err
}

// claimBatch leases as many jobs as asked for and as the factory has seats, perhaps none.
func (a *API) claimBatch(ctx context.Context, c *call[fleet.ClaimRequest]) (*fleet.Claims, error) {
	if c.Body.Max == nil {
		return nil, fleet.InvalidField("max", "is missing: how many jobs at most")
	}
	claims, err := await[*fleet.Claims](ctx, a, c, &fsm.ClaimBatch{
		ProductID: c.product, FactoryID: c.Body.FactoryID, LeaseSeconds: leaseSeconds(c.Body.LeaseSeconds), Max: *c.Body.Max,
	})
	if err == nil && !c.replayed {
		a.metrics.granted(claims.Claims...)
	}
	a.metrics.claimed(err, err == nil && len(claims.Claims) > 0)
	return claims, err
}

func leaseSeconds(asked *int64) int64 {
	if asked == nil {
		return fleet.DefaultLeaseSeconds
	}
	return *asked
}

// await proposes a claim now or when there is something for it.
func await[R fsm.Result](ctx context.Context, a *API, c *call[fleet.ClaimRequest], command fsm.Command) (R, error) {
	wait := spread(time.Duration(c.Body.WaitSeconds) * time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, wait+callWait, errLogSilent)
	defer cancel()
	answer, err := a.node.Claim(ctx, c.proposal(command), wait)
	return result[R](c.request, answer, err)
}

// spread makes a wait up to a twentieth longer, so that claims that began together don't come again together.
func spread(wait time.Duration) time.Duration {
	return wait + time.Duration(rand.Int64N(int64(wait)/20+1))
}

// reports is what a factory says of many jobs at once.
type reports struct {
	Reports []fleet.JobReport `json:"reports"`
}

func (r *reports) Validate() []fleet.FieldError {
	if r.Reports == nil {
		return []fleet.FieldError{{Field: "reports", Detail: "is missing"}}
	}
	return fleet.ValidateReports(r.Reports)
}

// report passes on the reports that are well-formed. Each is judged on its own, so the others are answered here.
func (a *API) report(ctx context.Context, c *call[reports]) (*fleet.ReportResults, error) {
	results := make([]fleet.ReportResult, len(c.Body.Reports))
	var (
		good   []fleet.JobReport
		places []int
	)
	for i := range c.Body.Reports {
		r := &c.Body.Reports[i]
		if err := invalid(r.Validate()); err != nil {
			results[i] = fleet.ReportResult{JobID: r.JobID, Code: fleet.Invalid, Detail: refusal(err).Detail}
			continue
		}
		r.Normalize()
		good, places = append(good, *r), append(places, i)
	}
	if len(good) > 0 {
		judged, err := propose[*fleet.ReportResults](ctx, a, c.request, &fsm.Report{ProductID: c.product, Reports: good})
		if err != nil {
			return nil, err
		}
		for i, place := range places {
			results[place] = judged.Results[i]
		}
	}
	return &fleet.ReportResults{Results: results}, nil
}
