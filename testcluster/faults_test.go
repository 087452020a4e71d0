package testcluster_test

// This file tests in virtual time that whole clusters survive what happens to them: nothing acknowledged is lost, nothing refused is done.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// writers submit jobs by all nodes, one after the other each, and remember what they were told.
type writers struct {
	c     *testcluster.Cluster
	every time.Duration
	stop  chan struct{}
	wait  sync.WaitGroup

	mu      sync.Mutex       // guards told
	told    map[string]error // by job id: nil is acknowledged
	longest time.Duration
}

func write(c *testcluster.Cluster, n int) *writers { return writeEvery(5*time.Millisecond, c, n) }

func writeEvery(every time.Duration, c *testcluster.Cluster, n int) *writers {
	w := &writers{c: c, every: every, stop: make(chan struct{}), told: map[string]error{}}
	for i := range n {
		w.wait.Go(func() { w.run(i) })
	}
	return w
}

func (w *writers) run(writer int) {
	for k := 0; ; k++ {
		select {
		case <-w.stop:
			return
		case <-time.After(w.every):
		}
		node := w.c.Node((writer + k) % w.c.Size())
		if node == nil || isClosed(node.Draining()) {
			continue
		}
		id := fmt.Sprintf("w%d-%d", writer, k)
		s := fleet.Submission{BodyMd: id}
		s.Normalize()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		began := time.Now()
		a, err := node.Propose(ctx, fsm.Proposal{
			Caller:  fsm.Caller{Actor: fsm.ActorRoot},
			Command: &fsm.Submit{ProductID: testcluster.Product, JobID: id, Submission: s},
		})
		cancel()
		if err == nil && a.Err != nil {
			err = a.Err
		}
		w.mu.Lock()
		w.told[id] = err
		w.longest = max(w.longest, time.Since(began))
		w.mu.Unlock()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// end stops the writers and holds what they were told against what the cluster has.
func (w *writers) end(t *testing.T) (acknowledged, unknown int) {
	t.Helper()
	close(w.stop)
	w.wait.Wait()
	w.c.Converged(t)
	has := map[string]bool{}
	w.c.Node(w.c.Leader(t)).View(func(v fsm.View) {
		for id := range w.told {
			_, has[id] = v.Job(testcluster.Product, id)
		}
	})
	for id, err := range w.told {
		switch {
		case err == nil:
			if acknowledged++; !has[id] {
				t.Errorf("job %s was acknowledged, and is lost", id)
			}
		case errors.Is(err, fleet.NoLeader):
			if has[id] {
				t.Errorf("job %s was answered with no_leader, and is there", id)
			}
		case errors.Is(err, fleet.OutcomeUnknown), errors.Is(err, context.DeadlineExceeded):
			unknown++
		default:
			t.Errorf("job %s: got %v", id, err)
		}
	}
	return acknowledged, unknown
}

// The followers find out what became of every call that a dead leader took with it: it is done once, or done again, and the client
// sees nothing of it.
func TestLeaderKillLosesNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		w := write(c, 8)
		for range 5 {
			time.Sleep(300 * time.Millisecond)
			leader := c.Leader(t)
			c.Kill(t, leader)
			c.Leader(t)
			time.Sleep(300 * time.Millisecond)
			c.Restart(t, leader)
			c.Ready(t)
		}
		acknowledged, unknown := w.end(t)
		// Only calls of the killed node's own clients, who are gone with it, may be left open: at most as many as there are writers.
		killed := 0
		for _, err := range w.told {
			if errors.Is(err, fleet.OutcomeUnknown) && !isNodeStopped(err) {
				t.Errorf("got %v, want every outcome to be known but those of the killed node itself", err)
			} else if err != nil {
				killed++
			}
		}
		if acknowledged < 300 {
			t.Errorf("%d calls were acknowledged, want many more", acknowledged)
		}
		t.Logf("%d acknowledged, %d unknown, %d of the killed nodes themselves, the slowest took %v", acknowledged, unknown, killed, w.longest)
	})
}

func isNodeStopped(err error) bool {
	var e *fleet.Error
	return errors.As(err, &e) && e.Code == fleet.OutcomeUnknown && len(e.Detail) >= 16 && e.Detail[:16] == "the node stopped"
}

// Partitions, pauses and kills, one after the other, with writes in flight: no acknowledged write is lost, none that was turned away is
// done, no call hangs, and all nodes end in one state.
func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				c := testcluster.Start(t, 3)
				w := write(c, 5)
				for range 12 {
					time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
					i := random.IntN(3)
					hold := time.Duration(random.IntN(3000)) * time.Millisecond
					switch random.IntN(4) {
					case 0:
						c.Isolate(i)
						time.Sleep(hold)
						c.Heal()
					case 1:
						c.Isolate(c.Leader(t))
						time.Sleep(hold)
						c.Heal()
					case 2:
						c.Pause(t, i)
						time.Sleep(hold)
						c.Resume(t, i)
					case 3:
						c.Kill(t, i)
						time.Sleep(hold)
						c.Restart(t, i)
					}
				}
				time.Sleep(3 * time.Second)
				acknowledged, unknown := w.end(t)
				if acknowledged < 300 {
					t.Errorf("%d calls were acknowledged, want many more", acknowledged)
				}
				t.Logf("%d acknowledged, %d unknown, the slowest took %v", acknowledged, unknown, w.longest)
			})
		})
	}
}

