package testcluster_test

// This file tests in virtual time what a cluster does as its disks fill, and that it goes on by itself once there is room again.

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

const (
	reserve = 32 << 20
	scarce  = reserve - 1   // below the reserve
	dire    = reserve/2 - 1 // below half of it
	plenty  = 1 << 40
)

// at gives a command to one node.
func at(t *testing.T, c *testcluster.Cluster, i int, command fsm.Command) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := c.Node(i).Propose(ctx, fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: command})
	if err == nil && a.Err != nil {
		return a.Err
	}
	return err
}

func submission() fleet.Submission {
	s := fleet.Submission{BodyMd: "x"}
	s.Normalize()
	return s
}

// submit submits a job through one node. Its id is new for a time: no call comes at the time of another.
func submit(t *testing.T, c *testcluster.Cluster, i int) error {
	t.Helper()
	return at(t, c, i, &fsm.Submit{ProductID: testcluster.Product, JobID: time.Now().Format(time.RFC3339Nano) + c.Node(i).Name(), Submission: submission()})
}

// refused waits until every node that is up turns a submission away with disk_full.
func refused(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	c.Until(t, "all nodes answer disk_full", func() bool {
		for i := range c.Size() {
			err := submit(t, c, i)
			var full *fleet.Error
			if !errors.As(err, &full) || full.Code != fleet.DiskFull {
				return false
			}
			if full.RetryAfterSeconds < 1 {
				t.Fatalf("got %+v, want it to say when to come again", full)
			}
		}
		return true
	})
}

// One full disk: the node says so and gives up leadership, and nothing else changes, whatever fails then.
func TestOneDiskFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		full := c.Leader(t)
		w := write(c, 4)
		c.SetDiskFree(full, scarce)
		c.Until(t, "it says so", func() bool { err := c.Node(full).Ready(); return err != nil && err.Error() == "disk" })
		c.Until(t, "another one leads", func() bool { return !c.Node(full).IsLeader() && c.Leader(t) != full })
		leader := c.Leader(t)
		err := c.Node(leader).TransferLeadership(t.Context(), c.Node(full).Name())
		if !errors.Is(err, fleet.DiskFull) {
			t.Errorf("handing leadership to it: got %v, want %v", err, fleet.DiskFull)
		}
		for range 4 {
			if err := c.Node(c.Leader(t)).TransferLeadership(t.Context(), ""); err != nil {
				t.Errorf("handing leadership to any: %v", err)
			}
			time.Sleep(5 * time.Second)
			if c.Leader(t) == full {
				t.Error("the node with the full disk was made leader")
			}
		}
		c.SetDiskFree(full, plenty)
		c.Ready(t)
		acknowledged, _ := w.end(t) // none of its answers is disk_full
		if acknowledged < 300 {
			t.Errorf("%d calls were acknowledged, want many more", acknowledged)
		}
		if err := c.Node(c.Leader(t)).TransferLeadership(t.Context(), c.Node(full).Name()); err != nil {
			t.Errorf("handing leadership to it once it has room: %v", err)
		}
	})
}

// No election makes a node leader that is short of room, as long as others can lead. If none can, it leads.
func TestFullDiskIsNotElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 5)
		leader := c.Leader(t)
		full := (leader + 1) % 5
		c.SetDiskFree(full, scarce)
		c.Until(t, "it says so", func() bool { return c.Node(full).Ready() != nil })
		for range 6 {
			leader := c.Leader(t)
			c.Kill(t, leader)
			c.Until(t, "another one leads", func() bool {
				if c.Node(full).IsLeader() {
					t.Fatal("the node with the full disk was made leader")
				}
				for i := range c.Size() {
					if n := c.Node(i); n != nil && n.IsLeader() {
						return true
					}
				}
				return false
			})
			c.Restart(t, leader)
			time.Sleep(10 * time.Second)
		}
		for i := range c.Size() {
			c.SetDiskFree(i, scarce)
		}
		c.Until(t, "no node is ready", func() bool {
			for i := range c.Size() {
				if c.Node(i).Ready() == nil {
					return false
				}
			}
			return true
		})
		c.Kill(t, c.Leader(t))
		c.Leader(t)
	})
}

