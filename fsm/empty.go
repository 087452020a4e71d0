package fsm

// This file gives empty lists back what their encoding loses: it reads them as nil, which JSON would show as null.

import "github.com/lysnrai/fleet"

// fillEmpty makes every list of a decoded document that is always shown a list.
func fillEmpty(doc any) {
	switch d := doc.(type) {
	case *Submit:
		fillSubmission(&d.Submission)
	case *SubmitBatch:
		for i := range d.Submissions {
			fillSubmission(&d.Submissions[i])
		}
	case *Heartbeat:
		for _, list := range []*fleet.Strings{d.Heartbeat.Capabilities, d.Heartbeat.Engines} {
			if list != nil && *list == nil {
				*list = fleet.Strings{}
			}
		}
	case *CreateToken:
		fill(&d.Request.Roles)
		fill(&d.Request.Products)
	case *fleet.Job:
		if d != nil {
			fillSubmission(&d.Submission)
		}
	case *fleet.Factory:
		if d != nil {
			fill(&d.Capabilities)
		}
	case *fleet.Token:
		fill(&d.Roles)
		fill(&d.Products)
	case *fleet.SubmitResult:
		fillEmpty(d.Job)
	case *fleet.SubmitResults:
		fill(&d.Results)
		for i := range d.Results {
			fillEmpty(d.Results[i].Job)
		}
	case *fleet.Claim:
		fillEmpty(d.Job)
	case *fleet.Claims:
		fill(&d.Claims)
		for i := range d.Claims {
			fillEmpty(d.Claims[i].Job)
		}
	case *fleet.ReportResults:
		fill(&d.Results)
		for i := range d.Results {
			fillEmpty(d.Results[i].Job)
		}
	case *fleet.HeartbeatResult:
		fillEmpty(d.Factory)
		fill(&d.Leases)
	}
}

func fillSubmission(s *fleet.Submission) {
	fill(&s.Capabilities)
	fill(&s.Deps)
	if s.Retry != nil {
		fill(&s.Retry.On)
	}
}

func fill[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
