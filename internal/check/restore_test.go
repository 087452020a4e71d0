package check_test

// This file restores backups in the middle of everything: what was granted before is fenced for ever.

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// A job's epoch never falls, over restores too (I3): whoever held it before a backup was restored is a stranger after it, though
// the backup knows nothing of its lease. All nodes end in one state, whoever dies on the way.
func TestRestoredBackupFencesUnderFaults(t *testing.T) {
	forSeeds(t, 30, func(t *testing.T, seed uint64, total *tally) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			rnd := rand.New(rand.NewPCG(seed, 3))
			c := testcluster.Start(t, 3, func(c *cluster.Config) { c.Timing = cluster.TimingLAN })
			c.Network().Seed(seed)
			var f *testcluster.Factory
			for range 4 {
				c.Submit(t, fleet.Submission{BodyMd: "x"})
			}
			var granted []*fleet.Lease // since the beginning
			work := func() {
				f = c.Factory(t, "f1") // a sign of life
				for range 1 + rnd.IntN(4) {
					claim := f.Claim(t, time.Minute)
					if claim.Job == nil {
						break
					}
					for _, l := range granted {
						if l.JobID == claim.Job.ID && l.LeaseEpoch >= claim.Lease.LeaseEpoch {
							t.Fatalf("I3: job %s was granted at epoch %d, and now at %d", l.JobID, l.LeaseEpoch, claim.Lease.LeaseEpoch)
						}
					}
					granted = append(granted, claim.Lease)
				}
				time.Sleep(time.Duration(rnd.IntN(150)) * time.Second) // some expire
			}
			work()
			for range 2 + rnd.IntN(3) {
				var backup bytes.Buffer
				if err := c.Node(rnd.IntN(3)).WriteSnapshot(t.Context(), &backup); err != nil {
					t.Fatalf("backing up: %v", err)
				}
				for range rnd.IntN(4) {
					work()
				}
				held := append([]*fleet.Lease(nil), granted...)
				victim, after := rnd.IntN(3), milliseconds(rnd, 0, 300)
				evil := rnd.IntN(4)
				evilDone := make(chan struct{})
				go func() {
					defer close(evilDone)
					time.Sleep(after)
					switch evil {
					case 1:
						c.Isolate(victim)
					case 2:
						c.Network().Disturb(name(victim), name((victim+1)%3), cluster.Disturbance{Delay: 50 * time.Millisecond, Jitter: 50 * time.Millisecond, Loss: 0.1})
					}
				}()
				result, err := c.Node(rnd.IntN(3)).Restore(t.Context(), bytes.NewReader(backup.Bytes()), 0)
				<-evilDone
				time.Sleep(time.Duration(rnd.IntN(10)) * time.Second)
				c.Heal()
				c.Network().Calm()
				total.mu.Lock()
				total.Faults["restore"]++
				if err != nil {
					total.Faults["restore with an unknown outcome"]++
				}
				total.mu.Unlock()
				for i := range 3 { // one that led, and could not confirm what it restored, has ended: it comes back as a new server
					if ended := c.Node(i).Err(); ended != nil {
						if !errors.Is(ended, cluster.ErrUnconfirmed) && !errors.Is(ended, cluster.ErrRemoved) {
							t.Fatalf("node %d ended: %v", i+1, ended)
						}
						c.Kill(t, i)
						c.Restart(t, i)
					}
				}
				c.Ready(t)
				c.Converged(t)
				if err != nil {
					if !errors.Is(err, fleet.OutcomeUnknown) && !errors.Is(err, fleet.NoLeader) {
						t.Fatalf("restoring: %v", err)
					}
					continue
				}
				if result.Generation == 0 {
					t.Fatalf("restoring: got %+v, want a generation", result)
				}
				for _, l := range held {
					if err := f.Renew(t, l); err == nil || !errors.Is(err, fleet.StaleEpoch) && !errors.Is(err, fleet.NotFound) {
						t.Fatalf("I4: a lease of job %s at epoch %d from before the restore: renewing it got %v, want %v", l.JobID, l.LeaseEpoch, err, fleet.StaleEpoch)
					}
				}
				work()
			}
			c.Converged(t)
			c.Node(0).View(func(v fsm.View) {
				for _, l := range granted {
					if now, ok := v.Lease(testcluster.Product, l.JobID); ok && now.LeaseEpoch < l.LeaseEpoch {
						t.Fatalf("I3: job %s fell from epoch %d to %d", l.JobID, l.LeaseEpoch, now.LeaseEpoch)
					}
				}
			})
			total.mu.Lock()
			defer total.mu.Unlock()
			total.Lasted += time.Since(began)
		})
	})
}
