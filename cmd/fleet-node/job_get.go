package main

// This file shows one job, with why it is where it is.

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
)

func newJobGet() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "get JOB",
		Short:   "Show a job: by its id, the first or last letters of it, or key:KEY",
		Example: "  fleet-node job get key:fix-flaky-42\n  fleet-node job get 7Q -o json",
		Args:    takes("a job"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			id, err := findJob(ctx, cl, args[0])
			if err != nil {
				return err
			}
			job, err := cl.Job(ctx, id)
			if err != nil {
				return err
			}
			if o.quiet {
				return o.ids(c, job.ID)
			}
			if o.json() {
				return o.value(c, job)
			}
			why, err := cl.Why(ctx, id)
			if err != nil {
				return err
			}
			return showJob(c, job, why)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

func showJob(c *cobra.Command, j *fleet.Job, why *fleet.Why) error {
	because := ""
	if len(why.Reasons) > 0 {
		because = why.Reasons[0].Detail
	}
	return fields(c.OutOrStdout(),
		"id", j.ID,
		"title", title(j),
		"stage", state(j),
		"why", because,
		"key", j.IdempotencyKey,
		"priority", string(j.Priority),
		"capabilities", strings.Join(j.Capabilities, ", "),
		"engine", j.EngineClass,
		"profile", j.Profile,
		"parent", j.ParentID,
		"deps", strings.Join(j.Deps, ", "),
		"attempt", strconv.FormatInt(j.Attempt, 10),
		"failures", strconv.FormatInt(j.Failures, 10),
		"lease epoch", strconv.FormatUint(j.LeaseEpoch, 10),
		"not before", j.NotBefore.String(),
		"created", ago(j.CreatedAt),
		"changed", ago(j.UpdatedAt),
		"finished", ago(j.FinishedAt),
		"result", string(j.Result),
	)
}
