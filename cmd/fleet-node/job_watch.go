package main

// This file follows a job until it ends.

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

func newJobWatch() *cobra.Command {
	var n connection
	var o output
	var exitStatus bool
	c := &cobra.Command{
		Use:     "watch JOB",
		Short:   "Follow a job until it ends; Ctrl-C leaves the job as it is",
		Example: "  fleet-node job watch key:fix-flaky-42 --exit-status",
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
			job, err := watchJob(ctx, c, cl, &o, id)
			if err != nil {
				return err
			}
			if exitStatus && job.Stage != fleet.Shipped {
				return &statusError{exitFailed, errors.New("the job ended " + state(job))}
			}
			return nil
		},
	}
	n.flags(c)
	o.flags(c)
	c.Flags().BoolVar(&exitStatus, "exit-status", false, "exit with 1 if the job ends without being shipped")
	return c
}

// watchJob writes the job's events, those that were and those that come, until it has ended.
func watchJob(ctx context.Context, c *cobra.Command, cl *client.Client, o *output, id string) (*fleet.Job, error) {
	var index uint64
	err := pages(0, 0, func(after uint64, limit int) (uint64, int, error) {
		events, err := cl.JobEvents(ctx, id, after, limit)
		if len(events) > 0 {
			index = lastIndex(events)
		}
		return lastSeq(events), len(events), showEvents(c, o, events, err)
	})
	if err != nil {
		return nil, err
	}
	job, err := cl.Job(ctx, id)
	if err != nil || job.Stage.Terminal() {
		return job, err
	}
	for e, err := range cl.Events(ctx, index) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		if e.JobID != id {
			continue
		}
		if err := showEvents(c, o, []fleet.Event{e}, nil); err != nil {
			return nil, err
		}
		if job, err = cl.Job(ctx, id); err != nil || job.Stage.Terminal() {
			return job, err
		}
	}
	if ctx.Err() != nil {
		return nil, &statusError{exitInterrupted, errors.New("the job goes on; watch it again with fleet-node job watch " + id)}
	}
	return job, nil
}
