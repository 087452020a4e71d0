package main

// This file is what operators do with the cluster itself.

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

func newCluster() *cobra.Command {
	return group("cluster", "See the cluster and change its membership", groupOperate, newClusterStatus(), newClusterRemove(), newClusterTransfer())
}

func newClusterStatus() *cobra.Command {
	var n connection
	var o output
	var stale bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show every node",
		Example: "  fleet-node cluster status\n  fleet-node cluster status --stale -o json",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			var options []client.ReadOption
			if stale {
				options = append(options, client.Stale())
			}
			status, err := cl.ClusterStatus(ctx, options...)
			if err != nil {
				return err
			}
			return showStatus(c, &o, status)
		},
	}
	n.flags(c)
	o.flags(c)
	c.Flags().BoolVar(&stale, "stale", false, "as the node that answers sees it, which works without a leader")
	return c
}

func showStatus(c *cobra.Command, o *output, s *fleet.ClusterStatus) error {
	if o.json() {
		return o.value(c, s)
	}
	var names []string
	var rows [][]string
	voters, alive := 0, 0
	var silent []string
	nodes := slices.SortedStableFunc(slices.Values(s.Nodes), func(a, b fleet.NodeStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		names = append(names, cmp.Or(n.Name, n.ID)) // a new one is known by its id until it has said its name
		if n.Voter {
			voters++
			if n.Healthy {
				alive++
			} else {
				silent = append(silent, n.Name)
			}
		}
		lag := ""
		if n.Healthy {
			lag = strconv.FormatUint(s.Index-min(s.Index, n.AppliedIndex), 10)
		}
		rows = append(rows, []string{
			n.Name, n.ID, n.State, strconv.FormatBool(n.Voter), strconv.FormatUint(s.Term, 10),
			strconv.FormatUint(n.AppliedIndex, 10), lag, n.Version, n.HTTPAddr, fmt.Sprintf("%+.3fs", n.ClockOffsetSeconds),
		})
	}
	if o.quiet {
		return o.ids(c, names...)
	}
	header := []string{"NODE", "ID", "ROLE", "VOTER", "TERM", "LAST INDEX", "LAG", "VERSION", "ADDRESS", "CLOCK"}
	if err := o.table(c, "nodes", header, rows); err != nil {
		return err
	}
	if s.Leader == "" {
		text := fmt.Sprintf("no leader: quorum is %d of %d, %d alive", voters/2+1, voters, alive)
		if len(silent) > 0 {
			text += "; start " + strings.Join(silent, " or ")
		}
		c.PrintErrln(text)
	}
	return nil
}

func newClusterRemove() *cobra.Command {
	var n connection
	var o output
	var yes bool
	c := &cobra.Command{
		Use:               "remove NODE",
		Short:             "Take a node out of the cluster for good; it stops, and its data directory is of no use any more",
		Example:           "  fleet-node cluster remove node-3\n  fleet-node cluster remove node-3 --yes",
		Args:              takes("a node"),
		ValidArgsFunction: firstArg(&n, allNodes),
		RunE: func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "remove "+args[0]+" from the cluster"); err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			if err := cl.RemoveServer(ctx, args[0]); err != nil {
				return err
			}
			return o.done(c, args[0])
		},
	}
	n.flags(c)
	o.flags(c)
	yesFlag(c, &yes)
	return c
}

func newClusterTransfer() *cobra.Command {
	var n connection
	var o output
	var yes bool
	c := &cobra.Command{
		Use:               "transfer [NODE]",
		Short:             "Hand leadership over, to a node or to whichever is ready",
		Example:           "  fleet-node cluster transfer --yes\n  fleet-node cluster transfer node-2 --yes",
		Args:              takesAtMost("a node"),
		ValidArgsFunction: firstArg(&n, allNodes),
		RunE: func(c *cobra.Command, args []string) error {
			to, what := "", "hand leadership over"
			if len(args) == 1 {
				to, what = args[0], "hand leadership to "+args[0]
			}
			if err := confirm(c, yes, what); err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			if err := cl.TransferLeader(ctx, to); err != nil {
				return err
			}
			return o.done(c, args...)
		},
	}
	n.flags(c)
	o.flags(c)
	yesFlag(c, &yes)
	return c
}
