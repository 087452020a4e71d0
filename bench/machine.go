package main

// This file is what the machine was like: how long its disk takes to sync, and how busy others kept it.

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	fsyncs    = 100
	fsyncSize = 4096                   // bytes, about what an entry of a log takes
	watch     = 500 * time.Millisecond // how long others are watched
	quiet     = 0.1                    // of the machine may be busy; what is left of a peer that has just ended is in it
)

// probe looks at the machine while no servers run.
func (r *results) probe(dir string) error {
	fsync, err := fsyncLatency(filepath.Join(dir, "probe"))
	if err != nil {
		return fmt.Errorf("probing the disk: %w", err)
	}
	r.fsyncs = append(r.fsyncs, fsync)
	busy, all, ok := processorTime()
	time.Sleep(watch)
	busyThen, allThen, _ := processorTime()
	if ok && allThen > all {
		r.busy = append(r.busy, (busyThen-busy)/(allThen-all))
	}
	return nil
}

// fsyncLatency is the median time that a small append and its fsync take.
func fsyncLatency(file string) (time.Duration, error) {
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var (
		page = make([]byte, fsyncSize)
		took []time.Duration
	)
	for range fsyncs {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return quantile(took, 0.5), nil
}

// processorTime is what Linux counts, in ticks since it started: of processors that worked, and of all.
func processorTime() (busy, all float64, ok bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		if i < 1 || i > 8 { // the name, and guests, which are counted before
			continue
		}
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, 0, false
		}
		if all += ticks; i != 4 && i != 5 { // idle, and idle with a disk at work
			busy += ticks
		}
	}
	return busy, all, true
}

// disturbed reports whether others kept so much of the machine busy that the figures say little about the peers.
func (r *results) disturbed() bool { return len(r.busy) > 0 && r.meanBusy() > quiet }

// meanBusy is a mean, not a median: what comes and goes disturbs too.
func (r *results) meanBusy() float64 {
	var sum float64
	for _, share := range r.busy {
		sum += share
	}
	return sum / float64(len(r.busy))
}

// machine says what everything ran on.
func (r *results) machine() string {
	text := fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if len(r.fsyncs) > 0 {
		text += fmt.Sprintf("; a write of %d bytes and its fsync took %s ms", fsyncSize, format(r.fsyncs, millis))
	}
	if len(r.busy) > 0 {
		text += fmt.Sprintf("; when none of this ran others kept %.0f %% of it busy, at most %.0f %%", 100*r.meanBusy(), 100*slices.Max(r.busy))
	}
	return text
}
