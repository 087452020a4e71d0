package main

// This file makes a new cluster of what one node has, after the majority of its cluster was lost for ever. It is offline.

import (
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

func newRecover() *cobra.Command {
	var o output
	var dataDir string
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "recover",
		Short: "Make a new cluster of one survivor's data directory, when a majority is lost for ever",
		Long: "recover turns the data directory of a stopped node into that of a new cluster with this node alone. It is for the day on\n" +
			"which a majority of the voters is lost for ever: what only they had is lost, too. Every held lease ends, no epoch of\n" +
			"before is valid any more, and a lost node that turns up is refused until its data directory is wiped.\n\n" +
			"With several survivors look at each with --dry-run, and recover the one with the highest term, then index. Wipe the\n" +
			"others; start this one as before, then the others, which join it.",
		Example: "  fleet-node recover --data-dir n1.fleet-data --dry-run\n  fleet-node recover --data-dir n1.fleet-data --yes",
		GroupID: groupOperate,
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			if dataDir == "" {
				return usagef("say which node's with --data-dir")
			}
			what := "make a new cluster of " + dataDir
			if !dryRun {
				if err := askable(c, yes, what); err != nil {
					return err
				}
			}
			s, err := cluster.OpenSurvivor(dataDir, hclog.NewNullLogger())
			if err != nil {
				return err
			}
			defer s.Close()
			facts := survey(s)
			if dryRun {
				return facts.show(c, &o)
			}
			if !yes {
				if err := facts.show(c, &output{format: o.format}); err != nil {
					return err
				}
			}
			if err := confirm(c, yes, what); err != nil {
				return err
			}
			r, err := s.Recover()
			if err != nil {
				return err
			}
			return showRecovered(c, &o, r)
		},
	}
	o.flags(c)
	yesFlag(c, &yes)
	c.Flags().StringVar(&dataDir, "data-dir", "", "the data directory of the node, which is stopped")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what there is to recover, and change nothing")
	return c
}

// survivorFacts are what there is to recover.
type survivorFacts struct {
	Name      string           `json:"name"`
	ClusterID string           `json:"clusterId"`
	Members   []string         `json:"members"`
	Voter     bool             `json:"voter"`
	Term      uint64           `json:"term"`
	Index     uint64           `json:"index"`
	At        fleet.Time       `json:"at"`
	Stages    map[string]int64 `json:"stages"`
	Leases    int64            `json:"heldLeases"`
}

func survey(s *cluster.Survivor) *survivorFacts {
	f := &survivorFacts{Name: s.Name, ClusterID: s.ClusterID, Members: s.Members, Voter: s.Voter, Term: s.LastTerm, Index: s.LastIndex, Stages: map[string]int64{}}
	s.View(func(v fsm.View) {
		f.At = v.Now()
		totals := v.Totals(f.At)
		f.Leases = totals.LeasesHeld
		for i, n := range totals.Jobs {
			if n > 0 {
				f.Stages[string(fleet.Stages[i])] = n
			}
		}
	})
	return f
}

func (f *survivorFacts) show(c *cobra.Command, o *output) error {
	switch {
	case o.json():
		return o.value(c, f)
	case o.quiet:
		return o.ids(c, f.Name)
	}
	pairs := []string{
		"node", f.Name, "cluster", f.ClusterID, "members", strings.Join(f.Members, ","), "voter", strconv.FormatBool(f.Voter),
		"term", strconv.FormatUint(f.Term, 10), "index", strconv.FormatUint(f.Index, 10), "at", f.At.String(),
		"leases that end", strconv.FormatInt(f.Leases, 10),
	}
	for _, stage := range fleet.Stages {
		if n := f.Stages[string(stage)]; n > 0 {
			pairs = append(pairs, string(stage), strconv.FormatInt(n, 10))
		}
	}
	return fields(c.OutOrStdout(), pairs...)
}

func showRecovered(c *cobra.Command, o *output, r *cluster.Recovery) error {
	switch {
	case o.json():
		return o.value(c, struct {
			ClusterID  string `json:"clusterId"`
			Generation uint64 `json:"generation"`
			Kept       string `json:"kept"`
		}{r.ClusterID, r.Generation, r.Kept})
	case o.quiet:
		return o.ids(c, r.ClusterID)
	}
	if err := fields(c.OutOrStdout(), "cluster", r.ClusterID, "generation", strconv.FormatUint(r.Generation, 10), "kept", r.Kept); err != nil {
		return err
	}
	c.PrintErrln("start this node as before, then the others with empty data directories; remove what was kept when all is well")
	return nil
}
