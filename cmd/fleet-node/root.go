package main

// This file is the tree of commands, and what is said to somebody who mistyped one.

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lysnrai/fleet/internal/nearest"
)

const (
	groupCluster   = "cluster"
	groupJobs      = "jobs"
	groupFactories = "factories"
	groupOperate   = "operate"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "fleet-node",
		Short: "A replicated coordinator for fleets of AI coding agents",
		Long: "fleet-node coordinates fleets of AI coding agents: jobs are submitted, claimed by factories under fenced leases,\n" +
			"and survive the loss of a node. This one file is the node, the factory and the client.",
		Example:       "  fleet-node dev\n  fleet-node job submit fix.md --watch",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          runGroup,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: groupCluster, Title: "Run a cluster:"},
		&cobra.Group{ID: groupJobs, Title: "Jobs:"},
		&cobra.Group{ID: groupFactories, Title: "Factories:"},
		&cobra.Group{ID: groupOperate, Title: "Operate:"},
	)
	root.AddCommand(
		newAgent(), newDev(),
		newJob(),
		newWork(), newFactory(), newProfile(),
		newCluster(), newSnapshot(), newRecover(), newToken(), newBench(), newVersion(),
		newEnvironmentHelp(), newExitCodesHelp(),
	)
	root.SetFlagErrorFunc(flagError)
	return root
}

// group is a command that only has subcommands.
func group(use, short, groupID string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, GroupID: groupID, Args: cobra.ArbitraryArgs, RunE: runGroup}
	c.AddCommand(children...)
	return c
}

// runGroup shows the subcommands, or refuses one that does not exist.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, child := range c.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	hint := nearest.Hint(args[0], names)
	if hint == "" {
		hint = "; there are " + strings.Join(names, ", ")
	}
	return usagef("%s has no subcommand %q%s", c.CommandPath(), args[0], hint)
}

// flagError turns what pflag says into a refusal with the nearest flag.
func flagError(c *cobra.Command, err error) error {
	word, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return usagef("%v; see %s --help", err, c.CommandPath())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := nearest.Word(word, names); near != "" {
		return usagef("unknown flag --%s (did you mean --%s?)", word, near)
	}
	return usagef("unknown flag --%s; see %s --help", word, c.CommandPath())
}

// takesAtMost refuses more than one argument.
func takesAtMost(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return takes(name)(c, args)
	}
}

// takes refuses any other number of arguments, naming what is wanted.
func takes(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s needs %s", c.CommandPath(), strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return usagef("%s does not take %q; see %s --help", c.CommandPath(), args[len(names)], c.CommandPath())
		}
		return nil
	}
}
