package testcluster_test

// This file plants states that differ: whoever is not like the majority ends, and nobody else.

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// registry has the metrics of a node since its latest start.
type registry struct{ *prometheus.Registry }

func (r *registry) MustRegister(all ...prometheus.Collector) {
	r.Registry = prometheus.NewRegistry()
	r.Registry.MustRegister(all...)
}

// measured starts nodes whose metrics can be read. Versions of hashes, if given, are by node.
func measured(t *testing.T, n int, versions ...uint64) (*testcluster.Cluster, func(node int, metric string) float64) {
	t.Helper()
	registries := map[string]*registry{}
	c := testcluster.Start(t, n, func(cfg *cluster.Config) {
		r := &registry{}
		cfg.Metrics, registries[cfg.Name] = r, r
		for i, v := range versions {
			if cfg.Name == fmt.Sprintf("n%d", i+1) {
				cfg.HashVersion = v
			}
		}
	})
	metric := func(node int, metric string) float64 {
		families, err := registries[c.Node(node).Name()].Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == metric {
				return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		t.Fatalf("there is no metric %s", metric)
		return 0
	}
	c.Until(t, "the level allows checkpoints", func() bool { return metric(c.Leader(t), "fleet_level") == 2 })
	return c, metric
}

// rot changes a stored job of one node, as memory does that lost a bit. Nobody has to look at it.
func rot(t *testing.T, c *testcluster.Cluster, node int, job string) {
	t.Helper()
	found := false
	c.Node(node).View(func(v fsm.View) {
		if j, ok := v.Job(testcluster.Product, job); ok {
			j.Attempt ^= 1 << 17
			found = true
		}
	})
	if !found {
		t.Fatalf("node %d has no job %s", node, job)
	}
}

// plant makes the state of some nodes differ: the log replaces what rotted there.
func plant(t *testing.T, c *testcluster.Cluster, nodes ...int) {
	t.Helper()
	jobs := make([]string, len(nodes))
	for i := range nodes {
		jobs[i] = c.Submit(t, fleet.Submission{BodyMd: "work"}).ID
	}
	c.Converged(t)
	for i, n := range nodes {
		rot(t, c, n, jobs[i])
		if _, err := c.Propose(t, &fsm.Cancel{ProductID: testcluster.Product, JobID: jobs[i]}); err != nil {
			t.Fatalf("cancelling %s: %v", jobs[i], err)
		}
	}
}

// writes makes the log pass a checkpoint, and waits for what comes of it. Between two writes it pauses.
func writes(t *testing.T, c *testcluster.Cluster, pause time.Duration) {
	t.Helper()
	for range fsm.CheckpointEvery {
		c.Submit(t, fleet.Submission{BodyMd: "work"})
		time.Sleep(pause)
	}
	time.Sleep(10 * time.Second) // the leader asks again whoever was not there yet
	c.Submit(t, fleet.Submission{BodyMd: "for what was agreed on to ride with"})
}

func stopped(n *cluster.Node) bool {
	select {
	case <-n.Done():
		return true
	default:
		return false
	}
}

// ended checks that exactly these nodes ended, by words that say what to do.
func ended(t *testing.T, c *testcluster.Cluster, want ...int) {
	t.Helper()
	wanted := map[int]bool{}
	for _, i := range want {
		wanted[i] = true
		c.Until(t, fmt.Sprintf("node %d ends", i), func() bool { return stopped(c.Node(i)) })
	}
	for i := range c.Size() {
		err := c.Node(i).Err()
		switch {
		case !wanted[i] && stopped(c.Node(i)):
			t.Errorf("node %d ended: %v", i, err)
		case wanted[i] && (!errors.Is(err, cluster.ErrStorage) || !errors.Is(err, fsm.ErrDiverged) || !strings.Contains(err.Error(), "wipe")):
			t.Errorf("node %d ended with %v, want %v, %v and what to do", i, err, cluster.ErrStorage, fsm.ErrDiverged)
		}
	}
}

// goesOn checks that the cluster works, and replaces nodes that ended.
func goesOn(t *testing.T, c *testcluster.Cluster, replace ...int) {
	t.Helper()
	for _, i := range replace {
		c.Kill(t, i)
	}
	c.Leader(t)
	c.Submit(t, fleet.Submission{BodyMd: "more"})
	for _, i := range replace {
		c.Wipe(t, i)
		c.Restart(t, i)
	}
	c.Ready(t)
	c.Converged(t)
}

func TestDivergedNodeEnds(t *testing.T) {
	for _, who := range []string{"a follower", "the leader"} {
		synctest.Test(t, func(t *testing.T) {
			c, metric := measured(t, 3)
			victim := c.Leader(t)
			if who == "a follower" {
				victim = (victim + 1) % 3
			}
			plant(t, c, victim)
			began := time.Now()
			writes(t, c, 20*time.Millisecond)
			ended(t, c, victim)
			if took := time.Since(began); took > 60*time.Second {
				t.Errorf("%s ended after %s of writes, want 60 s at most", who, took)
			}
			goesOn(t, c, victim)
			writes(t, c, 0)
			other := (victim + 1) % 3
			c.Until(t, "the next checkpoint is proved", func() bool { return metric(other, "fleet_checkpoint_index") >= 2000 })
			ended(t, c)
		})
	}
}

// Two of five that differ from each other end both; three are a majority.
func TestTwoDivergedNodesOfFiveEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := measured(t, 5)
		leader := c.Leader(t)
		a, b := leader, (leader+2)%5
		plant(t, c, a, b)
		writes(t, c, 0)
		ended(t, c, a, b)
		goesOn(t, c, a, b)
	})
}

