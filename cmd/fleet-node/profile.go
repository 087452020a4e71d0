package main

// This file keeps profiles: named set-ups that a claim hands to the worker.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
)

func newProfile() *cobra.Command {
	return group("profile", "Keep set-ups that claims hand to workers", groupFactories, newProfilePut(), newProfileGet(), newProfileList())
}

func newProfilePut() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "put NAME FILE|-",
		Short:   "Store a JSON object as the next version of a profile",
		Example: "  echo '{\"model\":\"large\"}' | fleet-node profile put coder -\n  fleet-node profile put coder profile.json -o json",
		Args:    takes("a name", "a file"),
		RunE: func(c *cobra.Command, args []string) error {
			snapshot, err := readObject(c.InOrStdin(), args[1])
			if err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			p, err := cl.PutProfile(ctx, fleet.ProfileRequest{Name: args[0], Snapshot: snapshot})
			if err != nil {
				return err
			}
			return showProfile(c, &o, p.Profile)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

// readObject reads one JSON object from a file or stdin.
func readObject(stdin io.Reader, path string) (object fleet.JSON, err error) {
	var src []byte
	if path == "-" {
		src, err = io.ReadAll(stdin)
	} else {
		src, err = os.ReadFile(path)
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(src, &object); err != nil {
		return "", fmt.Errorf("%s is no JSON: %w", path, err)
	}
	if !object.IsObject() {
		return "", fmt.Errorf("%s is no JSON object", path)
	}
	return object, nil
}

func newProfileGet() *cobra.Command {
	var n connection
	var o output
	var number int64
	c := &cobra.Command{
		Use:               "get NAME",
		Short:             "Show a profile, the latest version or another",
		Example:           "  fleet-node profile get coder\n  fleet-node profile get coder --version 3 -o json",
		Args:              takes("a name"),
		ValidArgsFunction: firstArg(&n, allProfiles),
		RunE: func(c *cobra.Command, args []string) error {
			if number < 0 {
				return usagef("--version can't be negative")
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			p, err := cl.Profile(ctx, args[0], number)
			if err != nil {
				return err
			}
			return showProfile(c, &o, p)
		},
	}
	n.flags(c)
	o.flags(c)
	c.Flags().Int64Var(&number, "version", 0, "this version (0: the latest)")
	return c
}

func newProfileList() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles, each with its latest version",
		Example: "  fleet-node profile list\n  fleet-node profile list -o json",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			profiles, err := cl.Profiles(ctx)
			if err != nil {
				return err
			}
			if o.json() {
				return o.value(c, struct {
					Profiles []*fleet.Profile `json:"profiles"`
				}{profiles})
			}
			var names []string
			var rows [][]string
			for _, p := range profiles {
				names = append(names, p.Name)
				rows = append(rows, []string{p.Name, strconv.FormatInt(p.Version, 10), string(p.Snapshot)})
			}
			if o.quiet {
				return o.ids(c, names...)
			}
			return o.table(c, "profiles", []string{"NAME", "VERSION", "SNAPSHOT"}, rows)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

func showProfile(c *cobra.Command, o *output, p *fleet.Profile) error {
	switch {
	case o.json():
		return o.value(c, p)
	case o.quiet:
		return o.ids(c, fmt.Sprintf("%s@%d", p.Name, p.Version))
	}
	return fields(c.OutOrStdout(), "name", p.Name, "version", strconv.FormatInt(p.Version, 10), "snapshot", string(p.Snapshot))
}
