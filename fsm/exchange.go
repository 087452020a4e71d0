package fsm

// This file finds the free-form texts of an answer, wherever in its documents they are.

import "github.com/lysnrai/fleet"

// exchange copies a result with each of its free-form texts exchanged, and counts its documents.
func exchange(r Result, x exchanger) (Result, int64) {
	switch r := r.(type) {
	case *fleet.SubmitResult:
		return &fleet.SubmitResult{Outcome: r.Outcome, Job: x.jobOf(r.Job)}, x.documents
	case *fleet.SubmitResults:
		c := &fleet.SubmitResults{Results: make([]fleet.SubmitResult, len(r.Results))}
		for i, s := range r.Results {
			c.Results[i] = fleet.SubmitResult{Outcome: s.Outcome, Job: x.jobOf(s.Job)}
		}
		return c, x.documents
	case *fleet.Claim:
		c := x.claimOf(*r)
		return &c, x.documents
	case *fleet.Claims:
		c := &fleet.Claims{Claims: make([]fleet.Claim, len(r.Claims))}
		for i := range r.Claims {
			c.Claims[i] = x.claimOf(r.Claims[i])
		}
		return c, x.documents
	case *fleet.Job:
		return x.jobOf(r), x.documents
	case *fleet.ReportResults:
		c := &fleet.ReportResults{Results: make([]fleet.ReportResult, len(r.Results))}
		for i, s := range r.Results {
			s.Job = x.jobOf(s.Job)
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
	job       *fleet.Job // where the first copy of a job goes, and of a run, if anywhere
	run       *fleet.Run
	documents int64
}

// copied is a copy of a document, in the room that there is for one, which is taken then.
func copied[T any](doc *T, room **T) *T {
	c := *room
	if *room = nil; c == nil {
		c = new(T)
	}
	*c = *doc
	return c
}

func (x *exchanger) json(j fleet.JSON) fleet.JSON {
	if j == "" {
		return ""
	}
	return fleet.JSON(x.text(string(j)))
}

func (x *exchanger) jobOf(j *fleet.Job) *fleet.Job {
	if j == nil {
		return nil
	}
	x.documents++
	c := copied(j, &x.job)
	c.BodyMd = x.text(c.BodyMd)
	c.ManifestSnapshot, c.Result = x.json(c.ManifestSnapshot), x.json(c.Result)
	return c
}

func (x *exchanger) claimOf(c fleet.Claim) fleet.Claim {
	run := copied(c.Run, &x.run)
	run.ProfileSnapshot, run.VerifyResult, run.Result = x.json(run.ProfileSnapshot), x.json(run.VerifyResult), x.json(run.Result)
	x.documents += 2
	return fleet.Claim{Job: x.jobOf(c.Job), Lease: c.Lease, Run: run}
}
