package chaos

// This file counts what runs came to, for the report.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// counts counts by kind. All methods may be called at once.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func newCounts() *counts { return &counts{n: map[string]int{}} }

func (c *counts) add(kind string) { c.plus(kind, 1) }

func (c *counts) plus(kind string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[kind] += n
}

func (c *counts) merge(o *counts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for kind, n := range o.n {
		c.plus(kind, n)
	}
}

func (c *counts) sum() (sum int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.n {
		sum += n
	}
	return sum
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(c.n)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, c.n[kind]))
	}
	return strings.Join(parts, ", ")
}

// write logs lines, and adds them to the file that FLEET_REPORT names.
func write(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		t.Log(line)
	}
	if err := appendReport(lines...); err != nil {
		t.Error(err)
	}
}

// total is what all runs of this process came to.
var total = struct {
	faults, codes              *counts
	mu                         sync.Mutex // guards what follows
	lasted, longest            time.Duration
	runs, calls, terms, events int
}{faults: newCounts(), codes: newCounts()}

// Report adds the sum of all runs to the file that FLEET_REPORT names.
func Report() error {
	total.mu.Lock()
	defer total.mu.Unlock()
	if total.runs == 0 {
		return nil
	}
	tries, unknown := total.codes.sum(), total.codes.of("outcome_unknown")
	return appendReport(fmt.Sprintf("in all: %d runs of %s, %d faults (%.0f a minute): %s; %d calls, %d events, %d elections; tries %s; outcome_unknown %.2f %% of the tries; longest without a write %s",
		total.runs, total.lasted.Round(time.Second), total.faults.sum(), float64(total.faults.sum())/total.lasted.Minutes(), total.faults,
		total.calls, total.events, total.terms, total.codes, 100*float64(unknown)/float64(max(1, tries)), total.longest.Round(time.Millisecond)))
}

func appendReport(lines ...string) error {
	path := os.Getenv("FLEET_REPORT")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, strings.Join(lines, "\n"))
		err = errors.Join(err, f.Close())
	}
	return err
}

// lacking ends a test that this machine can't run: with an error if FLEET_CHAOS_NEEDS is all, as in CI.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	words := fmt.Sprintf(format, args...)
	if os.Getenv("FLEET_CHAOS_NEEDS") == "all" {
		t.Fatal(words)
	}
	write(t, t.Name()+" is left out: "+words)
	t.SkipNow()
}

// times are durations of one thing, to be summed up.
type times []time.Duration

func (ts times) String() string {
	if len(ts) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(ts))
	return fmt.Sprintf("p50 %s, max %s, n %d", s[len(s)/2].Round(time.Millisecond), s[len(s)-1].Round(time.Millisecond), len(s))
}

func (c *counts) of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[kind]
}