// Full disks on two of three: new work is refused, what goes on with work is not, until half the reserve is gone. All works again
// once there is room.
func TestTwoDisksFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		f := c.Factory(t, "f1")
		for range 3 {
			c.Submit(t, fleet.Submission{BodyMd: "x"})
		}
		held := f.Claim(t, 5*time.Minute)
		leader := c.Leader(t)
		a, b := (leader+1)%3, (leader+2)%3
		c.SetDiskFree(a, scarce)
		c.SetDiskFree(b, scarce)
		refused(t, c)
		epoch := held.Lease.LeaseEpoch
		product, job := testcluster.Product, held.Job.ID
		for i := range 3 { // through every node, whatever is refused at the same time
			for name, command := range map[string]fsm.Command{
				"submit":   &fsm.Submit{ProductID: product, JobID: "n1", Submission: submission()},
				"batch":    &fsm.SubmitBatch{ProductID: product, JobIDs: []string{"n2"}, Submissions: []fleet.Submission{submission()}},
				"comment":  &fsm.Comment{ProductID: product, JobID: job, Data: fleet.JSON(`{"text":"x"}`)},
				"artifact": &fsm.AddArtifact{ProductID: product, JobID: job, Request: fleet.ArtifactRequest{LeaseEpoch: &epoch}},
				"profile":  &fsm.PutProfile{ProductID: product, Name: "p", Snapshot: fleet.JSON(`{}`)},
			} {
				if err := at(t, c, i, command); !errors.Is(err, fleet.DiskFull) {
					t.Errorf("%s through node %d: got %v, want %v", name, i, err, fleet.DiskFull)
				}
			}
			seats := int64(16)
			for name, command := range map[string]fsm.Command{
				"heartbeat": &fsm.Heartbeat{ProductID: product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats}},
				"renew":     &fsm.Renew{ProductID: product, JobID: job, LeaseEpoch: epoch},
				"PATCH":     &fsm.Patch{ProductID: product, JobID: job, Report: fleet.Report{LeaseEpoch: &epoch}},
			} {
				if err := at(t, c, i, command); err != nil {
					t.Errorf("%s through node %d: %v, want it to go on", name, i, err)
				}
			}
		}
		if err := at(t, c, a, &fsm.Release{ProductID: product, JobID: job, LeaseEpoch: epoch}); err != nil {
			t.Errorf("releasing: %v, want it to go on", err)
		}
		if err := at(t, c, b, &fsm.Cancel{ProductID: product, JobID: job}); err != nil {
			t.Errorf("cancelling: %v, want it to go on", err)
		}

		held = f.Claim(t, 30*time.Second)
		c.SetDiskFree(a, dire)
		c.SetDiskFree(b, dire)
		c.Until(t, "a renewal is refused too", func() bool {
			return errors.Is(f.Renew(t, held.Lease), fleet.DiskFull)
		})
		time.Sleep(2 * time.Minute)
		if j := c.Job(t, held.Job.ID); j.Stage != fleet.Assigned {
			t.Errorf("a lease was reaped without room: got %+v", j)
		}

		for i := range 3 {
			c.SetDiskFree(i, plenty)
		}
		c.Ready(t)
		c.Until(t, "a job can be submitted", func() bool {
			return submit(t, c, a) == nil
		})
		c.Until(t, "the lease that ran out is reaped", func() bool { return c.Job(t, held.Job.ID).Stage == fleet.Queued })
		c.Converged(t)
	})
}

// New work that is refused holds up nothing else, though both come through one follower at once.
func TestRefusalsHoldNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		c.Factory(t, "f1")
		for i := range 3 {
			c.SetDiskFree(i, scarce)
		}
		refused(t, c)
		follower := (c.Leader(t) + 1) % 3
		end := time.Now().Add(10 * time.Second)
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for ; time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
					if err := submit(t, c, follower); !errors.Is(err, fleet.DiskFull) {
						t.Errorf("submitting: got %v, want %v", err, fleet.DiskFull)
					}
				}
			})
			wait.Go(func() {
				for ; time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
					began, seats := time.Now(), int64(16)
					err := at(t, c, follower, &fsm.Heartbeat{ProductID: testcluster.Product, Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats}})
					if took := time.Since(began); err != nil || took > 200*time.Millisecond {
						t.Errorf("heartbeat: got %v after %v, want it to be taken at once", err, took)
					}
				}
			})
		}
		wait.Wait()
	})
}

// A node alone has nobody to hand over to: it refuses new work, and goes on when it can. So does one whose only voter with room is dead.
func TestFullWithoutAQuorumOfRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := testcluster.Start(t, 1)
		one.SetDiskFree(0, scarce)
		refused(t, one)
		one.SetDiskFree(0, plenty)
		one.Ready(t)
		one.Until(t, "it takes work", func() bool {
			return submit(t, one, 0) == nil
		})

		c := testcluster.Start(t, 3)
		leader := c.Leader(t)
		c.Kill(t, (leader+1)%3)
		c.SetDiskFree((leader+2)%3, scarce)
		c.Until(t, "the leader answers disk_full", func() bool {
			return errors.Is(submit(t, c, leader), fleet.DiskFull)
		})
		c.Restart(t, (leader+1)%3)
		c.Until(t, "it takes work", func() bool {
			return submit(t, c, c.Leader(t)) == nil
		})
	})
}
