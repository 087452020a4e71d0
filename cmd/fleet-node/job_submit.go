package main

// This file submits jobs that are written in files.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/jobfile"
	"github.com/lysnrai/fleet/rpc/client"
)

type jobSubmit struct {
	connection
	output
	keyFrom       string
	dryRun, watch bool
	paths         []string // of the file of each job
}

func newJobSubmit() *cobra.Command {
	var s jobSubmit
	c := &cobra.Command{
		Use:   "submit FILE|DIR|-",
		Short: "Submit a job file, a directory of them as one batch, or what stdin says",
		Long: "submit reads Markdown with a head, YAML (*.job.yaml) or JSON. A directory is one batch: all of its *.md, *.job.yaml and\n" +
			"*.json files are submitted, or none. With --key-from path each file's path is its key, so that submitting again changes\n" +
			"nothing, and an edited file replaces its job while that waits.",
		Example: "  fleet-node job submit fix.md --watch\n  fleet-node job submit jobs/ --key-from path --dry-run",
		Args:    takes("a file, a directory, or - for stdin"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return s.run(ctx, c, args[0])
		},
	}
	s.connection.flags(c)
	s.output.flags(c)
	f := c.Flags()
	f.StringVar(&s.keyFrom, "key-from", "", `"path": a file without a key has its path as its key`)
	f.BoolVar(&s.dryRun, "dry-run", false, "check all files and say what would happen")
	f.BoolVar(&s.watch, "watch", false, "follow the job until it ends")
	return c
}

func (s *jobSubmit) run(ctx context.Context, c *cobra.Command, path string) error {
	if s.keyFrom != "" && s.keyFrom != "path" {
		return usagef(`--key-from is "path", not %q`, s.keyFrom)
	}
	if s.keyFrom != "" && path == "-" {
		return usagef("--key-from path needs a file or a directory: stdin has no path; write key: in its head")
	}
	jobs, err := s.read(c.InOrStdin(), path)
	if err != nil {
		return err
	}
	if s.watch && s.dryRun {
		return usagef("--watch and --dry-run don't go together: nothing is submitted that could be watched")
	}
	if s.watch && len(jobs) != 1 {
		return usagef("--watch follows one job, and these are %d", len(jobs))
	}
	if problems := fleet.ValidateBatch(jobs); len(problems) > 0 {
		return fmt.Errorf("%s: %s", problems[0].Field, problems[0].Detail)
	}
	cl, err := s.client()
	if err != nil {
		return err
	}
	if s.dryRun {
		return s.foresee(ctx, c, cl, jobs)
	}
	results, err := submit(ctx, cl, jobs)
	if err != nil {
		return s.inFile(err)
	}
	if err := s.show(c, results); err != nil || !s.watch {
		return err
	}
	_, err = watchJob(ctx, c, cl, &s.output, results[0].Job.ID, 0)
	return err
}

// submit sends one job by itself, more as one batch.
func submit(ctx context.Context, cl *client.Client, jobs []fleet.Submission) ([]fleet.SubmitResult, error) {
	if len(jobs) == 1 {
		r, err := cl.Submit(ctx, jobs[0])
		if err != nil {
			return nil, err
		}
		return []fleet.SubmitResult{*r}, nil
	}
	return cl.SubmitBatch(ctx, jobs)
}

var jobIndex = regexp.MustCompile(`^(?:jobs\[(\d+)\]\.)?`)

// inFile says in which file is what the cluster refused, if that is one of several.
func (s *jobSubmit) inFile(err error) error {
	var refused *fleet.Error
	if len(s.paths) < 2 || !errors.As(err, &refused) {
		return err
	}
	at := jobIndex.FindStringSubmatch(refused.Detail)
	i, numberErr := strconv.Atoi(at[1])
	if numberErr != nil || i >= len(s.paths) {
		return err
	}
	located := *refused
	located.Detail = s.paths[i] + ": " + refused.Detail[len(at[0]):]
	return &located
}

func (s *jobSubmit) show(c *cobra.Command, results []fleet.SubmitResult) error {
	if s.json() {
		return s.value(c, fleet.SubmitResults{Results: results})
	}
	counts := map[fleet.SubmitOutcome]int{}
	var rows [][]string
	for _, r := range results {
		counts[r.Outcome]++
		rows = append(rows, []string{r.Job.ID, word(r.Outcome), string(r.Job.Stage), title(r.Job)})
		if s.quiet {
			if err := s.ids(c, r.Job.ID); err != nil {
				return err
			}
		}
	}
	if s.quiet {
		return nil
	}
	if err := s.table(c, "jobs", []string{"ID", "OUTCOME", "STAGE", "TITLE"}, rows); err != nil || len(results) == 1 {
		return err
	}
	c.PrintErrln(summary(counts))
	return nil
}

// word is an outcome as people say it.
func word(o fleet.SubmitOutcome) string {
	if o == fleet.Existing {
		return "unchanged"
	}
	return string(o)
}

