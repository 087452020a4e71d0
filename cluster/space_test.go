package cluster

// This file tests how room on the disk is judged and made.

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// setDisk is a disk with as much room as the test says; a negative number is not to be found out.
type setDisk struct{ free atomic.Int64 }

func (d *setDisk) Free() (uint64, error) {
	if free := d.free.Load(); free >= 0 {
		return uint64(free), nil
	}
	return 0, errors.New("no such disk")
}

func newSetDisk(free int64) *setDisk {
	d := &setDisk{}
	d.free.Store(free)
	return d
}

// spaceOf is the space of a node that doesn't run.
func spaceOf(d Disk, cfg Config) *space {
	cfg.Logger = hclog.NewNullLogger()
	return &space{node: &Node{cfg: cfg, log: cfg.Logger}, disk: d}
}

// The reserve is the greatest of 256 MiB, one and a half of the last snapshot and four segments; 32 MiB with local timing.
func TestReserve(t *testing.T) {
	for _, test := range []struct {
		name     string
		timing   Timing
		segment  int
		snapshot int64
		want     uint64
	}{
		{"least", TimingLAN, 1 << 20, 0, 256 << 20},
		{"wide", TimingWAN, 1 << 20, 0, 256 << 20},
		{"segments", TimingLAN, 80 << 20, 0, 320 << 20},
		{"snapshot", TimingLAN, 80 << 20, 400 << 20, 600 << 20},
		{"local", TimingLocal, 80 << 20, 400 << 20, 32 << 20},
	} {
		s := spaceOf(newSetDisk(1<<40), Config{Timing: test.timing, SegmentBytes: test.segment})
		s.snapshot.Store(test.snapshot)
		s.look()
		if got := s.own(); got != (room{1 << 40, test.want}) {
			t.Errorf("%s: got %+v, want a reserve of %d", test.name, got, test.want)
		}
	}
}

// What can't be found out changes nothing.
func TestUnknownRoom(t *testing.T) {
	d := newSetDisk(-1)
	s := spaceOf(d, Config{Timing: TimingLocal})
	s.look()
	if s.low() {
		t.Error("never seen: got short of room, want not")
	}
	d.free.Store(1 << 20)
	s.look()
	d.free.Store(-1)
	s.look()
	if got := s.own().free; got != 1<<20 || !s.low() {
		t.Errorf("seen before: got %d bytes, want what was seen", got)
	}
}

