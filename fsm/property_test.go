package fsm

// This file holds the machine to what must be true of any log whatsoever.

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

// draws makes entries of a small world, where ids and keys collide often.
type draws struct {
	t    *rapid.T
	ids  int
	time fleet.Time
}

func (d *draws) job() string {
	return fmt.Sprintf("j%d", rapid.IntRange(1, max(1, d.ids)).Draw(d.t, "job"))
}

func (d *draws) factory() string {
	return rapid.SampledFrom([]string{"f1", "f2", "f3"}).Draw(d.t, "factory")
}

func (d *draws) epoch() *uint64 {
	e := rapid.Uint64Range(1, 4).Draw(d.t, "epoch")
	return &e
}

func (d *draws) capabilities() []string {
	return rapid.SampledFrom([][]string{nil, {"go"}, {"go", "linux"}, {"gpu"}}).Draw(d.t, "capabilities")
}

func (d *draws) submission() fleet.Submission {
	s := fleet.Submission{
		BodyMd:       rapid.SampledFrom([]string{"one", "two"}).Draw(d.t, "body"),
		Priority:     rapid.SampledFrom(fleet.Priorities[:]).Draw(d.t, "priority"),
		Capabilities: d.capabilities(),
	}
	if rapid.Bool().Draw(d.t, "keyed") {
		s.IdempotencyKey = rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(d.t, "key")
	}
	if rapid.IntRange(0, 9).Draw(d.t, "kind") == 0 {
		s.Kind, s.Capabilities = fleet.Composite, nil
	} else if rapid.IntRange(0, 2).Draw(d.t, "has deps") == 0 {
		s.Deps = []string{rapid.SampledFrom([]string{"key:a", "key:b", d.job()}).Draw(d.t, "dep")}
		s.DepsMode = rapid.SampledFrom([]fleet.DepsMode{fleet.Hard, fleet.Soft}).Draw(d.t, "mode")
	}
	if rapid.IntRange(0, 3).Draw(d.t, "has parent") == 0 {
		s.ParentID = d.job()
	}
	if rapid.IntRange(0, 2).Draw(d.t, "has retry") == 0 {
		losses := rapid.Int64Range(1, 2).Draw(d.t, "losses")
		s.Retry = &fleet.Retry{Max: rapid.Int64Range(0, 2).Draw(d.t, "max"), Backoff: rapid.Int64Range(0, 30).Draw(d.t, "backoff"), MaxLeaseLosses: &losses}
	}
	if rapid.IntRange(0, 4).Draw(d.t, "has budget") == 0 {
		usd, wall := fleet.USD(rapid.Int64Range(0, 3).Draw(d.t, "usd")*1e9), rapid.Int64Range(1, 60).Draw(d.t, "wall")
		s.Budget = &fleet.Budget{USD: &usd, Wall: &wall}
	}
	if rapid.IntRange(0, 5).Draw(d.t, "delayed") == 0 {
		s.NotBefore = d.time.Add(rapid.Int64Range(1, 60).Draw(d.t, "after"))
	}
	s.Normalize()
	return s
}

func (d *draws) report() fleet.Report {
	r := fleet.Report{
		Stage:  rapid.SampledFrom([]fleet.Stage{"", fleet.Building, fleet.Review, fleet.Testing, fleet.Shipped, fleet.Failed, fleet.Queued}).Draw(d.t, "stage"),
		Reason: "r",
	}
	if rapid.Bool().Draw(d.t, "cost") {
		usd := fleet.USD(rapid.Int64Range(0, 2).Draw(d.t, "usd") * 1e9)
		r.Insights = &fleet.Insights{CostUSD: &usd}
	}
	if rapid.IntRange(0, 3).Draw(d.t, "checkpoint") == 0 {
		r.Checkpoint = &fleet.Checkpoint{WipCommit: "c"}
	}
	return r
}

func (d *draws) newID() string { d.ids++; return fmt.Sprintf("j%d", d.ids) }

