package main

// This file says what this binary is.

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/fsm"
)

// build is what this binary is. API is the surface's version. Level is the newest that it knows, and writes once every node of its
// cluster knows it (docs/operations.md, Upgrading); the formats are those of the files around what has a level.
type build struct {
	Version        string `json:"version"`
	Commit         string `json:"commit"`
	Built          string `json:"built"`
	Go             string `json:"go"`
	API            int    `json:"api"`
	Level          int    `json:"level"`
	LogFormat      int    `json:"logFormat"`
	SnapshotFormat int    `json:"snapshotFormat"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), API: 1, Level: fsm.MaxLevel, LogFormat: 1, SnapshotFormat: 1}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Built = s.Value
			}
		}
	}
	return b
}

func newVersion() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "version",
		Short:   "Say what this binary is",
		Example: "  fleet-node version\n  fleet-node version -o json",
		GroupID: groupOperate,
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			b := thisBuild()
			if o.json() {
				return o.value(c, b)
			}
			out := c.OutOrStdout()
			if _, err := fmt.Fprintln(out, b.Version); err != nil || o.quiet {
				return err
			}
			_, err := fmt.Fprintf(out, "%s %s/%s, commit %s, built %s, API %d, level %d, log format %d, snapshot format %d\n",
				b.Go, runtime.GOOS, runtime.GOARCH, orDash(b.Commit), orDash(b.Built), b.API, b.Level, b.LogFormat, b.SnapshotFormat)
			return err
		},
	}
	o.flags(c)
	return c
}
