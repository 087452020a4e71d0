package fsm

// This file finds the free-form texts of an answer, wherever in its documents they are.

import "github.com/lysnrai/fleet"

// exchange copies a result with each of its free-form texts exchanged, and counts its documents.
func exchange(r Result, text func(string) string) (Result, int64) {
	x := exchanger{text: text}
	switch r := r.(type) {
	case *fleet.SubmitResult:
		return &fleet.SubmitResult{Outcome: r.Outcome, Job: x.job(r.Job)}, x.documents
	case *fleet.SubmitResults:
		c := &fleet.SubmitResults{Results: make([]fleet.SubmitResult, len(r.Results))}
		for i, s := range r.Results {
			c.Results[i] = fleet.SubmitResult{Outcome: s.Outcome, Job: x.job(s.Job)}
		}
		return c, x.documents
	case *fleet.Claim:
		c := x.claim(*r)
		return &c, x.documents
	case *fleet.Claims:
		c := &fleet.Claims{Claims: make([]fleet.Claim, len(r.Claims))}
		for i := range r.Claims {
			c.Claims[i] = x.claim(r.Claims[i])
		}
		return c, x.documents
	case *fleet.Job:
		return x.job(r), x.documents
	case *fleet.ReportResults:
		c := &fleet.ReportResults{Results: make([]fleet.ReportResult, len(r.Results))}
		for i, s := range r.Results {
			s.Job = x.job(s.Job)
			c.Results[i] = s
		}
		return c, x.documents
	case *fleet.Event:
		c := *r
		c.Data = x.json(r.Data)
		return &c, 1
	case *fleet.ProfileResult:
		c := *r.Profile
		c.Snapshot = x.json(c.Snapshot)
		return &fleet.ProfileResult{Created: r.Created, Profile: &c}, 1
	}
	return r, 1 // without free-form texts
}

// exchanger is an exchange under way.
type exchanger struct {
	text      func(string) string
	documents int64
}

func (x *exchanger) json(j fleet.JSON) fleet.JSON {
	if j == "" {
		return ""
	}
	return fleet.JSON(x.text(string(j)))
}

func (x *exchanger) job(j *fleet.Job) *fleet.Job {
	if j == nil {
		return nil
	}
	x.documents++
	c := *j
	c.BodyMd = x.text(c.BodyMd)
	c.ManifestSnapshot, c.Result = x.json(c.ManifestSnapshot), x.json(c.Result)
	return &c
}

func (x *exchanger) claim(c fleet.Claim) fleet.Claim {
	run := *c.Run
	run.ProfileSnapshot, run.VerifyResult, run.Result = x.json(run.ProfileSnapshot), x.json(run.VerifyResult), x.json(run.Result)
	x.documents += 2
	return fleet.Claim{Job: x.job(c.Job), Lease: c.Lease, Run: &run}
}
