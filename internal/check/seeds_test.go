package check_test

// This file plays a test for many seeds: each in a process of its own, on one core, which takes two thirds of the time that several
// cores take for one bubble of virtual time, and a crash names its seed. All of them come to a tally.

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A run makes much garbage and keeps little: collecting it seldom is a fifth of the time, as long as there is room for it.
func TestMain(m *testing.M) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(1000)
		debug.SetMemoryLimit(1 << 30)
	}
	os.Exit(m.Run())
}

// usualHours is how many virtual hours TestClusterKeepsItsPromisesUnderFaults takes unless FLEET_HOURS says otherwise; the other
// tests from seeds grow and shrink with it.
const usualHours = 50

// tally is what the runs of a test came to.
type tally struct {
	mu sync.Mutex // guards what follows
	figures
}

type figures struct {
	Lasted                      time.Duration // virtual
	Calls, Unknown, Nothing     int
	Entries                     uint64
	Faults                      map[string]int
	Playing, Replaying, Judging time.Duration // real, as is
	Processor                   time.Duration // of all cores
}

func newTally() *tally { return &tally{figures: figures{Faults: map[string]int{}}} }

func (total *tally) add(f figures) {
	total.mu.Lock()
	defer total.mu.Unlock()
	total.Lasted += f.Lasted
	total.Calls += f.Calls
	total.Unknown += f.Unknown
	total.Nothing += f.Nothing
	total.Entries += f.Entries
	for kind, n := range f.Faults {
		total.Faults[kind] += n
	}
	total.Playing += f.Playing
	total.Replaying += f.Replaying
	total.Judging += f.Judging
	total.Processor += f.Processor
}

// number is what an environment variable says; false if it says nothing.
func number(t *testing.T, name string) (uint64, bool) {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v, true
}

// forSeeds plays a test for as many seeds as are due, of which n belong to usualHours, as many at once as there are cores; or, in this
// process, for the one that FLEET_SEED names. A failure is named by the seed that draws the same faults and calls again. In which order
// goroutines run within an instant is the scheduler's to say, so a failure may need some tries:
// FLEET_SEED=7 go test -run TestCluster -count 10 ./internal/check
func forSeeds(t *testing.T, n uint64, test func(t *testing.T, seed uint64, total *tally)) {
	total := newTally()
	if seed, ok := number(t, "FLEET_SEED"); ok {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		t.Run(fmt.Sprintf("FLEET_SEED=%d", seed), func(t *testing.T) { test(t, seed, total) })
		total.Processor = processorTime()
		if path := os.Getenv("FLEET_TALLY"); path != "" {
			total.hand(t, path)
		} else {
			t.Log(total)
		}
		return
	}
	hours := uint64(usualHours)
	if testing.Short() {
		hours = 2
	}
	if h, ok := number(t, "FLEET_HOURS"); ok {
		hours = h
	}
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for seed := range max(1, n*hours/usualHours) {
			t.Run(fmt.Sprintf("FLEET_SEED=%d", seed), func(t *testing.T) {
				t.Parallel()
				alone(t, seed, total)
			})
		}
	})
	line := fmt.Sprintf("%s: %s in %s", t.Name(), total, time.Since(began).Round(time.Second))
	t.Log(line)
	report(t, line)
}

// alone plays the test for one seed in another process.
func alone(t *testing.T, seed uint64, total *tally) {
	name, _, _ := strings.Cut(t.Name(), "/")
	path := t.TempDir() + "/tally"
	args := []string{"-test.run", "^" + name + "$", "-test.count", "1"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", time.Until(deadline).String())
	}
	child := exec.CommandContext(t.Context(), os.Args[0], args...)
	child.Env = append(os.Environ(), fmt.Sprintf("FLEET_SEED=%d", seed), "FLEET_TALLY="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f figures
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	total.add(f)
}

// hand gives the figures to the process that asked for them.
func (total *tally) hand(t *testing.T, path string) {
	b, err := json.Marshal(total.figures)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (total *tally) String() string {
	faults, kinds := 0, []string{}
	for _, kind := range slices.Sorted(maps.Keys(total.Faults)) {
		faults += total.Faults[kind]
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, total.Faults[kind]))
	}
	return fmt.Sprintf("%.1f virtual hours (%.0f virtual seconds a second of a core), %d faults (%s), %d calls (%d unknown, %d without effect), %d entries; playing %s, replaying %s, models %s",
		total.Lasted.Hours(), total.Lasted.Seconds()/total.Processor.Seconds(), faults, strings.Join(kinds, ", "),
		total.Calls, total.Unknown, total.Nothing, total.Entries,
		total.Playing.Round(time.Second), total.Replaying.Round(time.Second), total.Judging.Round(time.Second))
}

// report adds a line to the file that FLEET_REPORT names: -v would have the nodes log, too.
func report(t *testing.T, line string) {
	path := os.Getenv("FLEET_REPORT")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// processorTime is what this process has used of all cores.
func processorTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// patience is how long a scenario may stand still before it shows where.
const patience = 20 * time.Second

// watchdog runs outside of the bubble, in real time. If the bubble's time does not go on, a goroutine in it spins, or waits for
// something that the bubble does not know: it shows where all of them are.
func watchdog(seed uint64, progress *atomic.Int64, done <-chan struct{}) {
	for last := int64(-1); ; {
		select {
		case <-done:
			return
		case <-time.After(patience):
		}
		now := progress.Load()
		if now == last {
			stacks := make([]byte, 16<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			fmt.Fprintf(os.Stderr, "FLEET_SEED=%d: no virtual time has passed for %s\n%s\n", seed, patience, stacks)
			return
		}
		last = now
	}
}
