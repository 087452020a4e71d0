package main

// This file shows what happened to a job, or in a product.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

func newJobEvents() *cobra.Command {
	var n connection
	var o output
	var follow bool
	var after uint64
	var limit int
	c := &cobra.Command{
		Use:               "events [JOB]",
		Short:             "Show what happened to a job, or in the product",
		Example:           "  fleet-node job events key:fix-flaky-42\n  fleet-node job events --follow -o json",
		Args:              takesAtMost("a job"),
		ValidArgsFunction: firstArg(&n, someJobs),
		RunE: func(c *cobra.Command, args []string) error {
			if follow && limit > 0 {
				return usagef("--limit and --follow don't go together; --follow ends with Ctrl-C, or with the job")
			}
			if limit < 0 {
				return usagef("--limit can't be negative")
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			if len(args) == 1 {
				id, err := findJob(ctx, cl, args[0])
				if err != nil {
					return err
				}
				if follow {
					_, err := watchJob(ctx, c, cl, &o, id, after)
					return err
				}
				return pages(after, limit, func(after uint64, limit int) (uint64, int, error) {
					events, err := cl.JobEvents(ctx, id, after, limit)
					return lastSeq(events), len(events), showEvents(c, &o, events, err)
				})
			}
			if follow {
				return followAll(ctx, c, cl, &o, after)
			}
			return pages(after, limit, func(after uint64, limit int) (uint64, int, error) {
				events, err := cl.EventPage(ctx, after, limit)
				return lastIndex(events), len(events), showEvents(c, &o, events, err)
			})
		},
	}
	n.flags(c)
	o.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	c.Flags().Uint64Var(&after, "after", 0, "only what came after this seq (of a job) or index (of the product)")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	return c
}

// followAll writes the product's events after an index, or from now on, until it is interrupted.
func followAll(ctx context.Context, c *cobra.Command, cl *client.Client, o *output, after uint64) error {
	if !c.Flags().Changed("after") {
		after = client.FromNow
	}
	for e, err := range cl.Events(ctx, after) {
		var gap *client.Gap
		if errors.As(err, &gap) {
			c.PrintErrln(gap.Error())
			continue
		}
		if err := showEvents(c, o, []fleet.Event{e}, err); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// pages reads page after page until the limit, or the end.
func pages(after uint64, limit int, read func(after uint64, limit int) (last uint64, n int, err error)) error {
	for {
		size := fleet.MaxPage
		if limit > 0 {
			size = min(size, limit)
		}
		last, n, err := read(after, size)
		if err != nil || n < size || n == limit {
			return err
		}
		if limit > 0 {
			limit -= n
		}
		after = last
	}
}

func lastSeq(events []fleet.Event) uint64 {
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].Seq
}

func lastIndex(events []fleet.Event) uint64 {
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].Index
}

// showEvents writes one event a line.
func showEvents(c *cobra.Command, o *output, events []fleet.Event, err error) error {
	if err != nil {
		return err
	}
	for e := range slices.Values(events) {
		if o.json() {
			if err := o.value(c, e); err != nil {
				return err
			}
			continue
		}
		line := fmt.Sprintf("%d  %s  %s  %-16s %s", e.Index, e.At.Time().Format("15:04:05.000"), e.JobID, e.Type, printable(about(e)))
		if o.quiet {
			line = fmt.Sprint(e.Index)
		}
		if _, err := fmt.Fprintln(c.OutOrStdout(), strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// about is an event's data as name=value, in the order of the names.
func about(e fleet.Event) string {
	var data map[string]json.RawMessage
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		return string(e.Data)
	}
	var parts []string
	for name, value := range data {
		text := string(value)
		var s string
		if json.Unmarshal(value, &s) == nil {
			text = s
		}
		parts = append(parts, name+"="+text)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}
