package chaos

// This file is the parts about disks: full, failing, hanging, slow.

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// exitStorage is the status of a node that can't trust its disk any more.
const exitStorage = 6

// Disks fill on one node and on two, and are freed again: nothing is lost, and nobody repairs anything (F6).
func TestChaosDiskFull(t *testing.T) {
	p := full(t)
	t.Parallel()
	var disks, dirs []string
	for range 3 {
		d := SmallDisk(t, 64)
		disks, dirs = append(disks, d), append(dirs, filepath.Join(d, "data"))
	}
	r := Begin(t, "disk full", p.seed, Config{Nodes: 3, Timing: "local", SegmentBytes: 1 << 20, Dirs: dirs}, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	unready := func(i int, reason string) {
		t.Helper()
		if why := within(15*time.Second, func() string {
			if got := r.Nodes[i].Unready(); !strings.Contains(got, reason) {
				return got
			}
			return ""
		}); why != "" {
			t.Fatalf("%s: waited in vain until it is not ready for %q: got %q", r.Nodes[i].Name, reason, why)
		}
	}
	freed := func(who ...int) {
		t.Helper()
		for _, i := range who {
			must(Free(disks[i]))
			if status, ended := r.Nodes[i].Wait(10 * time.Millisecond); ended {
				if status != exitStorage {
					t.Fatalf("%s ended with status %d on a full disk, want %d: %s", r.Nodes[i].Name, status, exitStorage, r.Nodes[i].LastWords())
				}
				must(r.Nodes[i].Start())
			}
		}
		r.Ready(t, convergeWait)
	}
	gather := func() {
		for _, n := range r.Nodes {
			r.gather(n)
		}
	}
	for range p.times(2) {
		time.Sleep(time.Second)
		leader := r.AwaitLeader(t, leaderWait)
		follower := r.others(leader)[0]
		gather()

		r.fault("one follower's disk below its reserve")
		must(LeaveFree(disks[follower], 24<<20))
		unready(follower, "disk")
		r.writeAfter(time.Now(), 5*time.Second)

		r.fault("a follower's disk full to the last byte")
		must(LeaveFree(disks[follower], 0))
		time.Sleep(time.Second)
		r.writeAfter(time.Now(), 5*time.Second)
		gather()
		freed(follower)

		r.fault("the leader's disk below its reserve")
		gather()
		must(LeaveFree(disks[leader], 24<<20))
		r.AwaitLeader(t, leaderWait, leader)
		r.writeAfter(time.Now(), 5*time.Second)
		gather()
		freed(leader)

		leader = r.AwaitLeader(t, leaderWait)
		r.fault("the leader's disk full at once to the last byte")
		must(LeaveFree(disks[leader], 0))
		r.AwaitLeader(t, 2*leaderWait, leader)
		r.writeAfter(time.Now(), 10*time.Second)
		gather()
		freed(leader)

		leader = r.AwaitLeader(t, leaderWait)
		two := r.others(leader)
		works := r.prepare()
		r.fault("two disks below their reserve")
		gather()
		for _, i := range two {
			must(LeaveFree(disks[i], 24<<20))
		}
		late := works.refused(30*time.Second, works.submit, fleet.DiskFull)
		works.end(10 * time.Second)
		r.writeAfter(time.Now(), 10*time.Second)
		gather()
		r.fault("two disks full to the last byte")
		for _, i := range two {
			must(LeaveFree(disks[i], 0))
		}
		time.Sleep(3 * time.Second)
		freed(two...)
		works.succeeds(15*time.Second, late)
		r.writeAfter(time.Now(), 15*time.Second)
	}
	r.End()
}

// works is jobs in a product of their own, which no verdict is about, to be brought to their ends where new ones are turned away.
type works struct {
	run    *Run
	client *http.Client
}

// worksProduct is their product.
const worksProduct = "works"

// prepare submits the jobs.
func (r *Run) prepare() *works {
	r.t.Helper()
	w := &works{r, newClient()}
	r.t.Cleanup(w.client.CloseIdleConnections)
	for range 2 {
		w.succeeds(leaderWait, w.submit())
	}
	return w
}

// call is one of these calls, under a key of its own.
func (w *works) call(command fsm.Command) *call {
	return &call{product: worksProduct, command: command, key: fmt.Sprintf("works%d", w.run.numbers.Add(1))}
}

func (w *works) submit() *call {
	s := fleet.Submission{BodyMd: "work"}
	s.Normalize()
	return w.call(&fsm.Submit{ProductID: worksProduct, JobID: "unknown", Submission: s})
}

// end does all that brings work to its end: a cluster that is short of room still lets each of it through within the limit.
func (w *works) end(limit time.Duration) {
	w.run.t.Helper()
	const factory = "worker"
	seats, beat := int64(100), int64(3600)
	do := func(command fsm.Command) fsm.Answer {
		w.run.t.Helper()
		return w.succeeds(limit, w.call(command))
	}
	claim := func() (id string, epoch uint64) {
		w.run.t.Helper()
		c := do(&fsm.Claim{ProductID: worksProduct, FactoryID: factory, LeaseSeconds: 60}).Result.(*fleet.Claim)
		if c.Job == nil {
			w.run.t.Fatal("F6: a claim found no job, though one is queued")
		}
		return c.Job.ID, c.Lease.LeaseEpoch
	}
	do(&fsm.Heartbeat{ProductID: worksProduct, Heartbeat: fleet.HeartbeatRequest{FactoryID: factory, SeatLimit: &seats, HeartbeatSeconds: &beat}})
	id, epoch := claim()
	do(&fsm.Renew{ProductID: worksProduct, JobID: id, LeaseEpoch: epoch, LeaseSeconds: 60})
	do(&fsm.Patch{ProductID: worksProduct, JobID: id, Report: fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Building}})
	do(&fsm.Patch{ProductID: worksProduct, JobID: id, Report: fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Failed, Reason: "no room"}})
	id, epoch = claim()
	do(&fsm.Release{ProductID: worksProduct, JobID: id, LeaseEpoch: epoch})
	do(&fsm.Cancel{ProductID: worksProduct, JobID: id, Reason: "no room"})
}