func TestAllowedBy(t *testing.T) {
	ok, low, dire := room{100, 100}, room{99, 100}, room{49, 100}
	for _, test := range []struct {
		name   string
		rooms  []room
		voters int
		want   fsm.Need
	}{
		{"all have room", []room{ok, ok, ok}, 3, fsm.NeedsReserve},
		{"one is low", []room{ok, low, ok}, 3, fsm.NeedsReserve},
		{"the leader is low", []room{low, ok, ok}, 3, fsm.NeedsReserve},
		{"two are low", []room{ok, low, low}, 3, fsm.NeedsHalf},
		{"one is low, one says nothing", []room{ok, low}, 3, fsm.NeedsHalf},
		{"one says nothing", []room{ok, ok}, 3, fsm.NeedsReserve},
		{"two say nothing", []room{ok}, 3, fsm.NeedsReserve},
		{"low, two say nothing", []room{low}, 3, fsm.NeedsHalf},
		{"two are at the end", []room{ok, dire, dire}, 3, fsm.NeedsNothing},
		{"one low, one at the end", []room{ok, low, dire}, 3, fsm.NeedsHalf},
		{"one at the end", []room{dire, ok, ok}, 3, fsm.NeedsReserve},
		{"alone", []room{ok}, 1, fsm.NeedsReserve},
		{"alone and low", []room{low}, 1, fsm.NeedsHalf},
		{"alone and at the end", []room{dire}, 1, fsm.NeedsNothing},
		{"one of two", []room{ok, low}, 2, fsm.NeedsHalf},
		{"two of four", []room{ok, ok, low, low}, 4, fsm.NeedsHalf},
		{"two of five", []room{ok, low, ok, low, ok}, 5, fsm.NeedsReserve},
	} {
		if got := allowedBy(test.rooms, test.voters); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

// A node that is short of room writes a snapshot at once, and another one so that the log before the first goes too, but no snapshot
// that would fill the disk itself. It says so once a minute.
func TestShortOfRoomMakesSome(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		disk := newSetDisk(1 << 40)
		var log bytes.Buffer
		var mu sync.Mutex
		said := func() int { mu.Lock(); defer mu.Unlock(); return strings.Count(log.String(), "short of room") }
		registry := prometheus.NewRegistry()
		n := member(t, NewMemoryNetwork(), Config{
			Name: "n1", BootstrapExpect: 1, Disk: disk, Metrics: registry,
			Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Mutex: &mu, Level: hclog.Warn}),
		})
		eventually(t, "it leads", n.IsLeader)
		fill(t, n, 1_000_000)
		time.Sleep(time.Minute)
		if index, _ := newestSnapshot(t, n); index != 0 {
			t.Fatalf("with room: got a snapshot at entry %d, want none", index)
		}
		disk.free.Store(500_000) // less than the log
		time.Sleep(5*time.Minute - time.Second)
		if index, _ := newestSnapshot(t, n); index != 0 {
			t.Errorf("without room for it: got a snapshot at entry %d, want none", index)
		}
		if got := said(); got != 5 {
			t.Errorf("in five minutes it said %d times that it is short of room, want 5", got)
		}
		renew := func() {
			if a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Noop{}}); err != nil && a.Err == nil {
				t.Fatal(err)
			}
		}
		disk.free.Store(20 << 20)
		eventually(t, "a snapshot is written", func() bool { _, usable := newestSnapshot(t, n); return usable == 1 })
		if list, _ := n.stores.Snapshots.List(); list[0].Size == 0 || n.space.snapshot.Load() != list[0].Size {
			t.Errorf("its size: got %d, want %d", n.space.snapshot.Load(), list[0].Size)
		}
		whole, _ := n.stores.Log.FirstIndex()
		first, _ := newestSnapshot(t, n)
		renew()
		eventually(t, "another one is written", func() bool { _, usable := newestSnapshot(t, n); return usable == 2 })
		if got, _ := n.stores.Log.FirstIndex(); whole != 1 || got <= whole || got > first+1 {
			t.Errorf("the log began at entry %d and begins at %d, want it to go up to the first snapshot's, %d", whole, got, first)
		}
		second, _ := newestSnapshot(t, n)
		renew()
		time.Sleep(time.Minute)
		if got, _ := newestSnapshot(t, n); got != second {
			t.Errorf("for one more entry: got a snapshot at entry %d, want none after %d", got, second)
		}
		if got := metric(t, registry, "fleet_disk_free_bytes"); got != 20<<20 {
			t.Errorf("fleet_disk_free_bytes: got %v", got)
		}
		if got := metric(t, registry, "fleet_disk_reserve_bytes"); got != localReserve {
			t.Errorf("fleet_disk_reserve_bytes: got %v", got)
		}
		if got := metric(t, registry, "fleet_fsm_snapshot_seconds"); got != 2 {
			t.Errorf("fleet_fsm_snapshot_seconds: got %v snapshots, want 2", got)
		}
		if got := metric(t, registry, "fleet_wal_fsync_seconds"); got < 100 {
			t.Errorf("fleet_wal_fsync_seconds: got %v writes, want one for each entry at least", got)
		}
	})
}

// metric is a gauge's or a counter's value, or how much a histogram has counted.
func metric(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			return float64(h.GetSampleCount())
		}
		return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// A leader that can't hand over, whoever has room, takes no more than its own disk has room for.
func TestStuckWithAFullDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes, disks, _ := threeDisks(t, network)
		leader := leaderOf(nodes)
		eventually(t, "they have said how they are", func() bool { _, found := leader.space.roomiest(fsm.NeedsReserve); return found })
		leader.space.free.Store(1)
		leader.space.judge()
		if got := fsm.Need(leader.space.allowed.Load()); got != fsm.NeedsReserve {
			t.Errorf("while two have room: got %d, want %d", got, fsm.NeedsReserve)
		}
		leader.space.setStuck(true)
		leader.space.judge()
		if got := fsm.Need(leader.space.allowed.Load()); got != fsm.NeedsNothing {
			t.Errorf("when it can't hand over: got %d, want %d", got, fsm.NeedsNothing)
		}
		leader.space.look()
		leader.space.setStuck(false)

		var other, last *Node
		for i, n := range nodes {
			switch {
			case n == leader:
				disks[i].free.Store(1)
			case other == nil:
				other = n
				disks[i].free.Store(1)
			default:
				last = n
			}
		}
		network.Cut(leader.cfg.Name, last.cfg.Name)
		stuck := func() bool { leader.space.mu.Lock(); defer leader.space.mu.Unlock(); return leader.space.stuck }
		eventually(t, "it can't hand over", stuck)
		network.Heal()
		eventually(t, "the one with room leads", last.IsLeader)
	})
}

