package testcluster_test

// This file tests whole clusters in virtual time: what must hold when nodes die and links break.

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/testcluster"
)

// A job goes its way through any node, and every node ends in the same state.
func TestJobIsDoneThroughACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		job := c.Submit(t, fleet.Submission{BodyMd: "x", Capabilities: []string{"go"}})
		f := c.Factory(t, "f1", "go")
		claim := f.Claim(t, time.Minute)
		if claim.Job == nil || claim.Job.ID != job.ID {
			t.Fatalf("claim: got %+v, want job %s", claim.Job, job.ID)
		}
		done, err := f.Report(t, claim.Lease, fleet.Report{Stage: fleet.Shipped})
		if err != nil || done.Stage != fleet.Shipped {
			t.Fatalf("report: got %v, %v, want shipped", done, err)
		}
		c.Converged(t)
	})
}

// A factory that goes silent is fenced once the reaper runs, even if the leader dies in between.
func TestReaperSurvivesLeaderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		job := c.Submit(t, fleet.Submission{BodyMd: "x", Capabilities: []string{"go"}})
		silent := c.Factory(t, "f1", "go")
		lease := silent.Claim(t, time.Minute).Lease

		c.Kill(t, c.Leader(t))
		time.Sleep(3 * time.Minute) // virtual
		synctest.Wait()

		if err := silent.Renew(t, lease); !errors.Is(err, fleet.StaleEpoch) {
			t.Errorf("renewing after expiry: got %v, want %v", err, fleet.StaleEpoch)
		}
		if got := c.Job(t, job.ID); got.Stage != fleet.Queued || got.LeaseEpoch != 2 {
			t.Errorf("job: got %s at epoch %d, want queued at epoch 2", got.Stage, got.LeaseEpoch)
		}
	})
}

// A lease lives through an election: its holder could not renew while there was no leader.
func TestLeaseSurvivesAnElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		c.Submit(t, fleet.Submission{BodyMd: "x"})
		f := c.Factory(t, "f1")
		lease := f.Claim(t, 30*time.Second).Lease
		time.Sleep(29 * time.Second) // virtual
		c.Kill(t, c.Leader(t))
		c.Leader(t)
		time.Sleep(20 * time.Second) // virtual: past expiresAt, not past leaderSince + ttl
		if err := f.Renew(t, lease); err != nil {
			t.Errorf("renewing after an election: got %v, want no error", err)
		}
	})
}

// A leader that is cut off neither serves nor loses what the majority goes on with.
func TestCutOffLeaderRejoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		old := c.Leader(t)
		c.Isolate(old)
		c.Until(t, "the cut-off leader steps down", func() bool { return !c.Node(old).IsLeader() })
		c.Until(t, "the others have a leader", func() bool {
			for i := range c.Size() {
				if i != old && c.Node(i).IsLeader() {
					return true
				}
			}
			return false
		})
		c.Heal()
		c.Submit(t, fleet.Submission{BodyMd: "x"})
		c.Converged(t)
	})
}

// A node that was killed comes back with what was on its disk.
func TestKilledNodesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		job := c.Submit(t, fleet.Submission{BodyMd: "x"})
		for i := range c.Size() {
			c.Kill(t, i)
		}
		for i := range c.Size() {
			c.Restart(t, i)
		}
		if got := c.Job(t, job.ID); got.Stage != fleet.Queued {
			t.Errorf("job after all nodes were killed: got %s, want queued", got.Stage)
		}
		c.Converged(t)
	})
}
