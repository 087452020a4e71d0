package bench

// This file tests runs against real nodes in virtual time.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

// inCluster runs a test in virtual time, with what a run in its cluster of three needs.
func inCluster(t *testing.T, test func(t *testing.T, cl *testcluster.Cluster, c Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cl := testcluster.Start(t, 3, testcluster.SimDisks(1))
		for i := range 3 {
			cl.SlowDisk(t, i, 5*time.Millisecond, 20*time.Millisecond) // or there is no end to what is done in no time
		}
		c := Config{
			Name: "bench-test", Size: 100, Batch: 8, Stages: []fleet.Stage{fleet.Building, fleet.Shipped},
			HTTP: cl.HTTPClient(t), Progress: func(string) {},
		}
		for i := range 4 {
			all := cl.Addresses()
			one, err := client.New(client.Config{
				Addresses: append(all[i%3:], all[:i%3]...), Token: testcluster.Token, Product: "bench-test", HTTPClient: c.HTTP,
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Clients = append(c.Clients, one)
		}
		test(t, cl, c)
	})
}

// left fails unless nothing of a run waits or works any more, and gives the number of shipped jobs.
func left(t *testing.T, c Config) (shipped int64) {
	t.Helper()
	stats, err := c.Clients[0].Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for stage, n := range stats.Stages {
		if !stage.Terminal() && n > 0 {
			t.Errorf("got %d jobs left %s, want none", n, stage)
		}
	}
	if n := stats.Factories[fleet.HealthOK] + stats.Factories[fleet.HealthDegraded]; n > 0 {
		t.Errorf("got %d factories that would claim, want none", n)
	}
	return stats.Stages[fleet.Shipped]
}

// counts are the successes of each operation.
func counts(r *Result) string {
	var all []string
	for _, o := range r.Operations {
		all = append(all, fmt.Sprintf("%s %d", o.Name, o.Count))
	}
	return strings.Join(all, ", ")
}

// Every kind does what it is asked for exactly so often, and leaves nothing unfinished.
func TestKinds(t *testing.T) {
	for _, k := range []struct {
		kind    Kind
		count   int64
		backlog int
		want    string
		jobs    int64 // that went through what the kind does
		made    int64 // that are there at the end
	}{
		{Cycle, 10, 0, "submit 10, claim 10, patch 20, cycle 10", 10, 10},
		{Cycle, 10, 5, "submit 10, claim 10, patch 20, cycle 10", 10, 15},
		{Submit, 10, 2, "submit 10", 10, 12},
		{Claim, 10, 25, "claim 10", 10, 25},
		{Claim, 30, 25, "claim 25", 25, 25}, // the backlog is used up
		{Heartbeat, 10, 0, "heartbeat 10", 0, 0},
		{Feed, 10, 0, "submit 10, event 40", 10, 11}, // one job finds out whether all readers are there
		{Batch, 10, 3, "submit batch 10, claim batch 10, report batch 10, cycle 10", 80, 83},
	} {
		t.Run(fmt.Sprintf("%s %d", k.kind, k.backlog), func(t *testing.T) {
			inCluster(t, func(t *testing.T, cl *testcluster.Cluster, c Config) {
				c.Kind, c.Count, c.Backlog = k.kind, k.count, k.backlog
				r, err := Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if got := counts(r); got != k.want || r.Jobs != k.jobs || r.Errors != 0 {
					t.Errorf("got %s with %d jobs and %d errors, want %s with %d and none", got, r.Jobs, r.Errors, k.want, k.jobs)
				}
				if made := left(t, c); made != k.made {
					t.Errorf("got %d shipped jobs in the end, want %d", made, k.made)
				}
				if r.Cluster == nil || len(r.Cluster.Nodes) != 3 || r.Cluster.Leader == "" {
					t.Errorf("got the cluster %+v, want three nodes and a leader", r.Cluster)
				}
			})
		})
	}
}

// A leader that vanishes costs no call, only time, and the longest gap says how much.
func TestLeaderVanishes(t *testing.T) {
	inCluster(t, func(t *testing.T, cl *testcluster.Cluster, c Config) {
		c.Kind, c.Duration = Cycle, 15*time.Second
		leader := cl.Leader(t)
		time.AfterFunc(5*time.Second, func() { cl.Isolate(leader) })
		r, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		cycles := r.Operations[len(r.Operations)-1]
		if r.Errors != 0 || cycles.Name != "cycle" || cycles.GapSeconds < 0.5 || cycles.GapSeconds > 15 {
			t.Errorf("got %d errors and the gap %v s, want none and about an election", r.Errors, cycles.GapSeconds)
		}
		if r.ElapsedSeconds < 15 || r.ElapsedSeconds > 30 {
			t.Errorf("got a load of %v s, want 15", r.ElapsedSeconds)
		}
		left(t, c)
	})
}

// Whoever interrupts a run sees what was measured so far, and nothing is left.
func TestInterrupted(t *testing.T) {
	enough := errors.New("enough")
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			inCluster(t, func(t *testing.T, cl *testcluster.Cluster, c Config) {
				ctx, interrupt := context.WithCancelCause(t.Context())
				c.Kind, c.Count, c.Backlog = kind, 1_000_000_000, 3000
				time.AfterFunc(time.Second, func() { interrupt(enough) })
				r, err := Run(ctx, c)
				if !errors.Is(err, enough) {
					t.Errorf("got the error %v, want the one that interrupted", err)
				}
				if r == nil || !r.Interrupted {
					t.Fatalf("got %+v, want an interrupted run", r)
				}
				n := r.Operations[0].Count
				if want := fmt.Sprintf("submit %d, claim %d, patch %d, cycle %d", n, n, 2*n, n); kind == Cycle && counts(r) != want {
					t.Errorf("got %s, want %s: what was begun is finished", counts(r), want)
				}
				left(t, c)
			})
		})
	}
}

