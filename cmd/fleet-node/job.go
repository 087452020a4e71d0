package main

// This file is what the job commands share: finding a job by its id, a part of it, or its key, and showing it.

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

func newJob() *cobra.Command {
	return group("job", "Submit jobs and follow them", groupJobs,
		newJobSubmit(), newJobList(), newJobGet(), newJobWhy(), newJobEvents(), newJobWatch(), newJobCancel(), newJobRequeue())
}

var wholeID = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// findJob is the id that a word means: an id, the first or last letters of only one, or key: with an idempotency key.
func findJob(ctx context.Context, c *client.Client, word string) (string, error) {
	if word == "" {
		return "", usagef("an empty word is no job; see fleet-node job list")
	}
	if key, ok := strings.CutPrefix(word, "key:"); ok {
		job, err := jobWithKey(ctx, c, key)
		if err != nil {
			return "", err
		}
		if job == nil {
			return "", fleet.Errorf(fleet.NotFound, "no job has the key %q; see fleet-node job list", key)
		}
		return job.ID, nil
	}
	if word = strings.ToUpper(word); wholeID.MatchString(word) {
		return word, nil
	}
	var matches []string
	for j, err := range c.Jobs(ctx, client.JobFilter{Limit: fleet.MaxPage}) {
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(j.ID, word) || strings.HasSuffix(j.ID, word) {
			if matches = append(matches, j.ID); len(matches) == 10 {
				break
			}
		}
	}
	switch {
	case len(matches) == 0:
		return "", fleet.Errorf(fleet.NotFound, "no job's id starts or ends with %q; see fleet-node job list", word)
	case len(matches) > 1:
		return "", usagef("%q means more than one job: %s", word, strings.Join(matches, ", "))
	}
	return matches[0], nil
}

// jobWithKey is the job with an idempotency key, nil if there is none.
func jobWithKey(ctx context.Context, c *client.Client, key string) (*fleet.Job, error) {
	for j, err := range c.Jobs(ctx, client.JobFilter{IdempotencyKey: key}) {
		return j, err
	}
	return nil, nil
}

// title is what a person would call a job: its title, its key, or the first line of its body.
func title(j *fleet.Job) string {
	var manifest struct {
		Title string `json:"title"`
	}
	if err := json.Unmarshal([]byte(j.ManifestSnapshot), &manifest); err == nil && manifest.Title != "" {
		return manifest.Title
	}
	if j.IdempotencyKey != "" {
		return j.IdempotencyKey
	}
	line, _, _ := strings.Cut(strings.TrimLeft(j.BodyMd, "# \r\n"), "\n")
	return line
}

// state is a job's stage with what a person asks next.
func state(j *fleet.Job) string {
	if j.Reason != "" && j.Stage != fleet.Shipped {
		return fmt.Sprintf("%s (%s)", j.Stage, j.Reason)
	}
	return string(j.Stage)
}
