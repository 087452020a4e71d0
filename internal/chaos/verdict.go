package chaos

// This file ends a run: everything is mended, everybody agrees, and all that was answered is judged.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

// Healing is longer than the aims of I15, for machines that do other things too; what it took is in the report.
const (
	leaderWait   = 30 * time.Second
	convergeWait = 60 * time.Second
	modelWait    = 30 * time.Second
	idleWait     = 30 * time.Second // until what a call took is given back
)

// End mends everything, judges, and writes the run's line of the report.
func (r *Run) End() {
	t := r.t
	t.Helper()
	r.heal(t)
	healed := time.Now()
	r.AwaitLeader(t, leaderWait)
	led := time.Since(healed)
	r.Ready(t, convergeWait)
	ready := time.Since(healed)
	r.writeAfter(time.Now())
	lasted := time.Since(r.began)
	time.Sleep(300 * time.Millisecond)
	r.halt()
	machine := r.agree()
	rested := r.rests()
	r.logs(machine.Index())
	replayed, events := r.judge()
	if replayed.Hash() != machine.Hash() {
		t.Fatal("I8: the nodes hold another state than the replay of their log")
	}
	all, unknown, _ := r.history.Counts()
	r.faults.merge(r.struck)
	r.count(lasted, all, events)
	write(t, fmt.Sprintf("%s: seed %d, %s, %d faults (%.0f a minute): %s; %d calls (%d unknown after the log was read), tries %s; longest without a write %s; leader %s and all ready %s after healing; idle nodes at most %s; %d events, %d entries replayed, %d elections",
		r.name, r.seed, lasted.Round(time.Second), r.faults.sum(), float64(r.faults.sum())/lasted.Minutes(), r.faults,
		all, unknown, r.codes, r.longest.Round(time.Millisecond), led.Round(time.Millisecond), ready.Round(time.Millisecond), rested, events, r.log.Last(), r.logged.terms))
}

// judge replays the log, and judges by it all that clients and readers were told. It returns the state at the end, and how many events
// its feed has.
func (r *Run) judge() (*fsm.Machine, int) {
	t := r.t
	t.Helper()
	replay, err := r.log.Replay(r.history, check.Judges()...)
	if err != nil {
		t.Fatal(err)
	}
	var events []*fleet.Event
	replay.Machine.View(func(v fsm.View) {
		if err := check.State(v, r.product); err != nil {
			t.Fatal(err)
		}
		events, _, _ = v.Feed(r.product, 0, 10_000_000)
	})
	r.history.Saw(events...)
	for i, f := range r.feeds {
		if err := f.whole(events); err != nil {
			t.Fatalf("the reader of %s: %v", r.Nodes[i].Name, err)
		}
	}
	if err := replay.Witness(r.history); err != nil {
		t.Fatal(err)
	}
	replay.Settle(r.history)
	r.nameJobs()
	if err := r.history.CheckJobs(r.product, modelWait); err != nil {
		t.Fatal(err)
	}
	return replay.Machine, len(events)
}

// count adds the run to the total.
func (r *Run) count(lasted time.Duration, calls, events int) {
	total.faults.merge(r.faults)
	total.codes.merge(r.codes)
	total.mu.Lock()
	defer total.mu.Unlock()
	total.runs++
	total.lasted += lasted
	total.longest = max(total.longest, r.longest)
	total.calls += calls
	total.terms += r.logged.terms
	total.events += events
}

// nameJobs gives submits whose answer nobody got the ids that the log has.
func (r *Run) nameJobs() {
	for _, o := range r.history.Operations() {
		switch c := o.Proposal.Command.(type) {
		case *fsm.Submit, *fsm.SubmitBatch:
			if known, ok := r.logged.submits[o.Proposal.Key]; ok {
				jobIDs(c, known)
			}
		}
	}
	for _, o := range r.history.Operations() { // more surely where the answer names them
		switch c := o.Proposal.Command.(type) {
		case *fsm.Submit:
			if s, ok := o.Answer.Result.(*fleet.SubmitResult); ok {
				c.JobID = s.Job.ID
			}
		case *fsm.SubmitBatch:
			if s, ok := o.Answer.Result.(*fleet.SubmitResults); ok {
				ids := make([]string, len(s.Results))
				for i := range s.Results {
					ids[i] = s.Results[i].Job.ID
				}
				c.JobIDs = ids
			}
		}
	}
}

