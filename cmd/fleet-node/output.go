package main

// This file writes results: plain columns for people and awk, the API's JSON for programs, ids alone for shells.

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/nearest"
)

// output is how a command writes its result.
type output struct {
	format format
	quiet  bool
}

// format is the value of --output.
type format string

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "table|json" }

func (f *format) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("it is table or json, not %q%s", s, nearest.Hint(s, []string{"table", "json"}))
	}
	*f = format(s)
	return nil
}

func (o *output) flags(c *cobra.Command) {
	o.format = "table"
	c.Flags().VarP(&o.format, "output", "o", "how to write the result")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "write ids alone")
}

func (o *output) json() bool { return o.format == "json" }

// value writes one JSON value on a line.
func (o *output) value(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// done says that something was done whose answer has no body: by the id of what it was done to, or an empty object.
func (o *output) done(c *cobra.Command, ids ...string) error {
	switch {
	case o.quiet:
		return o.ids(c, ids...)
	case o.json():
		return o.value(c, struct{}{})
	}
	return nil
}

// ids writes one id a line.
func (o *output) ids(c *cobra.Command, ids ...string) error {
	for _, id := range ids {
		if _, err := fmt.Fprintln(c.OutOrStdout(), id); err != nil {
			return err
		}
	}
	return nil
}

// table writes rows below a header, in columns; without rows it says so on stderr.
func (o *output) table(c *cobra.Command, what string, header []string, rows [][]string) error {
	if len(rows) == 0 {
		c.PrintErrln("no " + what)
		return nil
	}
	return columns(c.OutOrStdout(), append([][]string{header}, rows...))
}

// columns aligns rows. Text is made printable: a job's words can't move the cursor.
func columns(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = orDash(printable(row[i]))
		}
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// fields writes names with their values, those that have one.
func fields(w io.Writer, pairs ...string) error {
	var rows [][]string
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			rows = append(rows, []string{pairs[i], pairs[i+1]})
		}
	}
	return columns(w, rows)
}

// printable replaces what would not stay on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago is how long something is past, roughly: 3m ago.
func ago(t fleet.Time) string {
	if t == 0 {
		return ""
	}
	return rough(time.Since(t.Time())) + " ago"
}

// rough is a duration in its largest unit.
func rough(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