// What flaps every fraction of a second ends well too.
func TestFlappingLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		w := write(c, 6)
		for i := range 40 {
			c.Isolate(i % 3)
			time.Sleep(time.Duration(100+i*37%900) * time.Millisecond)
			c.Heal()
			time.Sleep(50 * time.Millisecond)
		}
		c.Leader(t)
		w.end(t)
	})
}

// A cut-off leader's clients hear within their time, and never get a read from it.
func TestMinorityServesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		old := c.Leader(t)
		c.Isolate(old)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := c.Node(old).Read(ctx, 0, 0, func(fsm.View) { t.Error("a leader that is cut off answered a linearizable read") })
		if !errors.Is(err, fleet.NoLeader) || time.Since(began) > 5*time.Second {
			t.Errorf("reading there: got %v after %v, want %v within 5 s", err, time.Since(began), fleet.NoLeader)
		}
		began = time.Now()
		_, err = c.Node(old).Propose(ctx, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Noop{}})
		if !errors.Is(err, fleet.NoLeader) || time.Since(began) > 5*time.Second {
			t.Errorf("writing there: got %v after %v, want %v within 5 s", err, time.Since(began), fleet.NoLeader)
		}
	})
}

// A leader that is paused and wakes again serves nothing old.
func TestPausedLeaderWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		old := c.Leader(t)
		c.Pause(t, old)
		if now := c.Leader(t); now == old {
			t.Fatal("the paused node leads")
		}
		job := c.Submit(t, fleet.Submission{BodyMd: "x"})
		c.Resume(t, old)
		err := c.Node(old).Read(t.Context(), 0, 0, func(v fsm.View) {
			if _, found := v.Job(testcluster.Product, job.ID); !found {
				t.Error("the node that was paused answered a linearizable read without the job")
			}
		})
		if err != nil {
			t.Errorf("reading there: %v", err)
		}
		c.Converged(t)
	})
}

// A node whose disk was lost comes back as a new server and votes; its old self is removed.
func TestWipedNodeRejoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		job := c.Submit(t, fleet.Submission{BodyMd: "x"})
		w := write(c, 4)
		for i := range 3 {
			c.Kill(t, i)
			c.Wipe(t, i)
			c.Restart(t, i)
			c.Ready(t)
		}
		if _, unknown := w.end(t); unknown > 12 {
			t.Errorf("%d outcomes are unknown, want at most those of the killed nodes", unknown)
		}
		if got := c.Job(t, job.ID); got.Stage != fleet.Queued {
			t.Errorf("job after every disk was replaced: got %s, want queued", got.Stage)
		}
		s, err := c.Node(0).Status(t.Context())
		if err != nil || len(s.Nodes) != 3 {
			t.Errorf("status: got %+v, %v, want three servers", s, err)
		}
	})
}

// A fourth and a fifth node join as non-voters and are promoted; then two may die.
func TestClusterGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		w := write(c, 4)
		c.Add(t)
		c.Ready(t)
		c.Add(t)
		c.Ready(t)
		c.Kill(t, c.Leader(t))
		c.Kill(t, c.Leader(t))
		c.Leader(t)
		w.end(t)
	})
}

// A rolling restart with SIGTERM: leadership is handed over first, so no call fails and none waits for an election.
func TestRollingShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		w := write(c, 6)
		for i := range 3 {
			time.Sleep(100 * time.Millisecond)
			c.Shutdown(t, i)
			time.Sleep(100 * time.Millisecond)
			c.Restart(t, i)
			c.Ready(t)
		}
		w.end(t)
		for id, err := range w.told {
			if err != nil {
				t.Errorf("job %s: got %v, want no call to fail", id, err)
			}
		}
		if w.longest > 200*time.Millisecond {
			t.Errorf("the slowest call took %v, want no wait for an election", w.longest)
		}
	})
}

// A node whose log ended in entries that were never committed is ready again once it has what the others have, though nothing new comes.
func TestReadyAfterALostEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		old := c.Leader(t)
		c.Isolate(old)
		for range 5 { // into the log of the cut-off leader alone, one entry each
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, _ = c.Node(old).Propose(ctx, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Noop{}})
			cancel()
		}
		c.Kill(t, old)
		c.Leader(t)
		c.Heal()
		c.Restart(t, old)
		c.Ready(t)
		c.Converged(t)
	})
}

