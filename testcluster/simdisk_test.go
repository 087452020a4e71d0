package testcluster_test

// This file tests in virtual time that a cluster survives its disks: power cuts, errors, hangs and slowness.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// The power of one node, of some, or of all goes at once with writes in flight, again and again, while logs rotate and snapshots are
// written: nothing acknowledged is lost.
func TestPowerCutsLoseNothing(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 7))
				c := testcluster.Start(t, 3, testcluster.SimDisks(seed), func(c *cluster.Config) { c.SnapshotBytes = 20 << 10 })
				w := writeEvery(80*time.Millisecond, c, 6)
				for range 8 {
					time.Sleep(time.Duration(random.IntN(6000)) * time.Millisecond)
					which := random.Perm(3)[:1+random.IntN(3)]
					if random.IntN(3) == 0 {
						c.Kill(t, which[0]) // and what it had not synced goes with the power
					}
					c.PowerCut(t, which...)
					time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
					for _, i := range which {
						c.Restart(t, i)
					}
				}
				time.Sleep(3 * time.Second)
				acknowledged, unknown := w.end(t)
				if acknowledged < 300 {
					t.Errorf("%d calls were acknowledged, want many more", acknowledged)
				}
				t.Logf("%d acknowledged, %d unknown", acknowledged, unknown)
			})
		})
	}
}

// One error of a disk ends its node, the leader or another, at whatever write: it neither acknowledges, votes nor serves any more, says why, and
// the others go on. Started again, it has lost nothing.
func TestDiskErrorEndsTheNode(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, testcluster.SimDisks(seed))
				w := write(c, 4)
				time.Sleep(500 * time.Millisecond)
				broken := (c.Leader(t) + int(seed)) % 3
				c.FailDisk(t, broken, 1+int(seed), []error{syscall.EIO, syscall.ENOSPC}[seed%2])
				if err := c.Ended(t, broken); !errors.Is(err, cluster.ErrStorage) {
					t.Errorf("it ended with %v, want %v", err, cluster.ErrStorage)
				}
				before := time.Now()
				c.Submit(t, fleet.Submission{BodyMd: "x"})
				if took := time.Since(before); took > 5*time.Second {
					t.Errorf("a write after it took %v", took)
				}
				c.Restart(t, broken)
				c.Ready(t)
				w.end(t)
			})
		})
	}
}

// After the error nothing of the node can be heard: no vote, no acknowledgement, no read, though it is not down yet for the others.
func TestDiskErrorSilencesTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, testcluster.SimDisks(1))
		leader := c.Leader(t)
		a, b := (leader+1)%3, (leader+2)%3
		c.FailDisk(t, a, 1, syscall.EIO)
		c.Submit(t, fleet.Submission{BodyMd: "x"}) // by the other two
		c.Until(t, "it ends", func() bool { return c.HasEnded(a) })
		c.PowerCut(t, b)
		if err := submit(t, c, leader); err == nil {
			t.Error("a write was acknowledged by one node of three")
		}
		if err := submit(t, c, a); err == nil {
			t.Error("the node with the broken disk took a write")
		}
		time.Sleep(10 * time.Second)
		for i := range 3 {
			if n := c.Node(i); n != nil && n.IsLeader() {
				t.Errorf("node %d leads, with one vote of three", i)
			}
		}
		c.Ended(t, a)
		c.Restart(t, a)
		c.Restart(t, b)
		c.Leader(t)
		c.Converged(t)
	})
}

// A leader whose disk hangs for ever ends, and writes go on within 15 s.
func TestLeadersDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, testcluster.SimDisks(1))
		w := write(c, 4)
		time.Sleep(500 * time.Millisecond)
		old := c.Leader(t)
		c.HangDisk(t, old)
		began := time.Now()
		c.Until(t, "a write is taken", func() bool { i := (old + 1) % 3; return submit(t, c, i) == nil })
		took := time.Since(began)
		if took > 15*time.Second {
			t.Errorf("writes went on after %v, want 15 s at most", took)
		}
		err := c.Ended(t, old)
		if !errors.Is(err, cluster.ErrStorage) || !strings.Contains(err.Error(), "hangs") {
			t.Errorf("it ended with %v, want %v: a write hangs", err, cluster.ErrStorage)
		}
		c.Restart(t, old)
		c.Ready(t)
		w.end(t)
		t.Logf("writes went on after %v", took)
	})
}

// A follower whose disk hangs for less than the watchdog allows is replicated to again; one that hangs for longer ends, and is once it is started.
func TestFollowersDiskHangs(t *testing.T) {
	for _, long := range []time.Duration{8 * time.Second, 30 * time.Second} {
		t.Run(long.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, testcluster.SimDisks(1))
				w := writeEvery(20*time.Millisecond, c, 4)
				follower := (c.Leader(t) + 1) % 3
				c.HangDisk(t, follower)
				time.Sleep(long)
				c.ResumeDisk(t, follower)
				if long > 10*time.Second {
					if err := c.Ended(t, follower); !errors.Is(err, cluster.ErrStorage) {
						t.Errorf("it ended with %v, want %v", err, cluster.ErrStorage)
					}
					c.Restart(t, follower)
				}
				c.Ready(t)
				w.end(t) // all three hold the same
			})
		})
	}
}

