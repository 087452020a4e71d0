package main

// This file completes words of the command line with what is in the cluster: silent when it can't be asked, and quick.

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/rpc/client"
)

// completionWait is how long a shell waits for words.
const completionWait = time.Second

// completes finds the words for an argument; a tab and what explains the word may follow it.
type completes func(ctx context.Context, c *client.Client) ([]string, error)

// live asks the cluster. Words are for the first argument, or for a flag.
func live(n *connection, find completes) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completionWait)
		defer cancel()
		cl, err := n.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		words, err := find(ctx, cl.Patient(-1))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// firstArg completes the first argument alone.
func firstArg(n *connection, find completes) cobra.CompletionFunc {
	ask := live(n, find)
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return ask(c, args, word)
	}
}

// someJobs are the ids of a page of jobs, each with its stage and title.
func someJobs(ctx context.Context, c *client.Client) (words []string, err error) {
	page, err := c.JobPage(ctx, client.JobFilter{})
	if err != nil {
		return nil, err
	}
	for _, j := range page.Jobs {
		words = append(words, j.ID+"\t"+printable(state(j)+": "+title(j)))
	}
	return words, nil
}

func allFactories(ctx context.Context, c *client.Client) (words []string, err error) {
	factories, err := c.Factories(ctx)
	for _, f := range factories {
		words = append(words, f.FactoryID+"\t"+string(f.Health))
	}
	return words, err
}

func allProfiles(ctx context.Context, c *client.Client) (words []string, err error) {
	profiles, err := c.Profiles(ctx)
	for _, p := range profiles {
		words = append(words, p.Name)
	}
	return words, err
}

func allNodes(ctx context.Context, c *client.Client) (words []string, err error) {
	status, err := c.ClusterStatus(ctx, client.Stale())
	if err != nil {
		return nil, err
	}
	for _, n := range status.Nodes {
		words = append(words, n.Name+"\t"+n.State)
	}
	return words, nil
}

func allTokens(ctx context.Context, c *client.Client) (words []string, err error) {
	tokens, err := c.Tokens(ctx)
	for _, t := range tokens {
		words = append(words, t.ID+"\t"+printable(t.Name))
	}
	return words, err
}