// threeDisks is three members that are ready, with a disk and metrics each.
func threeDisks(t *testing.T, network *MemoryNetwork) (nodes []*Node, disks []*setDisk, metrics []*prometheus.Registry) {
	t.Helper()
	for i := range 3 {
		disks, metrics = append(disks, newSetDisk(1<<40)), append(metrics, prometheus.NewRegistry())
		nodes = append(nodes, member(t, network, Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, Disk: disks[i], Metrics: metrics[i]}))
	}
	allReady := func() bool { return !slices.ContainsFunc(nodes, func(n *Node) bool { return n.Ready() != nil }) }
	eventually(t, "all are ready", func() bool { return allReady() && leaderOf(nodes) != nil })
	return nodes, disks, metrics
}

// A node that is short of room leaves elections to the other one, not even for a moment does it lead; but if both are short, one leads.
func TestShortOfRoomLeavesElectionsToOthers(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes, disks, metrics := threeDisks(t, network)
		low := slices.IndexFunc(nodes, func(n *Node) bool { return !n.IsLeader() })
		disks[low].free.Store(1)
		eventually(t, "it says so", func() bool { return errors.Is(nodes[low].Ready(), errDisk) })
		before := metric(t, metrics[low], "fleet_leader_changes_total")
		isolate := func() (leader, next *Node) {
			leader = leaderOf(nodes)
			for _, n := range nodes {
				if n != leader {
					network.Cut(leader.cfg.Name, n.cfg.Name)
				}
			}
			eventually(t, "another one leads", func() bool {
				next = leaderOf(slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool { return n == leader }))
				return next != nil
			})
			return leader, next
		}
		for range 12 {
			leader, next := isolate()
			network.Heal()
			eventually(t, "all follow it", func() bool { return !leader.IsLeader() && leader.Leader() == next.cfg.Name })
		}
		if got := metric(t, metrics[low], "fleet_leader_changes_total"); got != before {
			t.Errorf("it was made leader %v times, want never", got-before)
		}
		for i, d := range disks {
			d.free.Store(20 << 20)
			eventually(t, "it says so", nodes[i].space.low)
		}
		isolate()
	})
}

// What a leader had no room for is turned away at once for a moment, other work and other leaders' is not.
func TestTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fw := newForwarder(&Node{})
		one, two := target{id: "one"}, target{id: "two"}
		turned := func(to target, c fsm.Command) bool {
			w := newPending(fsm.Proposal{Command: c})
			fw.enqueue(to, w)
			select {
			case <-w.done:
				return errors.Is(w.err, errRefused) && errors.Is(w.answers[0].Err, fleet.DiskFull)
			default:
				return false
			}
		}
		fw.turnedAway(one, &fsm.Submit{}, diskFull())
		if !turned(one, &fsm.Comment{}) || turned(one, &fsm.Renew{}) || turned(two, &fsm.Submit{}) {
			t.Error("new work was refused: want just that to be turned away, by that leader")
		}
		fw.turnedAway(one, &fsm.Renew{}, diskFull())
		fw.turnedAway(one, &fsm.Submit{}, diskFull())
		if !turned(one, &fsm.Renew{}) || turned(one, &fsm.Noop{}) {
			t.Error("all work was refused: want all to be turned away but what needs no room")
		}
		time.Sleep(turnedFor)
		if turned(one, &fsm.Submit{}) {
			t.Error("a moment later: want it to be asked again")
		}
	})
}

// Of a frame in which some proposals find no room, each answer says which; nothing of it was proposed.
func TestRefusedFrame(t *testing.T) {
	p := &pending{answers: []fsm.Answer{{}, {Err: diskFull()}}, err: errRefused}
	answers, err := decodeAnswers(encodeAnswers(p), 2)
	if !errors.Is(err, errRefused) || len(answers) != 2 {
		t.Fatalf("got %+v, %v, want two answers and %v", answers, err, errRefused)
	}
	if answers[0].Err != nil || !errors.Is(answers[1].Err, fleet.DiskFull) || answers[1].Err.RetryAfterSeconds != spaceRetry {
		t.Errorf("got %+v, want the second to be refused", answers)
	}
}