// A slow disk under one follower changes nothing for those who write.
func TestSlowFollowersDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3, testcluster.SimDisks(1))
		for i := range 3 {
			c.SlowDisk(t, i, time.Millisecond, 3*time.Millisecond)
		}
		leader := c.Leader(t)
		p99 := func() time.Duration {
			var took []time.Duration
			for range 400 {
				began := time.Now()
				if err := submit(t, c, leader); err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(began))
				time.Sleep(5 * time.Millisecond)
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		}
		before := p99()
		c.SlowDisk(t, (leader+1)%3, 50*time.Millisecond, 500*time.Millisecond)
		after := p99()
		if after > before*3/2 {
			t.Errorf("p99 of writes: got %v with a slow follower, want about %v", after, before)
		}
		if now := c.Leader(t); now != leader {
			t.Errorf("node %d leads now, want %d still", now, leader)
		}
		c.SlowDisk(t, (leader+1)%3, 0, 0)
		c.Ready(t)
		c.Converged(t)
		t.Logf("p99 of writes: %v, with a slow follower %v", before, after)
	})
}

// A follower that fails while it cuts off entries that were never committed acknowledges nothing above the hole.
func TestFailedTruncationLeavesNoHole(t *testing.T) {
	for n := range 8 {
		t.Run(fmt.Sprintf("operation=%d", n+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, testcluster.SimDisks(uint64(n)))
				old := c.Leader(t)
				c.Isolate(old)
				for range 5 {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					_, _ = c.Node(old).Propose(ctx, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Noop{}}) // into its own log only
					cancel()
				}
				c.Leader(t)
				for range 5 {
					c.Submit(t, fleet.Submission{BodyMd: "x"})
				}
				c.FailDisk(t, old, n+1, syscall.EIO)
				c.Heal()
				if err := c.Ended(t, old); !errors.Is(err, cluster.ErrStorage) {
					t.Errorf("it ended with %v, want %v", err, cluster.ErrStorage)
				}
				c.Restart(t, old)
				c.Ready(t)
				c.Converged(t)
				log := c.Log(old)
				first, _ := log.FirstIndex()
				last, _ := log.LastIndex()
				for i := first; i <= last; i++ {
					var mine, theirs raft.Log
					if err := log.GetLog(i, &mine); err != nil {
						t.Fatalf("entry %d of %d: %v", i, last, err)
					}
					if err := c.Log((old+1)%3).GetLog(i, &theirs); err != nil || mine.Term != theirs.Term || string(mine.Data) != string(theirs.Data) {
						t.Errorf("entry %d is of term %d, and of term %d on another node, %v", i, mine.Term, theirs.Term, err)
					}
				}
			})
		})
	}
}

// fallBehind kills a follower, writes until the others' logs begin after its own end, and returns it.
func fallBehind(t *testing.T, c *testcluster.Cluster) (follower int) {
	t.Helper()
	leader := c.Leader(t)
	follower = (leader + 1) % 3
	last, err := c.Log(follower).LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	c.Kill(t, follower)
	c.Until(t, "the log it needs is gone", func() bool {
		c.Submit(t, fleet.Submission{BodyMd: strings.Repeat("x", 2000)})
		time.Sleep(100 * time.Millisecond) // the log is looked at every few seconds
		first, err := c.Log(c.Leader(t)).FirstIndex()
		return err == nil && first > last+1
	})
	return follower
}

// Every snapshot of the leader is damaged, or only its newest, when a follower needs one: the leader writes another, and the follower, which kept what
// it had, gets that.
func TestDamagedSnapshotIsReplacedForAFollower(t *testing.T) {
	for _, file := range []string{"state.bin", "meta.json"} {
		t.Run(file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, testcluster.SimDisks(3), func(c *cluster.Config) { c.SnapshotBytes = 50 << 10 })
				follower := fallBehind(t, c)
				leader := c.Leader(t)
				if n := c.Disk(leader).Damage(func(path string) bool { return strings.HasSuffix(path, file) }); n == 0 {
					t.Fatal("there was nothing to damage")
				}
				began := time.Now()
				c.Restart(t, follower)
				if c.HasEnded(follower) {
					t.Errorf("the follower ended: %v", c.Node(follower).Err())
				}
				c.Ready(t)
				c.Converged(t)
				if now := c.Leader(t); now != leader {
					t.Errorf("node %d leads now, want %d still", now, leader)
				}
				t.Logf("all nodes hold the same after %v", time.Since(began))
			})
		})
	}
}

// The transfer of a snapshot ends midway, with its sender or its receiver, or stalls with the link, at any part of it: the follower has what it
// had, and gets the whole in the end.
func TestSnapshotTransferIsCut(t *testing.T) {
	for i, percent := range []int{1, 30, 60, 75, 90, 99} {
		t.Run(fmt.Sprintf("percent=%d", percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3, testcluster.SimDisks(uint64(percent)), func(c *cluster.Config) { c.SnapshotBytes = 50 << 10 })
				follower := fallBehind(t, c)
				leader := c.Leader(t)
				var size atomic.Int64
				c.Disk(leader).OnSnapshot(func(written int) { size.Store(int64(written)) })
				c.Until(t, "a snapshot is written", func() bool {
					c.Submit(t, fleet.Submission{BodyMd: strings.Repeat("x", 2000)})
					time.Sleep(100 * time.Millisecond)
					return size.Load() > 0
				})
				c.Disk(leader).OnSnapshot(nil)
				reached, goOn := make(chan struct{}), make(chan struct{})
				once := sync.OnceFunc(func() { close(reached); <-goOn })
				c.Disk(follower).OnSnapshot(func(written int) {
					if int64(written) >= size.Load()*int64(percent)/100 {
						once()
					}
				})
				c.Restart(t, follower)
				<-reached
				switch i % 3 {
				case 0:
					c.Kill(t, leader)
					close(goOn)
					time.Sleep(3 * time.Second)
					c.Restart(t, leader)
				case 1:
					c.Isolate(follower)
					close(goOn)
					time.Sleep(15 * time.Second)
					c.Heal()
				case 2:
					close(goOn)
					c.PowerCut(t, follower)
					c.Restart(t, follower)
				}
				c.Ready(t)
				c.Converged(t)
			})
		})
	}
}
