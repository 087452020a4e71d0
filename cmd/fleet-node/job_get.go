package main

// This file shows one job, with why it is where it is.

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/jobfile"
	"github.com/lysnrai/fleet/rpc/client"
)

func newJobGet() *cobra.Command {
	var n connection
	var o output
	var file string
	c := &cobra.Command{
		Use:               "get JOB",
		Short:             "Show a job: by its id, the first or last letters of it, or key:KEY",
		Example:           "  fleet-node job get key:fix-flaky-42\n  fleet-node job get 7Q -o json\n  fleet-node job get 7Q --file fix.md",
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
			job, err := cl.Job(ctx, id)
			if err != nil {
				return err
			}
			if file != "" {
				return writeJob(ctx, c, cl, job, file)
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
	c.Flags().StringVar(&file, "file", "", "write the job as a job file, to edit and submit again; - is stdout")
	return c
}

// writeJob writes the job as it was submitted. A checkpoint that its workers left is not part of that.
func writeJob(ctx context.Context, c *cobra.Command, cl *client.Client, job *fleet.Job, path string) error {
	submitted := job.Submission
	if submitted.Checkpoint != nil {
		err := pages(0, 0, func(after uint64, limit int) (uint64, int, error) {
			events, err := cl.JobEvents(ctx, job.ID, after, limit)
			if slices.ContainsFunc(events, func(e fleet.Event) bool { return e.Type == fleet.EventCheckpointSaved }) {
				submitted.Checkpoint = nil
			}
			return lastSeq(events), len(events), err
		})
		if err != nil {
			return err
		}
	}
	text, err := jobfile.Format(submitted)
	if err != nil {
		return fmt.Errorf("job %s: %w: get it with -o json", job.ID, err)
	}
	if path == "-" {
		_, err := c.OutOrStdout().Write(text)
		return err
	}
	return os.WriteFile(path, text, 0o666)
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
		"labels", labels(j),
		"budget", asJSON(j.Budget),
		"retry", asJSON(j.Retry),
		"checkpoint", asJSON(j.Checkpoint),
		"attempt", strconv.FormatInt(j.Attempt, 10),
		"failures", strconv.FormatInt(j.Failures, 10),
		"lost leases", strconv.FormatInt(j.LeaseLosses, 10),
		"lease epoch", strconv.FormatUint(j.LeaseEpoch, 10),
		"not before", j.NotBefore.String(),
		"created", ago(j.CreatedAt),
		"changed", ago(j.UpdatedAt),
		"finished", ago(j.FinishedAt),
		"result", string(j.Result),
	)
}

func labels(j *fleet.Job) string {
	var words []string
	for _, l := range j.Labels {
		words = append(words, l.Key+":"+l.Value)
	}
	return strings.Join(words, ", ")
}

// asJSON is a part of a job on one line, empty if it has none.
func asJSON[T any](part *T) string {
	if part == nil {
		return ""
	}
	b, err := json.Marshal(part)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
