package main

// This file lists jobs.

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/nearest"
	"github.com/lysnrai/fleet/rpc/client"
)

func newJobList() *cobra.Command {
	var n connection
	var o output
	var q client.JobFilter
	var stage, label string
	var parked bool
	var limit int
	c := &cobra.Command{
		Use:     "list",
		Short:   "List jobs in the order of their submission",
		Example: "  fleet-node job list --stage queued\n  fleet-node job list --label team:api -q",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			if stage != "" && fleet.Stage(stage).Index() < 0 {
				return usagef("there is no stage %q%s", stage, nearest.Hint(stage, stageNames()))
			}
			if limit < 0 {
				return usagef("--limit can't be negative")
			}
			if q.Stage = fleet.Stage(stage); parked {
				q.Parked = &parked
			}
			var labelled bool
			if q.Label.Key, q.Label.Value, labelled = strings.Cut(label, ":"); label != "" && !labelled {
				return usagef("--label %q: write it as k:v", label)
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			jobs := []*fleet.Job{}
			q.Limit = fleet.MaxPage
			if limit > 0 {
				q.Limit = min(limit, fleet.MaxPage)
			}
			for j, err := range cl.Jobs(ctx, q) {
				if err != nil {
					return err
				}
				if jobs = append(jobs, j); len(jobs) == limit {
					break
				}
			}
			return showJobs(c, &o, jobs)
		},
	}
	n.flags(c)
	o.flags(c)
	f := c.Flags()
	f.StringVar(&stage, "stage", "", "only jobs in this stage")
	f.BoolVar(&parked, "parked", false, "only jobs that wait for a human")
	f.StringVar(&q.ParentID, "parent", "", "only children of this composite")
	f.StringVar(&q.FactoryID, "factory", "", "only jobs that this factory holds")
	f.StringVar(&q.IdempotencyKey, "key", "", "only the job with this idempotency key")
	f.StringVar(&label, "label", "", "only jobs with this label, as k:v")
	f.IntVar(&limit, "limit", 0, "at most so many (0: all)")
	_ = c.RegisterFlagCompletionFunc("factory", live(&n, allFactories))
	_ = c.RegisterFlagCompletionFunc("stage", cobra.FixedCompletions(stageNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func stageNames() []string {
	names := make([]string, len(fleet.Stages))
	for i, s := range fleet.Stages {
		names[i] = string(s)
	}
	return names
}

func showJobs(c *cobra.Command, o *output, jobs []*fleet.Job) error {
	if o.quiet {
		return o.ids(c, jobIDs(jobs)...)
	}
	if o.json() {
		return o.value(c, struct {
			Jobs []*fleet.Job `json:"jobs"`
		}{jobs})
	}
	var rows [][]string
	for _, j := range jobs {
		rows = append(rows, []string{j.ID, state(j), string(j.Priority), strconv.FormatInt(j.Attempt, 10), ago(j.UpdatedAt), title(j)})
	}
	return o.table(c, "jobs", []string{"ID", "STAGE", "PRIORITY", "ATTEMPT", "CHANGED", "TITLE"}, rows)
}

func jobIDs(jobs []*fleet.Job) []string {
	ids := make([]string, len(jobs))
	for i := range jobs {
		ids[i] = jobs[i].ID
	}
	return ids
}
