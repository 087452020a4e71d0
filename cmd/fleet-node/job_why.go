package main

// This file says why a job is not running.

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newJobWhy() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:               "why JOB",
		Short:             "Say why a job is not running, the most decisive reason first",
		Example:           "  fleet-node job why key:fix-flaky-42\n  fleet-node job why 7Q -o json",
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
			why, err := cl.Why(ctx, id)
			if err != nil {
				return err
			}
			if o.json() {
				return o.value(c, why)
			}
			for _, r := range why.Reasons {
				text := r.Code + ": " + printable(r.Detail)
				if o.quiet {
					text = r.Code
				}
				if _, err := fmt.Fprintln(c.OutOrStdout(), text); err != nil {
					return err
				}
			}
			return nil
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}