// A product in which somebody works is refused, and so is somebody who comes while the load runs: no job but the run's own
// is touched.
func TestInUse(t *testing.T) {
	inCluster(t, func(t *testing.T, cl *testcluster.Cluster, c Config) {
		mine := c.Clients[0]
		first, err := mine.Submit(t.Context(), fleet.Submission{BodyMd: "work", Priority: fleet.Critical})
		if err != nil {
			t.Fatal(err)
		}
		c.Kind, c.Count = Cycle, 10
		if r, err := Run(t.Context(), c); r != nil || err == nil || !strings.Contains(err.Error(), "1 unfinished jobs and 0 factories") {
			t.Errorf("got %v, %v, want a refusal", r, err)
		}
		if _, err := mine.Cancel(t.Context(), first.Job.ID, ""); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []Kind{Cycle, Claim, Batch, Submit} {
			c.Kind, c.Count, c.Backlog = kind, 100, 50
			var ids []string
			c.Progress = func(text string) {
				if len(ids) > 0 || !strings.HasPrefix(text, "queueing") {
					return
				}
				for range 2 {
					r, err := mine.Submit(t.Context(), fleet.Submission{BodyMd: "work", Priority: fleet.Critical})
					if err != nil {
						t.Error(err)
						return
					}
					ids = append(ids, r.Job.ID)
				}
			}
			_, err := Run(t.Context(), c)
			if kind != Submit && !errors.As(err, new(*intruder)) {
				t.Errorf("%s: got %v, want to hear of the intruder", kind, err)
			}
			for _, id := range ids {
				if job, err := mine.Job(t.Context(), id); err != nil || job.Stage != fleet.Queued {
					t.Errorf("%s: got the job %+v, %v, want it queued as before", kind, job, err)
				}
				if _, err := mine.Cancel(t.Context(), id, ""); err != nil {
					t.Error(err)
				}
			}
			left(t, c)
		}
	})
}

// Bodies have the size that was asked for, and differ, or a cluster would keep them once.
func TestBodies(t *testing.T) {
	for _, size := range []int{1, 15, 16, 17, 1024, MaxSize} {
		b, seen := newBodies(size), map[string]bool{}
		for range 3 {
			body := b.next()
			if len(body) != size {
				t.Errorf("got %d bytes, want %d", len(body), size)
			}
			seen[body] = true
		}
		if size >= 16 && len(seen) != 3 {
			t.Errorf("%d bytes: got %d different bodies of 3", size, len(seen))
		}
		if n := PerCall(size); n < 1 || n > fleet.MaxBatch || n > 1 && n*(size+1024) > fleet.MaxBatchBody {
			t.Errorf("%d bytes: got %d jobs a call", size, n)
		}
	}
}
