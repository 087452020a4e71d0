// Fleet-node is all of fleet in one file: a node of the cluster (agent), a cluster to try (dev), a factory (work), and
// the client of its API (job, factory, profile, cluster, token).
package main

// This file is where the process starts and ends.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(run())
}

// run gives the exit status. An error is one line (a job file's one per problem) that says what to do.
func run() int {
	root := newRoot()
	c, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		if !errors.As(err, new(plainError)) {
			text = root.Name() + ": " + strings.ReplaceAll(strings.TrimSpace(text), "\n", " ") + whatNext(c, err)
		}
		fmt.Fprintln(os.Stderr, text)
	}
	return statusOf(err)
}

// interruptible ends with the first SIGINT; the second one ends the process as it always does.
func interruptible(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	go func() {
		defer signal.Stop(signals)
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
