package cluster

// This file cuts the power before and after every durable operation of a node's stores, kills the process there, and lets the operation
// fail, and opens the stores again.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// kept is what the stores hold.
type kept struct {
	first, last uint64
	term        uint64
	voted       string // term and candidate
	snapshot    uint64 // the newest one's index
}

// ledger is what a run was told is durable, and what was in flight when it ended.
type ledger struct {
	acked   kept
	pending kept // equal to acked but for what is in flight
	terms   map[uint64]uint64
}

// run does all that raft does with its stores, and notes what is acknowledged. It returns at the first error.
func (l *ledger) run(cfg *Config) (err error) {
	ended := make(chan struct{})
	err = errors.New("its goroutine ended") // as raft's does at a failure of the stable store
	go func() {
		defer close(ended)
		err = l.steps(cfg)
	}()
	<-ended
	return err
}

func (l *ledger) steps(cfg *Config) error {
	s, err := openStores(cfg, func(error) {})
	if err != nil {
		return err
	}
	do := func(change func(*kept), op func() error) error {
		change(&l.pending)
		if err := op(); err != nil {
			return err
		}
		synctest.Wait() // a rotation is done in the background
		l.acked = l.pending
		return nil
	}
	append := func(n, term uint64) error {
		from := l.acked.last + 1
		for i := from; i < from+n; i++ {
			l.terms[i] = term
		}
		return do(func(k *kept) { k.last += n; k.first = max(k.first, 1) }, func() error { return s.Log.StoreLogs(entries(from, from+n-1, term)) })
	}
	setTerm := func(term uint64) error {
		return do(func(k *kept) { k.term = term }, func() error { return s.Stable.SetUint64([]byte("CurrentTerm"), term) })
	}
	vote := func(term uint64, candidate string) error { // as raft does it: the term first
		if err := s.Stable.SetUint64([]byte("LastVoteTerm"), term); err != nil {
			return err
		}
		return do(func(k *kept) { k.voted = fmt.Sprintf("%d %s", term, candidate) }, func() error { return s.Stable.Set([]byte("LastVoteCand"), []byte(candidate)) })
	}
	cut := func(from uint64) error {
		return do(func(k *kept) { k.last = from - 1 }, func() error { return s.Log.DeleteRange(from, l.acked.last) })
	}
	compact := func(to uint64) error {
		return do(func(k *kept) { k.first = to + 1 }, func() error { return s.Log.DeleteRange(l.acked.first, to) })
	}
	snapshot := func(index, term uint64) error {
		return do(func(k *kept) { k.snapshot = index }, func() error {
			sink, err := s.Snapshots.Create(1, index, term, raft.Configuration{}, 1, nil)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(sink, strings.Repeat(fmt.Sprintf("state at %d;", index), 200)); err != nil {
				return errors.Join(err, sink.Cancel())
			}
			return sink.Close()
		})
	}
	reopen := func() error {
		if err := s.Close(); err != nil {
			return err
		}
		s, err = openStores(cfg, func(error) {})
		return err
	}
	for _, step := range []func() error{
		func() error { return setTerm(1) },
		func() error { return append(1, 1) },
		func() error { return vote(1, "n1") },
		func() error { return append(5, 1) },
		func() error { return append(12, 1) }, // over the end of the first segment
		func() error { return append(3, 1) },
		func() error { time.Sleep(markEvery); synctest.Wait(); return nil }, // the mark is written
		func() error { return setTerm(2) },
		func() error { return vote(2, "n2") },
		func() error { return cut(20) }, // within the tail
		func() error { return append(4, 2) },
		func() error { return cut(15) }, // a segment and more
		func() error { return append(30, 2) },
		func() error { return append(1, 2) },
		func() error { return snapshot(20, 2) },
		func() error { return append(7, 2) },
		func() error { return snapshot(40, 2) },
		func() error { return compact(20) },
		reopen,
		func() error { return append(20, 2) },
		func() error { return setTerm(3) },
		func() error { return vote(3, "n3") },
		func() error { return snapshot(60, 2) },
		func() error { return compact(40) },
		func() error { return append(2, 3) },
		func() error { return s.Close() },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// survivors is what the stores hold now. It fails if anything in them can't be read.
func survivors(cfg *Config, terms map[uint64]uint64) (k kept, err error) {
	s, err := openStores(cfg, func(error) {})
	if err != nil {
		return k, err
	}
	if k.first, err = s.Log.FirstIndex(); err != nil {
		return k, err
	}
	if k.last, err = s.Log.LastIndex(); err != nil {
		return k, err
	}
	for i := k.first; i > 0 && i <= k.last; i++ {
		var entry raft.Log
		if err := s.Log.(haltingLog).guardedLog.GetLog(i, &entry); err != nil {
			return k, fmt.Errorf("entry %d: %w", i, err)
		}
		if !bytes.Equal(entry.Data, payload(i)) || entry.Term > terms[i] {
			return k, fmt.Errorf("entry %d is of term %d instead of %d: %q", i, entry.Term, terms[i], entry.Data)
		}
	}
	if k.term, err = termAndVote(s.Stable); err != nil {
		return k, err
	}
	if term, err := s.Stable.GetUint64([]byte("LastVoteTerm")); err == nil {
		candidate, _ := s.Stable.Get([]byte("LastVoteCand"))
		k.voted = fmt.Sprintf("%d %s", term, candidate)
	}
	list, err := s.Snapshots.List()
	if err != nil {
		return k, err
	}
	for i, meta := range list {
		_, content, err := s.Snapshots.Open(meta.ID)
		if err != nil {
			return k, err
		}
		raw, err := io.ReadAll(content)
		if err != nil || !strings.HasPrefix(string(raw), fmt.Sprintf("state at %d;", meta.Index)) {
			return k, fmt.Errorf("snapshot %s: %q, %w", meta.ID, raw[:min(len(raw), 20)], err)
		}
		if k.snapshot = max(k.snapshot, meta.Index); i > 0 && k.first > list[i].Index+1 {
			return k, fmt.Errorf("the log starts at %d, after snapshot %s", k.first, meta.ID)
		}
	}
	return k, nil
}

// judge says what was lost, or made up.
func (l *ledger) judge(k kept) error {
	a, p := l.acked, l.pending
	switch {
	case k.last < min(a.last, p.last) || k.last > max(a.last, p.last):
		return fmt.Errorf("the log ends at %d, want %d, or %d", k.last, a.last, p.last)
	case k.first != a.first && k.first != p.first && a.last > 0:
		return fmt.Errorf("the log starts at %d, want %d, or %d", k.first, a.first, p.first)
	case k.term != a.term && k.term != p.term:
		return fmt.Errorf("the term is %d, want %d, or %d", k.term, a.term, p.term)
	case k.voted != a.voted && k.voted != p.voted && !halfVoted(a.voted, k.voted):
		return fmt.Errorf("the vote is %q, want %q, or %q", k.voted, a.voted, p.voted)
	case k.snapshot != a.snapshot && k.snapshot != p.snapshot:
		return fmt.Errorf("the newest snapshot is at %d, want %d, or %d", k.snapshot, a.snapshot, p.snapshot)
	}
	return nil
}

// halfVoted: raft writes a vote's term first, so a crash may leave it with the old candidate. That one was never told.
func halfVoted(old, now string) bool {
	_, was, _ := strings.Cut(old, " ")
	_, is, _ := strings.Cut(now, " ")
	return is == was
}

// Nothing that was acknowledged is lost, at whatever operation the power goes, the process dies, or the disk fails, and no more than what was in
// flight. What was once read at a start is still there after the next power cut.
func TestNoFailpointLosesAnything(t *testing.T) {
	config := func(d *SimDisk) *Config {
		cfg := storeConfig("sim", "wal")
		cfg.Storage, cfg.SegmentBytes = d, 4<<10
		return cfg
	}
	begin := func() *ledger { return &ledger{terms: map[uint64]uint64{}} }
	var points []string
	synctest.Test(t, func(t *testing.T) {
		disk, l := NewSimDisk(1), begin()
		disk.record = true
		if err := l.run(config(disk)); err != nil {
			t.Fatal(err)
		}
		points = slices.Clone(disk.trace)
		k, err := survivors(config(disk), l.terms)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.judge(k); err != nil {
			t.Fatal(err)
		}
		disk.Detach()
		disk.Release()
	})
	kinds := map[string]int{}
	for _, name := range points {
		kinds[name]++
	}
	seeds, hit := uint64(2), 0
	if n, err := strconv.ParseUint(os.Getenv("FLEET_TEST_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	for run := range uint64(len(points)) * seeds {
		at := 1 + int(run)%len(points)
		for _, fault := range []string{"cut before", "cut after", "kill before", "kill after", "EIO, then cut", "EIO, then kill", "ENOSPC, then kill"} {
			synctest.Test(t, func(t *testing.T) {
				where := fmt.Sprintf("seed %d: %s operation %d, %s", run, fault, at, points[at-1])
				disk, l := NewSimDisk(run), begin()
				disk.cutAt, disk.cutAfter = at, strings.HasSuffix(fault, "after")
				if name, _, fails := strings.Cut(fault, ", "); fails {
					disk.cutAt, disk.failAt, disk.failWith = 0, at, map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}[name]
				}
				err := l.run(config(disk))
				if disk.cut || disk.written >= at && err != nil {
					hit++
				} else if disk.written < at {
					t.Errorf("%s: never reached", where)
				}
				if strings.Contains(fault, "cut") {
					disk.PowerCut()
				} else {
					disk.Detach()
				}
				before, err := survivors(config(disk), l.terms)
				if err == nil {
					err = l.judge(before)
				}
				if err != nil {
					t.Errorf("%s: %v", where, err)
				}
				disk.PowerCut() // what it has read, it has promised
				after, err := survivors(config(disk), l.terms)
				if err != nil || after != before {
					t.Errorf("%s: read %+v, and after a power cut %+v, %v", where, before, after, err)
				}
				disk.Detach()
				disk.Release()
			})
		}
	}
	t.Logf("%d failpoints, %d runs, %d of them ended at theirs: %v", len(points), 7*len(points)*int(seeds), hit, kinds)
}
