package mainjob

// This file judges the outcome from what the cluster kept: the jobs, and the feed of what happened to them.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lysnrai/fleet"
)

// A Report is what the main job came to.
type Report struct {
	Packages  int
	Retries   int            // attempts beyond the first of each package
	Failed    []string       // packages that did not ship, with the reason
	NotOnce   []string       // packages with more or less than one shipped event, with the count
	Factories map[string]int // packages that each factory shipped
	Took      time.Duration  // from the first submit to the last ship, on the cluster's clock
}

// Verify compares the plan with the cluster's jobs and events. Jobs and events of others are left aside.
func (p *Plan) Verify(jobs []*fleet.Job, events []fleet.Event) Report {
	r := Report{Packages: len(p.Packages), Factories: map[string]int{}}
	byKey := make(map[string]*fleet.Job, len(jobs))
	for _, j := range jobs {
		byKey[j.IdempotencyKey] = j
	}
	shipped := map[string]int{}
	by := map[string]string{}
	for _, e := range events {
		if e.Type == fleet.EventShipped {
			shipped[e.JobID]++
			by[e.JobID] = factoryOf(e)
		}
	}
	var first, last fleet.Time
	for _, pkg := range p.Packages {
		job := byKey[Key(pkg.Path)]
		if job == nil {
			r.Failed = append(r.Failed, pkg.Path+": has no job")
			continue
		}
		r.Retries += int(max(0, job.Attempt-1))
		if job.Stage != fleet.Shipped {
			r.Failed = append(r.Failed, strings.TrimSuffix(fmt.Sprintf("%s: %s, %s", pkg.Path, job.Stage, job.Reason), ", "))
		}
		if n := shipped[job.ID]; n != 1 {
			r.NotOnce = append(r.NotOnce, fmt.Sprintf("%s: shipped %d times", pkg.Path, n))
		}
		if job.Stage == fleet.Shipped {
			r.Factories[by[job.ID]]++
		}
		if first == 0 || job.CreatedAt < first {
			first = job.CreatedAt
		}
		last = max(last, job.FinishedAt)
	}
	r.Took = max(0, last.Sub(first))
	return r
}

// OK reports whether every package was done, and exactly once.
func (r Report) OK() bool { return len(r.Failed) == 0 && len(r.NotOnce) == 0 }

func (r Report) String() string {
	if r.OK() {
		return fmt.Sprintf("%d packages, each done exactly once as far as reports go; retries: %d", r.Packages, r.Retries)
	}
	problems := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(r.Failed), r.NotOnce...))))
	shown := problems[:min(len(problems), 5)]
	return fmt.Sprintf("%d packages, not all done exactly once; retries: %d; %s", r.Packages, r.Retries, strings.Join(shown, "; "))
}

// factoryOf is the factory in an event's data.
func factoryOf(e fleet.Event) string {
	var data struct {
		FactoryID string `json:"factoryId"`
	}
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		return ""
	}
	return data.FactoryID
}