// command draws any command, as likely to be refused as not.
func (d *draws) command() Command {
	switch rapid.IntRange(0, 16).Draw(d.t, "command") {
	case 0, 1, 2:
		return &Submit{ProductID: "p", JobID: d.newID(), Submission: d.submission()}
	case 3:
		b := &SubmitBatch{ProductID: "p"}
		keys := map[string]bool{}
		for range rapid.IntRange(1, 4).Draw(d.t, "jobs") {
			s := d.submission()
			if keys[s.IdempotencyKey] {
				s.IdempotencyKey = ""
			}
			keys[s.IdempotencyKey] = true
			b.JobIDs, b.Submissions = append(b.JobIDs, d.newID()), append(b.Submissions, s)
		}
		return b
	case 4, 5:
		return &Claim{ProductID: "p", FactoryID: d.factory(), LeaseSeconds: rapid.Int64Range(1, 60).Draw(d.t, "lease")}
	case 6:
		return &ClaimBatch{ProductID: "p", FactoryID: d.factory(), LeaseSeconds: 30, Max: rapid.Int64Range(1, 3).Draw(d.t, "max")}
	case 7, 8:
		r := d.report()
		r.LeaseEpoch = d.epoch()
		return &Patch{ProductID: "p", JobID: d.job(), Report: r}
	case 9:
		return &OperatorPatch{ProductID: "p", JobID: d.job(), IfMatch: IfMatch{Any: true}, Report: fleet.Report{Stage: d.report().Stage, Reason: "r"}}
	case 10:
		return &Renew{ProductID: "p", JobID: d.job(), LeaseEpoch: *d.epoch()}
	case 11:
		return &Release{ProductID: "p", JobID: d.job(), LeaseEpoch: *d.epoch(), DelaySeconds: rapid.Int64Range(0, 5).Draw(d.t, "delay")}
	case 12:
		return &Cancel{ProductID: "p", JobID: d.job()}
	case 13:
		return &Requeue{ProductID: "p", JobID: d.job()}
	case 14:
		caps, seats := fleet.Strings{"go", "linux"}, rapid.Int64Range(1, 4).Draw(d.t, "seats")
		return &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: d.factory(), Capabilities: &caps, SeatLimit: &seats}}
	case 15:
		return &LeaderChange{}
	default:
		return &Reap{Limit: rapid.Int64Range(1, 3).Draw(d.t, "limit"), RetentionSeconds: rapid.SampledFrom([]int64{0, 100}).Draw(d.t, "retention")}
	}
}

// log draws entries whose stamps mostly go forward.
func (d *draws) log(n int) []*Entry {
	d.time = epoch
	var log []*Entry
	for range rapid.IntRange(1, n).Draw(d.t, "entries") {
		d.time += fleet.Time(rapid.SampledFrom([]int64{0, 1, 5, 31, 61, -10}).Draw(d.t, "seconds")) * 1e9
		e := &Entry{Stamp: d.time}
		for range rapid.IntRange(1, 3).Draw(d.t, "proposals") {
			c := d.command()
			p := Proposal{Caller: Caller{ActorRoot}, Command: c}
			if c.role() == "" {
				p.Caller.Actor = ActorFleet
			} else if rapid.IntRange(0, 3).Draw(d.t, "with key") == 0 {
				p.Key, p.Request = rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(d.t, "idempotency key"), fmt.Sprintf("%T", c)
			}
			e.Proposals = append(e.Proposals, p)
		}
		log = append(log, e)
	}
	return log
}

func replay(t fataler, m *Machine, log []*Entry, from int) *Machine {
	for i, e := range log {
		b, err := EncodeEntry(e)
		if err != nil {
			t.Fatalf("encoding entry %d: %v", from+i, err)
		}
		decoded, err := DecodeEntry(b)
		if err != nil {
			t.Fatalf("decoding entry %d: %v", from+i, err)
		}
		m.Apply(uint64(from+i+1), decoded)
	}
	return m
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func snapshotOf(t fataler, m *Machine) []byte {
	var b bytes.Buffer
	if _, err := m.Handle().WriteTo(&b); err != nil {
		t.Fatalf("writing a snapshot: %v", err)
	}
	return b.Bytes()
}

// Two replicas that applied the same log hold byte-identical state.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := (&draws{t: t}).log(60)
		a, b := replay(t, New(), log, 0), replay(t, New(), log, 0)
		if a.Hash() != b.Hash() || !bytes.Equal(snapshotOf(t, a), snapshotOf(t, b)) {
			t.Fatalf("two replicas of one log differ")
		}
	})
}

// A replica restored from a snapshot at any cut ends in the same bytes as one that applied the whole log.
func TestRestoredReplicaAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := (&draws{t: t}).log(60)
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		whole, half := replay(t, New(), log, 0), replay(t, New(), log[:cut], 0)
		restored := New()
		if err := restored.Restore(bytes.NewReader(snapshotOf(t, half))); err != nil {
			t.Fatalf("restoring: %v", err)
		}
		if restored.Hash() != half.Hash() {
			t.Fatalf("a restored replica differs at once")
		}
		replay(t, restored, log[cut:], cut)
		if whole.Hash() != restored.Hash() || !bytes.Equal(snapshotOf(t, whole), snapshotOf(t, restored)) {
			t.Fatalf("replicas differ after a restore at entry %d", cut)
		}
	})
}

// What holds at every index: conservation, one queue place for each claimable job, seats, epochs that only rise, events
// without gaps, and claims in order.
func TestInvariantsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, epochs := New(), map[string]uint64{}
		for i, e := range (&draws{t: t}).log(60) {
			claim, alone := e.Proposals[0].Command.(*Claim)
			var want string
			if alone = alone && len(e.Proposals) == 1 && e.Proposals[0].Key == ""; alone {
				want = naiveClaim(m, claim)
			}
			answers, _ := m.Apply(uint64(i+1), e)
			if alone && answers[0].Err == nil {
				got := ""
				if c := answers[0].Result.(*fleet.Claim); c.Job != nil {
					got = c.Job.ID
				}
				if got != want {
					t.Fatalf("entry %d: claim got job %q, the naive model %q", i, got, want)
				}
			}
			check(t, m, epochs)
		}
	})
}

