package main

// This file shows the factories.

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
)

func newFactory() *cobra.Command {
	return group("factory", "See the factories", groupFactories, newFactoryList())
}

func newFactoryList() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the factories, with their seats and when they were last heard",
		Example: "  fleet-node factory list\n  fleet-node factory list -o json",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			factories, err := cl.Factories(ctx)
			if err != nil {
				return err
			}
			return showFactories(c, &o, factories)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

func showFactories(c *cobra.Command, o *output, factories []*fleet.Factory) error {
	if o.json() {
		return o.value(c, struct {
			Factories []*fleet.Factory `json:"factories"`
		}{factories})
	}
	var ids []string
	var rows [][]string
	for _, f := range factories {
		ids = append(ids, f.FactoryID)
		rows = append(rows, []string{
			f.FactoryID, string(f.Health), fmt.Sprintf("%d/%d", f.ActiveLeases, f.SeatLimit),
			strings.Join(f.Capabilities, ","), strings.Join(f.Engines, ","), ago(f.LastHeartbeatAt),
		})
	}
	if o.quiet {
		return o.ids(c, ids...)
	}
	return o.table(c, "factories", []string{"FACTORY", "HEALTH", "SEATS", "CAPABILITIES", "ENGINES", "SEEN"}, rows)
}