// summary counts outcomes: 1 superseded, 11 unchanged.
func summary(counts map[fleet.SubmitOutcome]int) string {
	var parts []string
	for _, o := range []fleet.SubmitOutcome{fleet.Created, fleet.Superseded, fleet.Existing} {
		if counts[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[o], word(o)))
		}
	}
	return strings.Join(parts, ", ")
}

// foresee says what a submit would do, from what is there now.
func (s *jobSubmit) foresee(ctx context.Context, c *cobra.Command, cl *client.Client, jobs []fleet.Submission) error {
	type foreseen struct {
		Outcome fleet.SubmitOutcome `json:"outcome"`
		Job     fleet.Submission    `json:"job"`
	}
	results := []foreseen{}
	counts := map[fleet.SubmitOutcome]int{}
	var rows [][]string
	for _, job := range jobs {
		job.Normalize()
		outcome := fleet.Created
		if job.IdempotencyKey != "" {
			there, err := jobWithKey(ctx, cl, job.IdempotencyKey)
			if err == nil && there != nil {
				outcome, err = against(there, job)
			}
			if err != nil {
				return err
			}
		}
		counts[outcome]++
		results = append(results, foreseen{outcome, job})
		rows = append(rows, []string{word(outcome), title(&fleet.Job{Submission: job})})
	}
	switch {
	case s.json():
		return s.value(c, struct {
			Results []foreseen `json:"results"`
		}{results})
	case !s.quiet:
		if err := s.table(c, "jobs", []string{"WOULD BE", "TITLE"}, rows); err != nil {
			return err
		}
	}
	c.PrintErrln("nothing was submitted: " + summary(counts))
	return nil
}

// against compares a submission with the job that has its key. What workers saved as a checkpoint is not compared.
func against(job *fleet.Job, s fleet.Submission) (fleet.SubmitOutcome, error) {
	was := job.Submission
	was.Normalize()
	if s.Checkpoint == nil {
		was.Checkpoint = nil
	}
	a, errA := json.Marshal(was)
	b, errB := json.Marshal(s)
	switch {
	case errors.Join(errA, errB) == nil && bytes.Equal(a, b):
		return fleet.Existing, nil
	case job.Stage == fleet.Queued || job.Stage == fleet.Blocked:
		return fleet.Superseded, nil
	}
	return "", fleet.Errorf(fleet.IdempotencyConflict, "job %s has the key %q, is %s and has other content: give the new content another key", job.ID, s.IdempotencyKey, job.Stage)
}

// read gives the jobs of a file, a directory or stdin. Its error has all that is wrong with all files.
func (s *jobSubmit) read(stdin io.Reader, path string) ([]fleet.Submission, error) {
	paths, root := []string{path}, filepath.Dir(path)
	switch st, err := os.Stat(path); {
	case path == "-":
		src, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("reading stdin: %w", err)
		}
		return s.collect([]string{stdinName}, "", func(string) ([]byte, error) { return src, nil })
	case err != nil:
		return nil, err
	case st.IsDir():
		if paths, err = jobFiles(path); err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("%s has no job files: *.md, *.job.yaml or *.json", path)
		}
		root = path
	}
	return s.collect(paths, root, os.ReadFile)
}

func (s *jobSubmit) collect(paths []string, root string, read func(string) ([]byte, error)) ([]fleet.Submission, error) {
	var jobs []fleet.Submission
	var problems jobfile.Problems
	for _, path := range paths {
		src, err := read(path)
		if err != nil {
			return nil, err
		}
		found, err := parseFile(path, src)
		var here jobfile.Problems
		if errors.As(err, &here) {
			problems = append(problems, here...)
			continue
		}
		if s.keyFrom == "path" && len(found) == 1 && found[0].IdempotencyKey == "" {
			relative, err := filepath.Rel(root, path)
			if err != nil {
				relative = path
			}
			found[0].IdempotencyKey = filepath.ToSlash(relative)
		}
		jobs = append(jobs, found...)
		for range found {
			s.paths = append(s.paths, path)
		}
	}
	if len(problems) > 0 {
		return nil, plainError{problems}
	}
	return jobs, nil
}

// stdinName is what stdin is called in problems.
const stdinName = "stdin"

// parseFile reads one file: JSON, by its name or on stdin by its first letter, is a job, a list of jobs, or {"jobs": […]}; all else is a job file.
func parseFile(path string, src []byte) ([]fleet.Submission, error) {
	text := bytes.TrimSpace(src)
	isJSON := strings.HasSuffix(path, ".json") || path == stdinName && len(text) > 0 && (text[0] == '{' || text[0] == '[')
	if !isJSON {
		job, err := jobfile.Parse(path, src)
		return []fleet.Submission{job}, err
	}
	return jobfile.ParseJSON(path, src)
}

// jobFiles are the job files below a directory, in the order of their paths.
func jobFiles(dir string) (paths []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); path != dir && strings.HasPrefix(name, ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() && (strings.HasSuffix(path, ".md") || strings.HasSuffix(path, ".json") || jobfile.IsYAML(path)) {
			paths = append(paths, path)
		}
		return nil
	})
	slices.Sort(paths)
	return paths, err
}