// An idle cluster writes nothing to the log.
func TestIdleClusterWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		c.Submit(t, fleet.Submission{BodyMd: "x"})
		time.Sleep(10 * time.Second)
		index := func() (i uint64) {
			c.Node(0).View(func(v fsm.View) { i = v.Index() })
			return i
		}
		before := index()
		time.Sleep(5 * time.Minute)
		if now := index(); now != before {
			t.Errorf("five idle minutes wrote %d entries, want none", now-before)
		}
	})
}

// The same over real sockets and disks.
func TestRealSocketsAndDisks(t *testing.T) {
	c := testcluster.StartReal(t, 3)
	w := write(c, 4)
	c.Kill(t, c.Leader(t))
	c.Leader(t)
	for i := range c.Size() {
		if c.Node(i) == nil {
			c.Restart(t, i)
		}
	}
	c.Ready(t)
	c.Pause(t, 0)
	c.Leader(t)
	c.Resume(t, 0)
	c.Ready(t)
	w.end(t)
}

// A leader that stops waits for no answer of a node that says nothing.
func TestLeaderStopsBesideASilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		leader := c.Leader(t)
		c.Pause(t, (leader+1)%3)
		time.Sleep(time.Second)
		began := time.Now()
		c.Shutdown(t, leader)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the leader stopped after %s, want 5 s at most", took)
		}
		c.Resume(t, (leader+1)%3)
	})
}

// Whenever the leader is cut off while it restores a backup that another node sent, that node's caller is told something in time.
func TestLeaderIsCutOffWhileItRestores(t *testing.T) {
	for after := time.Duration(0); after <= 3*time.Second; after += 250 * time.Millisecond {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, func(c *cluster.Config) { c.Timing = cluster.TimingWAN })
				c.Submit(t, fleet.Submission{BodyMd: "x"})
				leader := c.Leader(t)
				asked := (leader + 1) % 3
				var backup bytes.Buffer
				if err := c.Node(asked).WriteSnapshot(t.Context(), &backup); err != nil {
					t.Fatal(err)
				}
				c.Network().Delay(fmt.Sprintf("n%d", leader+1), fmt.Sprintf("n%d", asked+1), 200*time.Millisecond) // so that it takes a while
				go func() {
					time.Sleep(after)
					c.Isolate(leader)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				began := time.Now()
				_, err := c.Node(asked).Restore(ctx, &backup, 0)
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s", took)
				}
				if err != nil && !errors.Is(err, fleet.OutcomeUnknown) && !errors.Is(err, fleet.NoLeader) {
					t.Error(err)
				}
				c.Heal()
			})
		})
	}
}

// A claim whose time is over while there is a job that another one was woken for does not say, of that state, that there was nothing (I11).
func TestTimeIsOverWhileAnotherIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, func(c *cluster.Config) { c.Timing = cluster.TimingWAN })
		leader := c.Leader(t)
		follower := (leader + 1) % 3
		c.Factory(t, "f")
		claim := func(wait time.Duration) <-chan fsm.Answer {
			answer := make(chan fsm.Answer, 1)
			go func() {
				a, err := c.Node(follower).Claim(t.Context(), fsm.Proposal{
					Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Claim{ProductID: testcluster.Product, FactoryID: "f", LeaseSeconds: 60},
				}, wait)
				if err != nil {
					t.Error(err)
				}
				answer <- a
			}()
			synctest.Wait()
			return answer
		}
		time.Sleep(time.Second)
		began := time.Now()
		first, second := claim(time.Minute), claim(10*time.Second)
		time.Sleep(9 * time.Second)
		c.Network().Delay(fmt.Sprintf("n%d", leader+1), fmt.Sprintf("n%d", follower+1), 400*time.Millisecond)
		time.Sleep(300 * time.Millisecond)
		s := fleet.Submission{BodyMd: "x"}
		s.Normalize()
		submitted, err := c.Node(leader).Propose(t.Context(), fsm.Proposal{
			Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Submit{ProductID: testcluster.Product, JobID: "x", Submission: s},
		})
		if err != nil || submitted.Err != nil {
			t.Fatal(err, submitted.Err)
		}
		got := <-second // the first one's claim is on its way to the leader
		if took := time.Since(began).Round(time.Second); took != 10*time.Second || got.Result.(*fleet.Claim).Job != nil {
			t.Fatalf("the second waiter got %v after %s, want nothing after 10 s", got, took)
		}
		granted := <-first
		if granted.Result.(*fleet.Claim).Job == nil || granted.Index <= submitted.Index {
			t.Fatalf("the first waiter got %v, want the job", granted)
		}
		if got.Index >= submitted.Index && got.Index < granted.Index {
			t.Errorf("I11: there was nothing to claim at index %d, it said; a job was submitted at %d and granted at %d", got.Index, submitted.Index, granted.Index)
		}
	})
}
