package chaos

// This file is the parts about disks: full, failing, hanging, slow.

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
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
		}
		if why := within(convergeWait, func() string {
			for _, i := range who { // one may end only now, of what it met before
				n := r.Nodes[i]
				if n.Pid() != 0 {
					continue
				}
				if status, _ := n.Wait(time.Second); status != exitStorage {
					t.Fatalf("%s ended with status %d on a full disk, want %d: %s", n.Name, status, exitStorage, n.LastWords())
				}
				must(n.Start())
			}
			return r.unready()
		}); why != "" {
			t.Fatalf("I15: waited %s in vain until all nodes are ready: %s", convergeWait, why)
		}
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
		r.writeAfter(time.Now())

		r.fault("a follower's disk full to the last byte")
		must(LeaveFree(disks[follower], 0))
		time.Sleep(time.Second)
		r.writeAfter(time.Now())
		gather()
		freed(follower)

		r.fault("the leader's disk below its reserve")
		gather()
		must(LeaveFree(disks[leader], 24<<20))
		r.AwaitLeader(t, leaderWait, leader)
		r.writeAfter(time.Now())
		gather()
		freed(leader)

		leader = r.AwaitLeader(t, leaderWait)
		r.fault("the leader's disk full at once to the last byte")
		must(LeaveFree(disks[leader], 0))
		r.AwaitLeader(t, 2*leaderWait, leader)
		r.writeAfter(time.Now())
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
		late := works.refused(leaderWait, works.submit, fleet.DiskFull)
		works.end(leaderWait)
		r.writeAfter(time.Now())
		gather()
		r.fault("two disks full to the last byte")
		for _, i := range two {
			must(LeaveFree(disks[i], 0))
		}
		time.Sleep(3 * time.Second)
		freed(two...)
		works.succeeds(leaderWait, late)
		r.writeAfter(time.Now())
	}
	r.End()
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
			r.writeAfter(time.Now())
			r.back(r.Nodes[v])
		}
	}
	r.End()
}

// When the leader's disk hangs for a minute writes resume elsewhere meanwhile, and a follower that hung is replicated to again (F8). How soon
// is in the report: 15 s is the aim.
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
		r.AwaitLeader(t, leaderWait, leader)
		r.writeAfter(began.Add(5 * time.Second))
		gaps = append(gaps, r.gap())
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
		what := map[bool]string{false: "a follower's disk is slow", true: "the leader's disk is slow"}[leads]
		for try := 1; ; try++ { // a machine that does other things too may depose a leader by itself, though hardly every time
			v := r.AwaitLeader(t, leaderWait)
			if !leads {
				v = r.others(v)[0]
			}
			r.fault(what)
			elections, gap := r.slow(r.Nodes[v], p.lasts(8*time.Second))
			write(t, fmt.Sprintf("slow disk: %s, longest without a write %s, elections %.0f", what, gap.Round(time.Millisecond), elections))
			if elections <= 1 {
				break
			}
			if try == 3 {
				t.Errorf("%s: %.0f elections the last time, want no flapping of leaders", what, elections)
				break
			}
		}
	}
	r.End()
}

// slow makes a node's disk slow for a while, and returns how many elections there were, and how long nothing was written.
func (r *Run) slow(n *Node, lasts time.Duration) (elections float64, gap time.Duration) {
	r.t.Helper()
	before, err := n.Gauge("fleet_raft_term")
	if err != nil {
		r.t.Fatal(err)
	}
	r.gap()
	spell := Cast(r.t, n, "fsync,fdatasync:delay_enter=150000")
	time.Sleep(lasts)
	gap = r.gap()
	spell.Lift()
	after, err := n.Gauge("fleet_raft_term")
	if err != nil {
		r.t.Fatal(err)
	}
	return after - before, gap
}
