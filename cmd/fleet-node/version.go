package main

// This file says what this binary is.

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/fsm"
)

// build is what this binary is. API is the surface's version, the formats are the newest level that it knows: it writes them once every
// node of its cluster knows them (docs/operations.md, Upgrading).
type build struct {
	Version        string `json:"version"`
	Commit         string `json:"commit"`
	Built          string `json:"built"`
	Go             string `json:"go"`
	API            int    `json:"api"`
	LogFormat      int    `json:"logFormat"`
	SnapshotFormat int    `json:"snapshotFormat"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), API: 1, LogFormat: fsm.MaxLevel, SnapshotFormat: fsm.MaxLevel}
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
			_, err := fmt.Fprintf(out, "%s %s/%s, commit %s, built %s, API %d, log format %d, snapshot format %d\n",
				b.Go, runtime.GOOS, runtime.GOARCH, orDash(b.Commit), orDash(b.Built), b.API, b.LogFormat, b.SnapshotFormat)
			return err
		},
	}
	o.flags(c)
	return c
}
