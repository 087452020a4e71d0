package main

// This file is a factory that runs a command per job (docs/work.md).

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/worker"
)

type work struct {
	connection
	cfg       worker.Config
	passToken bool
	stdin     string
	drain     string
	logLevel  string
}

func newWork() *cobra.Command {
	var w work
	c := &cobra.Command{
		Use:   "work [flags] -- COMMAND [ARGS…]",
		Short: "Be a factory: claim jobs and run a command for each",
		Long: "work claims jobs, keeps their leases and runs the command for each. The command finds the job in its environment and in\n" +
			"files, says what came of it by its exit status and a result file, and is stopped when the job is not its own any more.",
		Example: "  fleet-node work --capabilities shell -- sh -c 'sh -eu \"$FLEET_BODY_FILE\"'\n  fleet-node work --once --capabilities go -- ./run.sh",
		GroupID: groupFactories,
		Args: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); at > 0 || at < 0 && len(args) > 0 {
				return usagef("put -- before the command: fleet-node work [flags] -- %s", strings.Join(args, " "))
			}
			if len(args) == 0 {
				return usagef("fleet-node work needs a command: fleet-node work [flags] -- ./run.sh")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return w.run(c.Context(), args) },
	}
	w.connection.flags(c)
	f := c.Flags()
	f.StringVar(&w.cfg.FactoryID, "factory-id", "", "id of the factory; %h is this host's name (host-%h)")
	f.StringSliceVar(&w.cfg.Capabilities, "capabilities", nil, "what it can do, with commas")
	f.StringSliceVar(&w.cfg.Engines, "engines", nil, "engines that it has, with commas")
	f.IntVar(&w.cfg.Seats, "seats", 1, "jobs at once")
	f.DurationVar(&w.cfg.Lease, "lease", time.Minute, "how long a lease is kept without a word, 1s to 24h")
	f.DurationVar(&w.cfg.Grace, "grace", 30*time.Second, "between SIGTERM and SIGKILL of a command")
	f.StringVar(&w.drain, "drain", "wait", "what the first SIGTERM does with running jobs: wait for them, or release them")
	f.StringVar(&w.cfg.Cwd, "cwd", "", "where commands start (here)")
	f.BoolVar(&w.cfg.Once, "once", false, "one job and no more; exit 3 if there is none")
	f.DurationVar(&w.cfg.IdleExit, "idle-exit", 0, "exit 0 after so long without a job (0: never)")
	f.StringVar(&w.cfg.Hooks, "hooks", "", "directory of the executables pre-job and post-job")
	f.BoolVar(&w.cfg.Keep, "keep", false, "keep each run's directory of files")
	f.BoolVar(&w.passToken, "pass-token", false, "give commands FLEET_TOKEN")
	f.StringVar(&w.stdin, "stdin", "", `"body": the job's body is the command's standard input`)
	f.StringVar(&w.cfg.LogURITemplate, "log-uri-template", "", "where a run's log can be found later, with {jobId} {runId} {factoryId} {file}")
	f.StringVar(&w.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	return c
}

func (w *work) run(ctx context.Context, command []string) error {
	if err := w.check(); err != nil {
		return err
	}
	cl, err := w.client()
	if err != nil {
		return err
	}
	w.cfg.Client, w.cfg.Command = cl, command
	if w.passToken {
		w.cfg.PassToken = w.token
	}
	w.cfg.Output = os.Stdout
	w.cfg.Log = hclog.New(&hclog.LoggerOptions{
		Name: "work", Level: hclog.LevelFromString(w.logLevel), Output: os.Stderr,
		TimeFormat: "15:04:05.000",
	})
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	w.cfg.Signals = signals
	err = worker.Run(ctx, w.cfg)
	if errors.Is(err, worker.ErrNothing) {
		return &statusError{exitNothing, errors.New("nothing to claim")}
	}
	return err
}

// check refuses what the cluster would refuse later.
func (w *work) check() error {
	host, _ := os.Hostname()
	if w.cfg.FactoryID == "" {
		w.cfg.FactoryID = "host-%h"
	}
	w.cfg.FactoryID = strings.ReplaceAll(w.cfg.FactoryID, "%h", host)
	if w.cfg.Seats < 1 || w.cfg.Seats > fleet.MaxSeats {
		return usagef("--seats must be at least 1, and %d at most", fleet.MaxSeats)
	}
	for flag, words := range map[string][]string{"capabilities": w.cfg.Capabilities, "engines": w.cfg.Engines} {
		for _, word := range words {
			if wrong := fleet.ValidateName("--"+flag, word); len(wrong) > 0 {
				return usagef("--%s: %q %s", flag, word, wrong[0].Detail)
			}
		}
	}
	if w.cfg.IdleExit < 0 || w.cfg.Grace < 0 {
		return usagef("--idle-exit and --grace can't be negative")
	}
	if w.cfg.Lease < time.Second || w.cfg.Lease > 24*time.Hour || w.cfg.Lease%time.Second != 0 {
		return usagef("--lease %v: it is whole seconds from 1s to 24h", w.cfg.Lease)
	}
	if w.cfg.Grace == 0 {
		w.cfg.Grace = -1 // no time at all; zero would be the default
	}
	if w.stdin != "" && w.stdin != "body" {
		return usagef(`--stdin is "body", not %q`, w.stdin)
	}
	w.cfg.StdinBody = w.stdin == "body"
	if w.cfg.Drain = worker.Drain(w.drain); w.cfg.Drain != worker.DrainWait && w.cfg.Drain != worker.DrainRelease {
		return usagef("--drain is wait or release, not %q", w.drain)
	}
	if !slices.Contains(logLevels, w.logLevel) {
		return usagef("--log-level is one of %s", strings.Join(logLevels, ", "))
	}
	for flag, dir := range map[string]string{"cwd": w.cfg.Cwd, "hooks": w.cfg.Hooks} {
		if st, err := os.Stat(dir); dir != "" && (err != nil || !st.IsDir()) {
			return usagef("--%s %s is no directory", flag, dir)
		}
	}
	return nil
}
