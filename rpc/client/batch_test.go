package client_test

// This file tests many claims in one request, against a real cluster in virtual time.

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// forFour is a claim of up to four jobs.
func forFour(wait, lease int64) fleet.ClaimRequest {
	return fleet.ClaimRequest{FactoryID: "f1", Max: new(int64(4)), WaitSeconds: wait, LeaseSeconds: &lease}
}

// submit submits so many jobs, and returns their ids.
func submit(t *testing.T, c *client.Client, count int) (ids []string) {
	t.Helper()
	for range count {
		result, err := c.Submit(t.Context(), goWork())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, result.Job.ID)
	}
	return ids
}

// registered is a client, and the factory f1.
func (w *web) registered() *client.Client {
	w.t.Helper()
	c := w.client()
	if _, err := c.Heartbeat(w.t.Context(), goFactory("f1")); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// Each job of a batch is held by itself: what ends one ends no other, and they end with what they are worked on for.
func TestEachOfABatchIsHeldByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.registered()
		submit(t, c, 3)
		working, stop := context.WithCancel(t.Context())
		held, err := c.ClaimBatchAndHold(t.Context(), working, forFour(20, 60))
		if err != nil || len(held) != 3 {
			t.Fatalf("got %d jobs, %v, want the 3 that there are", len(held), err)
		}
		if _, err := c.Cancel(t.Context(), held[0].Job.ID, ""); err != nil {
			t.Fatal(err)
		}
		if err := held[0].Comment(t.Context(), `{}`); !errors.Is(err, fleet.StaleEpoch) || !errors.Is(context.Cause(held[0].Context()), fleet.StaleEpoch) {
			t.Errorf("got %v, want stale_epoch for the cancelled job", err)
		}
		if _, err := held[1].Report(t.Context(), fleet.Report{Stage: fleet.Shipped}); err != nil {
			t.Error(err)
		}
		if err := context.Cause(held[2].Context()); err != nil || held[2].Epoch() != 1 {
			t.Errorf("got %v at epoch %d, want the third job untouched", err, held[2].Epoch())
		}
		stop()
		<-held[2].Context().Done()
	})
}

// Jobs that are granted after a wait longer than their leases are held for whole leases all the same.
func TestBatchLeasesShorterThanTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.registered()
		submitted := make(chan struct{})
		go func() {
			defer close(submitted)
			time.Sleep(15 * time.Second)
			submissions := []fleet.Submission{goWork(), goWork(), goWork()}
			if _, err := c.SubmitBatch(t.Context(), submissions); err != nil {
				t.Error(err)
			}
		}()
		held, err := c.ClaimBatchAndHold(t.Context(), t.Context(), forFour(20, 3))
		if err != nil || len(held) != 3 {
			t.Fatalf("got %d jobs, %v, want 3", len(held), err)
		}
		for _, h := range held {
			if left := time.Until(h.Deadline()); left < 2*time.Second || left > 3*time.Second {
				t.Errorf("got %v of the lease left, want almost 3 s", left)
			}
			h.Close()
		}
		<-submitted
		if f, err := c.Factory(t.Context(), "f1"); err != nil || f.SeatLimit != 4 || len(f.Capabilities) != 1 {
			t.Errorf("got %+v, %v, want the factory as it was", f, err)
		}
	})
}

// All that was granted to a claim that was broken off is given back.
func TestClaimBatchBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.registered()
		ids := submit(t, c, 4)
		ctx, cancel := context.WithCancel(t.Context())
		broken := false
		w.at(func(_ string, api http.Handler, _ http.ResponseWriter, r *http.Request) bool {
			if broken || r.URL.Path != "/fleet/claim/batch" {
				return false
			}
			broken = true
			api.ServeHTTP(discard{http.Header{}}, r.WithContext(context.WithoutCancel(r.Context())))
			cancel()
			<-r.Context().Done()
			return true
		})
		if held, err := c.ClaimBatchAndHold(ctx, t.Context(), forFour(20, 60)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v, want it canceled", held, err)
		}
		for _, id := range ids {
			if job, err := c.Job(t.Context(), id); err != nil || job.Stage != fleet.Queued || job.LeaseEpoch != 1 {
				t.Errorf("got %+v, %v, want each granted job queued again", job, err)
			}
		}
	})
}

// A batch whose answer was lost is asked for again under its key: nothing is claimed twice.
func TestLostBatchIsClaimedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.registered()
		submit(t, c, 6)
		lost := 0
		w.at(func(_ string, api http.Handler, _ http.ResponseWriter, r *http.Request) bool {
			if lost == 2 || r.URL.Path != "/fleet/claim/batch" {
				return false
			}
			lost++
			api.ServeHTTP(discard{http.Header{}}, r.WithContext(context.WithoutCancel(r.Context())))
			panic(http.ErrAbortHandler)
		})
		held, err := c.ClaimBatchAndHold(t.Context(), t.Context(), forFour(20, 60))
		if err != nil || len(held) != 4 || lost != 2 {
			t.Fatalf("got %d jobs, %v after %d lost answers, want 4 after 2", len(held), err, lost)
		}
		for _, h := range held {
			if h.Epoch() != 1 {
				t.Errorf("got %s at epoch %d, want 1", h.Job.ID, h.Epoch())
			}
			h.Close()
		}
		if stats, err := c.Stats(t.Context()); err != nil || stats.Stages[fleet.Assigned] != 4 || stats.Stages[fleet.Queued] != 2 {
			t.Errorf("got %+v, %v, want 4 jobs claimed", stats, err)
		}
	})
}
