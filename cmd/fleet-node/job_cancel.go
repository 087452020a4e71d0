package main

// This file cancels jobs.

import (
	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
)

func newJobCancel() *cobra.Command {
	var n connection
	var o output
	var reason string
	c := &cobra.Command{
		Use:               "cancel JOB",
		Short:             "Cancel a job; whoever works on it is fenced at once",
		Example:           "  fleet-node job cancel key:fix-flaky-42 --reason \"no longer wanted\"\n  fleet-node job cancel 7Q",
		Args:              takes("a job"),
		ValidArgsFunction: firstArg(&n, someJobs),
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
			job, err := cl.Cancel(ctx, id, reason)
			if err != nil {
				return err
			}
			return showMoved(c, &o, job)
		},
	}
	n.flags(c)
	o.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the job's events")
	return c
}

// showMoved shows a job after a move.
func showMoved(c *cobra.Command, o *output, j *fleet.Job) error {
	switch {
	case o.json():
		return o.value(c, j)
	case o.quiet:
		return o.ids(c, j.ID)
	}
	return columns(c.OutOrStdout(), [][]string{{j.ID, state(j)}})
}