// Without a majority of all voters nothing is logged and nobody ends, however sure two hashes of one version are of a fault; once the
// third voter says which is right, the other ends.
func TestNoMajorityProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, metric := measured(t, 3)
		leader := c.Leader(t)
		down, victim := (leader+1)%3, (leader+2)%3
		c.Kill(t, down)
		plant(t, c, victim)
		writes(t, c, 0)
		c.Until(t, "the leader alarms", func() bool { return metric(leader, "fleet_state_conflicts_total") == 1 })
		if got := metric(leader, "fleet_checkpoints_unproven_total"); got != 1 {
			t.Errorf("unproven: got %v, want 1", got)
		}
		if got := metric(leader, "fleet_checkpoint_index"); got != 0 {
			t.Errorf("proved: got %v, want nothing", got)
		}
		c.Restart(t, down)
		c.Ready(t)
		writes(t, c, 0)
		ended(t, c, victim)
	})
}

// Hashes of different versions say nothing of each other.
func TestMixedHashVersions(t *testing.T) {
	for _, versions := range [][]uint64{{1, 2, 3}, {1, 1, 2}} {
		synctest.Test(t, func(t *testing.T) {
			c, metric := measured(t, 3, versions...)
			plant(t, c, 2) // its version differs, so nobody can know
			writes(t, c, 0)
			time.Sleep(10 * time.Second)
			leader := c.Leader(t)
			want := 0.0
			if versions[1] == 1 {
				want = fsm.CheckpointEvery
			}
			if got := metric(leader, "fleet_checkpoint_index"); got != want {
				t.Errorf("versions %v: proved %v, want %v", versions, got, want)
			}
			if got := metric(leader, "fleet_checkpoints_unproven_total"); (got == 1) != (want == 0) {
				t.Errorf("versions %v: %v unproven", versions, got)
			}
			if got := metric(leader, "fleet_state_conflicts_total"); got != 0 {
				t.Errorf("versions %v: %v alarms, want none", versions, got)
			}
			ended(t, c)
		})
	}
}

// While a node of an older release could read the log, nothing is put into it that it does not know.
func TestCheckpointsWaitForTheLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.StartAtLevel(t, 3, 1)
		plant(t, c, (c.Leader(t)+1)%3)
		writes(t, c, 0)
		time.Sleep(10 * time.Second)
		ended(t, c)
	})
}

// An idle cluster writes nothing: what was agreed on waits for the next group.
func TestAgreedCheckpointWaitsForAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, metric := measured(t, 3)
		for leader := c.Leader(t); metric(leader, "fleet_applied_index") <= fsm.CheckpointEvery; {
			c.Submit(t, fleet.Submission{BodyMd: "work"})
		}
		leader := c.Leader(t)
		time.Sleep(time.Minute)
		before := metric(leader, "fleet_applied_index")
		time.Sleep(5 * time.Minute)
		if got := metric(leader, "fleet_applied_index"); got != before {
			t.Errorf("five idle minutes moved the log from %v to %v", before, got)
		}
		if got := metric(leader, "fleet_checkpoint_index"); got != 0 {
			t.Errorf("proved: got %v, want nothing yet", got)
		}
		c.Submit(t, fleet.Submission{BodyMd: "work"})
		c.Until(t, "every node has it", func() bool {
			return metric(0, "fleet_checkpoint_index") == 1000 && metric(1, "fleet_checkpoint_index") == 1000 && metric(2, "fleet_checkpoint_index") == 1000
		})
	})
}

// What rots and is never touched is found by reading it again.
func TestRereadFindsWhatRotted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, metric := measured(t, 3)
		victim := (c.Leader(t) + 1) % 3
		job := c.Submit(t, fleet.Submission{BodyMd: "work"})
		c.Converged(t)
		time.Sleep(15 * time.Minute)
		if got := metric(victim, "fleet_state_rereads_total"); got != 1 {
			t.Errorf("rounds in 15 minutes: got %v, want 1", got)
		}
		rot(t, c, victim, job.ID)
		time.Sleep(11 * time.Minute)
		ended(t, c, victim)
		goesOn(t, c, victim)
	})
}