// naiveClaim looks at every job: the highest priority, then the lowest seq.
func naiveClaim(m *Machine, c *Claim) (best string) {
	p, ok := m.st.products.Get("p")
	if !ok {
		return ""
	}
	f, ok := p.factories.Get(c.FactoryID)
	if !ok {
		return ""
	}
	var chosen *record
	p.jobs.Scan(func(_ string, r *record) bool {
		if r.job.Stage != fleet.Queued || r.job.Kind != fleet.Leaf || r.waiting != nil {
			return true
		}
		for _, need := range r.job.Capabilities {
			if !slices.Contains(f.doc.Capabilities, need) {
				return true
			}
		}
		if chosen == nil || r.job.Priority.Tier() < chosen.job.Priority.Tier() ||
			r.job.Priority.Tier() == chosen.job.Priority.Tier() && r.seq < chosen.seq {
			chosen = r
		}
		return true
	})
	if chosen == nil {
		return ""
	}
	return chosen.job.ID
}

// check holds one state to the invariants. epochs is what was seen before.
func check(t *rapid.T, m *Machine, epochs map[string]uint64) {
	p, ok := m.st.products.Get("p")
	if !ok {
		return
	}
	held := map[string]int64{}
	inLine := map[string]bool{}
	p.queue.Scan(func(q queued) bool { inLine[q.job] = true; return true })
	if p.queue.Len() != len(inLine) {
		t.Fatalf("a job is in line twice: %d places for %d jobs", p.queue.Len(), len(inLine))
	}
	p.jobs.Scan(func(id string, r *record) bool {
		j, l := r.job, r.lease
		if j.LeaseEpoch < epochs[id] {
			t.Fatalf("%s: the epoch fell from %d to %d", id, epochs[id], j.LeaseEpoch)
		}
		epochs[id] = j.LeaseEpoch
		if l.LeaseEpoch != j.LeaseEpoch {
			t.Fatalf("%s: the lease is at epoch %d, the job at %d", id, l.LeaseEpoch, j.LeaseEpoch)
		}
		if l.Status == fleet.LeaseHeld {
			held[l.HolderFactoryID]++
			if !j.Stage.Active() {
				t.Fatalf("%s is %s and held by %s", id, j.Stage, l.HolderFactoryID)
			}
			if open := r.runs[len(r.runs)-1]; open.Outcome != "" {
				t.Fatalf("%s is held but its run has ended", id)
			}
		} else if n := len(r.runs); n > 0 && r.runs[n-1].Outcome == "" {
			t.Fatalf("%s is not held but its run is open", id)
		}
		if int64(len(r.runs)) != j.Attempt {
			t.Fatalf("%s: %d runs, attempt %d", id, len(r.runs), j.Attempt)
		}
		claimable := j.Stage == fleet.Queued && j.Kind == fleet.Leaf && r.waiting == nil
		if claimable != inLine[id] {
			t.Fatalf("%s (%s): claimable %t, in line %t", id, j.Stage, claimable, inLine[id])
		}
		if j.Kind == fleet.Leaf {
			unmet := 0
			for _, dep := range r.deps {
				d, ok := p.jobs.Get(dep)
				if !ok {
					t.Fatalf("%s depends on %s, which is gone", id, dep)
				}
				if !(d.job.Stage == fleet.Shipped || j.DepsMode == fleet.Soft && d.job.Stage == fleet.Testing) {
					unmet++
				}
			}
			if unmet != r.unmet {
				t.Fatalf("%s counts %d unmet deps, there are %d", id, r.unmet, unmet)
			}
			if (j.Stage == fleet.Queued) && unmet > 0 || (j.Stage == fleet.Blocked) && unmet == 0 {
				t.Fatalf("%s is %s with %d unmet deps", id, j.Stage, unmet)
			}
		}
		for i, e := range r.events {
			if e.Seq != uint64(i+1) {
				t.Fatalf("%s: event %d has seq %d", id, i+1, e.Seq)
			}
		}
		if i := j.Stage.Index(); i < 0 {
			t.Fatalf("%s is in no stage: %q", id, j.Stage)
		} else if got, ok := p.stages[i].Get(r.seq); !ok || got != id {
			t.Fatalf("%s is not listed under its stage %s", id, j.Stage)
		}
		return true
	})
	listed := 0
	for i := range p.stages {
		listed += p.stages[i].Len()
	}
	if listed != p.jobs.Len() || p.bySeq.Len() != p.jobs.Len() {
		t.Fatalf("%d jobs, %d listed by stage, %d by submission", p.jobs.Len(), listed, p.bySeq.Len())
	}
	p.factories.Scan(func(id string, f *factory) bool {
		if f.doc.ActiveLeases != held[id] {
			t.Fatalf("%s counts %d leases and holds %d", id, f.doc.ActiveLeases, held[id])
		}
		return true
	})
	last := uint64(0)
	p.feed.Scan(func(i uint64, e *fleet.Event) bool {
		if i != e.Index || i <= last {
			t.Fatalf("the feed is out of order at %d", i)
		}
		last = i
		return true
	})
}
