package fsm

// This file tests reads: each list against a look at every job, pages against the whole, and the feed with its gaps.

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

// Whatever index a filter follows, it finds what a look at every job finds, in pages of any size.
func TestListsAgreeWithAFullScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, m := newDraws(t), New()
		replay(t, m, d.log(60), 0)
		yes, no := true, false
		f := JobFilter{
			Stage:          rapid.SampledFrom(append(fleet.Stages[:], "", "", "")).Draw(t, "stage"),
			IdempotencyKey: rapid.SampledFrom([]string{"", "", "", "a", "b"}).Draw(t, "key"),
			ParentID:       rapid.SampledFrom([]string{"", "", d.job()}).Draw(t, "parent"),
			FactoryID:      rapid.SampledFrom([]string{"", "", "f1", "f2"}).Draw(t, "factory"),
			Parked:         rapid.SampledFrom([]*bool{nil, nil, &yes, &no}).Draw(t, "parked"),
		}
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		m.View(func(v View) {
			var want, got []string
			if p, ok := v.st.products.Get("p"); ok {
				p.bySeq.Scan(func(_ uint64, id string) bool {
					if r, _ := p.jobs.Get(id); f.selects(r) {
						want = append(want, id)
					}
					return true
				})
			}
			for next := uint64(0); ; {
				var page []*fleet.Job
				if page, next = v.Jobs("p", f, next, limit); len(page) > limit {
					t.Fatalf("got a page of %d, want at most %d", len(page), limit)
				}
				for _, j := range page {
					got = append(got, j.ID)
				}
				if next == 0 {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%+v: got %v, want %v", f, got, want)
			}
		})
	})
}

// A page looks at a bounded number of jobs, and says where to go on even if it found none.
func TestPageIsBounded(t *testing.T) {
	c := newCaller(t)
	s := fleet.Submission{BodyMd: "b"}
	s.Normalize()
	for n := 0; n <= maxScan; {
		b := &SubmitBatch{ProductID: "p"}
		for range fleet.MaxBatch {
			n++
			s.Labels = nil
			if n == maxScan+1 {
				s.Labels = fleet.Labels{{Key: "last", Value: "yes"}}
			}
			b.JobIDs, b.Submissions = append(b.JobIDs, fmt.Sprint("j", n)), append(b.Submissions, s)
		}
		c.must("", b)
	}
	f := JobFilter{Label: fleet.Label{Key: "last", Value: "yes"}}
	c.m.View(func(v View) {
		jobs, next := v.Jobs("p", f, 0, 10)
		if len(jobs) != 0 || next != maxScan {
			t.Fatalf("got %d jobs, next %d, want 0 and %d", len(jobs), next, maxScan)
		}
		jobs, next = v.Jobs("p", f, next, 10)
		if len(jobs) != 1 || next != 0 {
			t.Errorf("got %d jobs, next %d, want 1 and 0", len(jobs), next)
		}
		if jobs, next := v.Jobs("p", JobFilter{}, 1<<64-1, 10); len(jobs) != 0 || next != 0 {
			t.Errorf("after the last possible: got %d jobs, next %d, want 0 and 0", len(jobs), next)
		}
	})
}

func TestFeedAndEventsAfter(t *testing.T) {
	c := newCaller(t)
	for i := range 3 {
		c.submit("", fmt.Sprint("j", i), "b")
	}
	c.must("", &Cancel{ProductID: "p", JobID: "j0"})
	feed := func(after uint64, limit int) (got []uint64, first, last uint64) {
		c.m.View(func(v View) {
			var events []*fleet.Event
			events, first, last = v.Feed("p", after, limit)
			for _, e := range events {
				got = append(got, e.Index)
			}
		})
		return got, first, last
	}
	if got, first, last := feed(1, 2); !slices.Equal(got, []uint64{2, 3}) || first != 0 || last != 4 {
		t.Errorf("got %v, first %d, last %d, want [2 3], 0 and 4", got, first, last)
	}
	if got, _, last := feed(1<<64-1, 2); len(got) != 0 || last != 4 {
		t.Errorf("after the last possible: got %v, last %d, want none and 4", got, last)
	}
	c.now = c.now.Add(1000)
	c.must("", &Reap{Limit: 100, RetentionSeconds: 10})
	if got, first, last := feed(0, 9); !slices.Equal(got, []uint64{2, 3}) || first != 2 || last != 4 {
		t.Errorf("after a purge: got %v, first %d, last %d, want [2 3], 2 and 4", got, first, last)
	}
	c.m.View(func(v View) {
		for after, want := range []int{1, 0, 0} {
			if events, ok := v.Events("p", "j1", uint64(after), 10); !ok || len(events) != want {
				t.Errorf("events after %d: got %d, %t, want %d", after, len(events), ok, want)
			}
		}
		if _, ok := v.Events("p", "j0", 0, 10); ok {
			t.Error("a purged job still has events")
		}
	})
}

