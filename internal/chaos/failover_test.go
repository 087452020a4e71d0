package chaos

// This file is the parts that measure: how long nobody leads after a kill and at a planned restart, and what clients see of it.

import (
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// After a kill -9 of the leader writes resume soon, calls that were under way get true answers, and nobody loses a lease.
func TestChaosFailover(t *testing.T) {
	p := full(t)
	for _, timing := range []string{"lan", "local"} {
		t.Run(timing, func(t *testing.T) {
			r := Begin(t, "failover "+timing, p.seed, Config{Nodes: 3, Timing: timing}, 40)
			u := r.use(1)
			probes := r.probe(4)
			var took times
			elsewhere, unknown, atLeader := 0, 0, 0
			for range p.times(30) {
				r.sleep(300*time.Millisecond, 600*time.Millisecond)
				leader := r.AwaitLeader(t, leaderWait)
				r.fault("kill -9 of the leader")
				flights := r.inFlight()
				r.Nodes[leader].Signal(9)
				probes.mark()
				r.Nodes[leader].Kill()
				took = append(took, probes.firstWrite(leaderWait))
				if err := r.Nodes[leader].Start(); err != nil {
					t.Fatal(err)
				}
				for _, f := range flights {
					<-f.done
					switch {
					case f.node == leader:
						atLeader++
					case f.code == "outcome_unknown":
						unknown++
						fallthrough
					default:
						elsewhere++
					}
				}
				r.Ready(t, convergeWait)
			}
			probes.halt()
			u.halt()
			text, failed, lost := u.sum()
			write(t, fmt.Sprintf("failover %s: kill -9 of the leader, first write elsewhere: %s; of %d writes under way at other nodes %d were answered outcome_unknown (%.1f %%), %d were under way at the leader; %s",
				timing, took, elsewhere, unknown, 100*float64(unknown)/float64(max(1, elsewhere)), atLeader, text))
			if failed > 0 || lost > 0 {
				t.Errorf("%s: want none failed and none lost", text)
			}
			r.End()
		})
	}
}

// Nobody notices a rolling restart (F20).
func TestChaosRollingRestart(t *testing.T) {
	p := full(t)
	r := Begin(t, "rolling restart", p.seed, Config{Nodes: 3, Timing: "lan"}, 40)
	u := r.use(3)
	probes := r.probe(2)
	var followers, leaders times
	for range p.times(7) {
		for i, n := range r.Nodes {
			r.sleep(100*time.Millisecond, 300*time.Millisecond)
			led := r.AwaitLeader(t, leaderWait) == i
			r.fault("SIGTERM")
			probes.gap()
			if status := n.Stop(); status != 0 {
				t.Fatalf("%s: status %d after SIGTERM: %s", n.Name, status, n.LastWords())
			}
			if gap := probes.gap(); led {
				leaders = append(leaders, gap)
			} else {
				followers = append(followers, gap)
			}
			r.back(n)
		}
	}
	probes.halt()
	u.halt()
	text, failed, lost := u.sum()
	write(t, fmt.Sprintf("rolling restart: longest without a write while the leader stops: %s; while a follower stops: %s; %s", leaders, followers, text))
	if failed > 0 || lost > 0 {
		t.Errorf("%s: want none failed and none lost", text)
	}
	r.End()
}

// A leader that is to stop does so soon, with a peer that says nothing as well: it waits for no answer of a silent one.
func TestChaosStopBesideSilence(t *testing.T) {
	p := drawn(t)
	if p.scale == 0 && testing.Short() {
		t.Skip("it starts a cluster")
	}
	c := New(t, Config{Nodes: 3, Timing: "local"})
	c.Start(t)
	var took times
	for range max(1, p.times(3)) {
		leader := c.AwaitLeader(t, leaderWait)
		silent := c.Nodes[(leader+1)%3]
		silent.Pause()
		time.Sleep(time.Second)
		began := time.Now()
		status := c.Nodes[leader].Stop()
		took = append(took, time.Since(began))
		if status != 0 {
			t.Fatalf("%s: status %d after SIGTERM, %s later: %s", c.Nodes[leader].Name, status, time.Since(began), c.Nodes[leader].LastWords())
		}
		silent.Resume()
		if err := c.Nodes[leader].Start(); err != nil {
			t.Fatal(err)
		}
		c.Ready(t, convergeWait)
	}
	write(t, "a leader stops beside a silent node: "+took.String())
}

// Four programs that take all the processor they can get depose no leader (F26). How many elections there were is in the report, as it
// depends on what else the machine does; the verdict is not to.
func TestChaosStarvation(t *testing.T) {
	p := full(t)
	r := Begin(t, "starvation", p.seed, Config{Nodes: 3, Timing: "lan", Env: []string{"GOGC=10"}}, 40)
	leader := r.AwaitLeader(t, leaderWait)
	before, err := r.Nodes[leader].Gauge("fleet_raft_term")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		r.fault("a hog")
		hog := exec.Command("sh", "-c", "while :; do :; done")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = hog.Wait() })
		defer func() { _ = hog.Process.Kill() }()
	}
	lasts := p.lasts(40 * time.Second)
	time.Sleep(lasts)
	after, err := r.Nodes[leader].Gauge("fleet_raft_term")
	if err != nil {
		t.Fatal(err)
	}
	write(t, fmt.Sprintf("starvation: %.0f elections in %s with 4 hogs and GOGC=10", after-before, lasts))
	r.End()
}