// succeeds makes a call until it does.
func (w *works) succeeds(limit time.Duration, c *call) fsm.Answer {
	w.run.t.Helper()
	var answer fsm.Answer
	at := 0
	if why := within(limit, func() string {
		a, err := w.run.try(w.client, at%len(w.run.Nodes), c)
		at++
		if answer = a; err != nil {
			return err.Error()
		}
		if a.Err != nil {
			w.run.t.Fatalf("%T: %v", c.command, a.Err)
		}
		return ""
	}); why != "" {
		w.run.t.Fatalf("F6: waited %s in vain for a %T: %s", limit, c.command, why)
	}
	return answer
}

// refused makes a call until it is refused with a code: a leader that is new does not yet know how the others' disks are.
func (w *works) refused(limit time.Duration, make func() *call, want fleet.Code) *call {
	w.run.t.Helper()
	var c *call
	at := 0
	if why := within(limit, func() string {
		c = make()
		a, err := w.run.try(w.client, at%len(w.run.Nodes), c)
		at++
		if got := code(a, err); got != string(want) {
			time.Sleep(100 * time.Millisecond)
			return got
		}
		return ""
	}); why != "" {
		w.run.t.Fatalf("F6: waited %s in vain until a %T is refused with %s: got %s", limit, c.command, want, why)
	}
	return c
}

// A node whose disk gives an error ends with status 6, and the others go on (F7, I16).
func TestChaosDiskErrors(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "disk errors", p.seed, Config{Nodes: 3, Timing: "local"}, 60)
	for range p.times(3) {
		for _, inject := range []string{
			"fsync,fdatasync:error=EIO:when=1", "pwrite64:error=EIO:when=1", "pwrite64:error=ENOSPC:when=1", "pwrite64:error=ENOSPC:when=3+5",
		} {
			v := r.victim()
			r.fault(inject)
			spell := Cast(t, r.Nodes[v], inject)
			r.ends(r.Nodes[v], 20*time.Second, exitStorage)
			spell.Lift()
			r.writeAfter(time.Now(), leaderWait)
			r.back(r.Nodes[v])
		}
	}
	r.End()
}

// When the leader's disk hangs writes resume elsewhere within 15 s, and a follower that hung is replicated to again (F8).
func TestChaosDiskHangs(t *testing.T) {
	p := full(t)
	r := Begin(t, "disk hangs", p.seed, Config{Nodes: 3, Timing: "lan"}, 60)
	var gaps times
	for range p.times(2) {
		leader := r.AwaitLeader(t, leaderWait)
		r.gap()
		r.fault("the leader's disk hangs")
		began := time.Now()
		spell := Cast(t, r.Nodes[leader], "fsync,fdatasync:delay_enter=60000000")
		r.AwaitLeader(t, 30*time.Second, leader)
		r.writeAfter(began.Add(5*time.Second), 10*time.Second)
		gaps = append(gaps, r.gap())
		if gap := gaps[len(gaps)-1]; gap > 15*time.Second {
			t.Errorf("the leader's disk hung: writes resumed after %s, want 15 s at most", gap)
		}
		spell.Lift()
		r.ends(r.Nodes[leader], 10*time.Second, exitStorage)
		r.back(r.Nodes[leader])
	}
	leader := r.AwaitLeader(t, leaderWait)
	follower := r.others(leader)[0]
	r.fault("a follower's disk hangs for 3 s")
	spell := Cast(t, r.Nodes[follower], "fsync,fdatasync:delay_enter=3000000:when=1")
	r.gap()
	time.Sleep(4 * time.Second)
	short := r.gap()
	spell.Lift()
	r.Ready(t, convergeWait)
	write(t, "disk hangs: the leader's, writes resumed after: "+gaps.String()+"; a follower's, longest without a write: "+short.String())
	r.End()
}

// A slow disk of one node makes nobody lose its leader (F9).
func TestChaosDiskSlow(t *testing.T) {
	p := full(t)
	r := Begin(t, "slow disk", p.seed, Config{Nodes: 3, Timing: "lan"}, 60)
	for _, leads := range []bool{false, true} {
		v := r.AwaitLeader(t, leaderWait)
		if !leads {
			v = r.others(v)[0]
		}
		r.fault(map[bool]string{false: "a follower's disk is slow", true: "the leader's disk is slow"}[leads])
		before, _ := r.Nodes[v].Gauge("fleet_raft_term")
		r.gap()
		spell := Cast(t, r.Nodes[v], "fsync,fdatasync:delay_enter=150000")
		time.Sleep(p.lasts(8 * time.Second))
		gap := r.gap()
		spell.Lift()
		after, err := r.Nodes[v].Gauge("fleet_raft_term")
		if err != nil {
			t.Fatal(err)
		}
		write(t, "slow disk: the node leads "+map[bool]string{false: "not", true: "indeed"}[leads]+", longest without a write "+gap.String())
		if after > before+1 {
			t.Errorf("the term went from %.0f to %.0f, want no flapping of leaders", before, after)
		}
	}
	r.End()
}