func TestStatsAndTotals(t *testing.T) {
	c := newCaller(t)
	seats := int64(2)
	c.must("", &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f", SeatLimit: &seats}})
	for i := range 3 {
		c.submit("", fmt.Sprint("j", i), "b")
	}
	c.now = c.now.Add(5)
	c.must("", &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60})
	one, in, usd := uint64(1), int64(70), fleet.USD(25e8)
	c.now = c.now.Add(8) // the run takes 8 s
	c.must("", &Patch{ProductID: "p", JobID: "j0", Report: fleet.Report{
		LeaseEpoch: &one, Stage: fleet.Shipped, Insights: &fleet.Insights{TokensIn: &in, CostUSD: &usd},
	}})
	c.must("", &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60})
	if a := c.propose("", &Renew{ProductID: "p", JobID: "j1", LeaseEpoch: 7}); a.Err == nil {
		t.Fatal("a stale epoch was accepted")
	}
	c.m.View(func(v View) {
		s := v.Stats("p", c.now.Add(10))
		if s.Stages[fleet.Queued] != 1 || s.Stages[fleet.Assigned] != 1 || s.Stages[fleet.Shipped] != 1 || len(s.Stages) != len(fleet.Stages) {
			t.Errorf("got stages %v, want one each of queued, assigned and shipped", s.Stages)
		}
		if s.OldestQueuedSeconds == nil || *s.OldestQueuedSeconds != 23 || s.ShippedLastHour != 1 || s.Factories[fleet.HealthOK] != 1 {
			t.Errorf("got %+v, want 23 s, 1 shipped, 1 factory", s)
		}
		if s := v.Stats("p", c.now.Add(7200)); s.ShippedLastHour != 0 {
			t.Errorf("two hours later: got %d shipped in the last hour, want 0", s.ShippedLastHour)
		}
		if s := v.Stats("none", c.now); s.Stages[fleet.Queued] != 0 || s.OldestQueuedSeconds != nil {
			t.Errorf("an unknown product: got %+v, want nothing", s)
		}
		n := v.Totals(c.now)
		if n.LeasesHeld != 1 || n.SeatsUsed != 1 || n.SeatsFree != 1 || n.StaleEpochs != 1 || n.EventsByType[fleet.EventClaimed] != 2 ||
			n.Jobs[fleet.Shipped.Index()] != 1 || n.OldestQueued != epoch {
			t.Errorf("got %+v", n)
		}
		shipped := RunTotals{Count: 1, Took: 8 * time.Second, Within: [len(RunBounds)]uint64{0, 0, 1, 1, 1, 1, 1, 1, 1}}
		if n.Runs[fleet.OutcomeShipped] != shipped || n.Runs[fleet.OutcomeFailed].Count != 0 || n.USD != usd || n.Tokens != (Tokens{In: 70}) {
			t.Errorf("got runs %+v, %v and %+v, want one that shipped after 8 s, $2.5 and 70 tokens in", n.Runs, n.USD, n.Tokens)
		}
	})
}

// Claimable foretells what a claim would get.
func TestClaimable(t *testing.T) {
	c := newCaller(t)
	ask := func(skip func(string) bool) (id string, found bool, err error) {
		c.m.View(func(v View) { id, found, err = v.Claimable(Caller{ActorRoot}, "p", "f", skip) })
		return id, found, err
	}
	if _, _, err := ask(nil); codeOf(err) != fleet.UnknownFactory {
		t.Errorf("got %v, want %v", err, fleet.UnknownFactory)
	}
	c.must("", &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f"}})
	if id, found, err := ask(nil); found || err != nil {
		t.Errorf("got %s, %t, %v, want nothing", id, found, err)
	}
	c.submit("", "j1", "b")
	c.submit("", "j2", "b")
	if id, found, _ := ask(nil); id != "j1" || !found {
		t.Errorf("got %s, want j1", id)
	}
	if id, found, _ := ask(func(id string) bool { return id == "j1" }); id != "j2" || !found {
		t.Errorf("passing over j1: got %s, want j2", id)
	}
	c.must("", &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60})
	if _, _, err := ask(nil); codeOf(err) != fleet.SeatsExhausted {
		t.Errorf("got %v, want %v", err, fleet.SeatsExhausted)
	}
	c.m.View(func(v View) {
		if _, _, err := v.Claimable(Caller{"gone"}, "p", "f", nil); codeOf(err) != fleet.Unauthenticated {
			t.Errorf("got %v, want %v", err, fleet.Unauthenticated)
		}
	})
}

func codeOf(err error) fleet.Code {
	if err == nil {
		return ""
	}
	return refusal(err).Err.Code
}
