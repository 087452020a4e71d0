package main

// This file gives jobs that ended another chance.

import "github.com/spf13/cobra"

func newJobRequeue() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:               "requeue JOB",
		Short:             "Queue a failed or dead-lettered job again; its checkpoint stays",
		Example:           "  fleet-node job requeue key:fix-flaky-42\n  fleet-node job requeue 7Q -o json",
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
			job, err := cl.Requeue(ctx, id)
			if err != nil {
				return err
			}
			return showMoved(c, &o, job)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}
