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
		Use:               "watch JOB",
		Short:             "Follow a job until it ends; Ctrl-C leaves the job as it is",
		Example:           "  fleet-node job watch key:fix-flaky-42 --exit-status\n  fleet-node job watch 7Q -o json",
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
			job, err := watchJob(ctx, c, cl, &o, id, 0)
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

// watchJob writes the job's events after a seq, those that were and those that come, until it has ended.
func watchJob(ctx context.Context, c *cobra.Command, cl *client.Client, o *output, id string, after uint64) (*fleet.Job, error) {
	w := watch{Command: c, client: cl, output: o, id: id, seq: after}
	job, err := w.follow(ctx)
	if ctx.Err() != nil {
		return nil, &statusError{exitInterrupted, errors.New("the job goes on; watch it again with fleet-node job watch " + id)}
	}
	if err == nil && !o.quiet && !o.json() {
		c.PrintErrln("the job is " + state(job))
	}
	return job, err
}

// watch is how far the events of a job are written.
type watch struct {
	*cobra.Command
	client     *client.Client
	output     *output
	id         string
	seq, index uint64
}

// follow learns from the product's feed that something happened, and takes what happened from the job's own events: so
// none is missed or written twice, wherever the feed begins, and those that came with the end are written too.
func (w *watch) follow(ctx context.Context) (*fleet.Job, error) {
	job, err := w.catchUp(ctx)
	if err != nil || job.Stage.Terminal() {
		return job, err
	}
	for e, err := range w.client.Events(ctx, w.index) {
		var gap *client.Gap
		switch {
		case err != nil && !errors.As(err, &gap):
			return nil, err
		case err == nil && (e.JobID != w.id || e.Seq <= w.seq):
			continue
		}
		if job, err := w.catchUp(ctx); err != nil || job.Stage.Terminal() {
			return job, err
		}
	}
	return nil, ctx.Err()
}

// catchUp writes what happened since. The job is read first: all events up to its end are there when it has ended.
func (w *watch) catchUp(ctx context.Context) (*fleet.Job, error) {
	job, err := w.client.Job(ctx, w.id)
	if err != nil {
		return nil, err
	}
	return job, pages(w.seq, 0, func(after uint64, limit int) (uint64, int, error) {
		events, err := w.client.JobEvents(ctx, w.id, after, limit)
		if len(events) > 0 {
			w.seq, w.index = lastSeq(events), lastIndex(events)
		}
		return lastSeq(events), len(events), showEvents(w.Command, w.output, events, err)
	})
}