// agree waits until all nodes show one state at one index, and returns it (I8).
func (r *Run) agree() *fsm.Machine {
	r.t.Helper()
	var agreed *fsm.Machine
	if why := within(convergeWait, func() string {
		agreed = nil
		index := r.Nodes[0].Applied()
		time.Sleep(200 * time.Millisecond)
		for _, n := range r.Nodes {
			if at := n.Applied(); at != index || at == 0 {
				return fmt.Sprintf("%s is at index %d, another at %d", n.Name, at, index)
			}
		}
		for _, n := range r.Nodes {
			m, err := n.state()
			switch {
			case err != nil:
				return err.Error()
			case agreed == nil:
				agreed = m
			case m.Index() != agreed.Index():
				return "the index moved on"
			case m.Hash() != agreed.Hash():
				r.t.Fatalf("I8: %s and %s have different states at index %d", n.Name, r.Nodes[0].Name, m.Index())
			}
		}
		return ""
	}); why != "" {
		r.t.Fatalf("I15: waited %s in vain until all nodes agree: %s", convergeWait, why)
	}
	return agreed
}

// state is the node's whole state, as a backup has it.
func (n *Node) state() (*fsm.Machine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	response, err := n.Do(ctx, http.MethodGet, "/cluster/snapshot", "")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("a backup of %s: status %d", n.Name, response.StatusCode)
	}
	m := fsm.New()
	return m, m.Restore(response.Body)
}

// logged is what the log shows beside what package check takes from it.
type logged struct {
	submits map[string]fsm.Command // by key, as first proposed
	term    uint64
	terms   int
}

func (l *logged) entryOf(e *raft.Log) (*fsm.Entry, error) {
	if e.Term != l.term {
		l.term = e.Term
		l.terms++
	}
	entry, err := cluster.EntryOf(e)
	if err != nil || entry == nil {
		return entry, err
	}
	for _, p := range entry.Proposals {
		switch p.Command.(type) {
		case *fsm.Submit, *fsm.SubmitBatch:
			if _, known := l.submits[p.Key]; !known {
				l.submits[p.Key] = p.Command
			}
		}
	}
	return entry, nil
}

// openLog opens the log in a data directory that nobody else has open.
func openLog(dir string) (cluster.Stores, error) {
	return cluster.RealStorage().Open(&cluster.Config{DataDir: dir, LogStore: "wal", SegmentBytes: 64 << 10, Logger: hclog.NewNullLogger()})
}

// gather takes what a node has in its log before it compacts it. The node does not run meanwhile; what is read is a copy, so that what a
// crash has left is still the node's to mend.
func (r *Run) gather(n *Node) {
	r.t.Helper()
	applied := n.Applied()
	if applied <= r.log.Last() {
		return
	}
	n.Pause()
	dir, err := os.MkdirTemp(r.Dir, "log")
	if err == nil {
		err = copyDir(filepath.Join(n.Dir, "wal"), filepath.Join(dir, "wal"))
	}
	n.Resume()
	if err != nil {
		r.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := openLog(dir)
	if err != nil {
		r.t.Fatalf("opening a copy of the log of %s: %v", n.Name, err)
	}
	defer func() { _ = s.Close() }()
	if err := r.log.Gather(s.Log, s.Snapshots, applied); err != nil {
		r.t.Fatalf("%s: %v", n.Name, err)
	}
}

// logs stops the nodes and reads their logs up to an index: whole, and nowhere another (I1).
func (r *Run) logs(upTo uint64) {
	t := r.t
	t.Helper()
	for _, n := range r.Nodes {
		if status := n.Stop(); status != 0 {
			t.Fatalf("%s ended with status %d after SIGTERM: %s", n.Name, status, n.LastWords())
		}
	}
	var stores []cluster.Stores
	for _, n := range r.Nodes {
		s, err := openLog(n.Dir)
		if err != nil {
			t.Fatalf("opening the log of %s: %v", n.Name, err)
		}
		defer func() { _ = s.Close() }()
		stores = append(stores, s)
		if last, err := s.Log.LastIndex(); err == nil && last < upTo {
			continue // all of it is in a snapshot
		}
		if err := r.log.Gather(s.Log, s.Snapshots, upTo); err != nil {
			t.Fatalf("%s: %v", n.Name, err)
		}
	}
	if r.log.Last() < upTo {
		t.Fatalf("the log is known to entry %d, not to %d: it was compacted before it was gathered", r.log.Last(), upTo)
	}
	for i, s := range stores {
		if last, err := s.Log.LastIndex(); err == nil && last < upTo {
			continue
		}
		if err := r.log.Agrees(s.Log, s.Snapshots, upTo); err != nil {
			t.Fatalf("%s: %v", r.Nodes[i].Name, err)
		}
	}
}

// copyDir copies a data directory.
func copyDir(from, to string) error {
	return filepath.Walk(from, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if info.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), bytes.Clone(b), info.Mode().Perm())
	})
}
