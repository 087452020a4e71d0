package fsm

// This file holds the machine to what must be true of any log whatsoever.

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

func replay(t fataler, m *Machine, log []*Entry, from int) *Machine {
	for i, e := range log {
		b, err := AppendEntry(nil, e)
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
		log := newDraws(t).log(60)
		a, b := replay(t, New(), log, 0), replay(t, New(), log, 0)
		if a.Hash() != b.Hash() || !bytes.Equal(snapshotOf(t, a), snapshotOf(t, b)) {
			t.Fatalf("two replicas of one log differ")
		}
	})
}

// A replica restored from a snapshot at any cut ends in the same bytes as one that applied the whole log.
func TestRestoredReplicaAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newDraws(t).log(60)
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

// A refusal changes nothing, and answers nothing else.
func TestRefusalsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New()
		for i, e := range newDraws(t).log(40) {
			before := timeless(m)
			answers, _ := m.Apply(uint64(i+1), e)
			refused := true
			for _, a := range answers {
				refused = refused && a.Err != nil
				if (a.Err != nil) == (a.Result != nil) {
					t.Fatalf("entry %d: got %v and %v", i+1, a.Result, a.Err)
				}
			}
			if refused && timeless(m) != before {
				t.Fatalf("entry %d, %T: the refusal %v changed the state", i+1, e.Proposals[0].Command, answers[0].Err)
			}
		}
	})
}

// What was answered never changes, whatever comes after it: an answer may still be being written.
func TestAnswersAreFrozen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New()
		var answers []Answer
		var bytes [][]byte
		for i, e := range newDraws(t).log(40) {
			now, _ := m.Apply(uint64(i+1), e)
			for _, a := range now {
				b, err := AppendAnswer(nil, &a)
				if err != nil {
					t.Fatalf("entry %d: %v", i+1, err)
				}
				answers, bytes = append(answers, a), append(bytes, b)
			}
		}
		for i, a := range answers {
			if b, _ := AppendAnswer(nil, &a); !slices.Equal(b, bytes[i]) {
				t.Fatalf("answer %d, %T, changed after it was given", i, a.Result)
			}
		}
	})
}

// What holds at every index: conservation, one queue place for each claimable job, seats, epochs that only rise, events
// without gaps, and claims in order.
func TestInvariantsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, epochs, versions := New(), map[string]uint64{}, map[string]versioned{}
		for i, e := range newDraws(t).log(60) {
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
			checkVersions(t, m, versions, answers)
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
			if r.latest.Outcome != "" {
				t.Fatalf("%s is held but its run has ended", id)
			}
		} else if r.latest != nil && r.latest.Outcome == "" {
			t.Fatalf("%s is not held but its run is open", id)
		}
		if n := len(r.runs()); int64(n) != j.Attempt {
			t.Fatalf("%s: %d runs, attempt %d", id, n, j.Attempt)
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
	checkDeadlines(t, m)
	checkGraph(t, p)
	last := uint64(0)
	p.feed.Scan(func(i uint64, e *fleet.Event) bool {
		if i != e.Index || i <= last {
			t.Fatalf("the feed is out of order at %d", i)
		}
		last = i
		return true
	})
}

// checkDeadlines holds the index of deadlines to what is there: each deadline belongs to something that waits for it, and
// nothing that waits for one lacks it.
func checkDeadlines(t *rapid.T, m *Machine) {
	st, want := m.st, map[deadline]bool{}
	st.products.Scan(func(product string, p *product) bool {
		add := func(at fleet.Time, kind deadlineKind, id string) {
			if at != 0 {
				want[deadline{at, kind, product, id}] = true
			}
		}
		p.jobs.Scan(func(id string, r *record) bool {
			for kind, at := range r.due {
				add(at, deadlineKind(kind), id)
			}
			if (r.due[dueLease] != 0) != r.held() || (r.due[dueWaiting] != 0) != (r.waiting != nil) {
				t.Fatalf("%s: held %t, waiting %v, due %v", id, r.held(), r.waiting, r.due)
			}
			if wall := r.held() && r.job.Budget != nil && r.job.Budget.Wall != nil; wall != (r.due[dueWall] != 0) {
				t.Fatalf("%s: wall %t, due %v", id, wall, r.due)
			}
			if r.job.Stage.Terminal() && p.purgeable(r) {
				if _, ok := st.ended.Get(r.ending()); !ok {
					t.Fatalf("%s could be purged, and nothing looks at it", id)
				}
			}
			return true
		})
		p.factories.Scan(func(id string, f *factory) bool {
			add(f.silent, dueFactory, id)
			add(f.forget, dueForget, id)
			if f.silent == 0 && !f.doc.Stale || f.forget == 0 && f.doc.ActiveLeases == 0 {
				t.Fatalf("%s is looked at by nothing: silent %d, forget %d", id, f.silent, f.forget)
			}
			return true
		})
		return true
	})
	st.tokens.Scan(func(id string, x *token) bool {
		if x.doc.ExpiresAt != 0 {
			want[deadline{x.doc.ExpiresAt, dueToken, "", id}] = true
		}
		return true
	})
	st.deadlines.Scan(func(d deadline) bool {
		if !want[d] {
			t.Fatalf("nothing waits for %+v", d)
		}
		return true
	})
	if st.deadlines.Len() != len(want) {
		t.Fatalf("%d deadlines, want %d", st.deadlines.Len(), len(want))
	}
	st.ended.Scan(func(d deadline) bool {
		if r, ok := st.record(d.product, d.id); !ok || r.ending() != d || !r.job.Stage.Terminal() {
			t.Fatalf("%+v is kept for what did not end then", d)
		}
		return true
	})
}

// checkGraph holds deps and children to having no cycle, by taking away who has no edge left.
func checkGraph(t *rapid.T, p *product) {
	edges := map[string]map[string]bool{}
	p.jobs.Scan(func(id string, r *record) bool {
		edges[id] = map[string]bool{}
		for _, to := range append(p.childIDs(id), r.deps...) {
			edges[id][to] = true
		}
		return true
	})
	for n := -1; n != len(edges); {
		n = len(edges)
		for id, to := range edges {
			for x := range to {
				if edges[x] == nil {
					delete(to, x)
				}
			}
			if len(to) == 0 {
				delete(edges, id)
			}
		}
	}
	if len(edges) > 0 {
		t.Fatalf("there is a cycle among %v", edges)
	}
}

// versioned is a document as it was seen last, without its version.
type versioned struct {
	version uint64
	doc     string
}

// checkVersions holds every version to growing with each change of its document. The end of a lease that a leader change
// puts off is read differently without the lease having changed.
//
// A factory that the entry's Reap forgot begins anew; it may be registered again in the same entry.
func checkVersions(t *rapid.T, m *Machine, seen map[string]versioned, answers []Answer) {
	reaped := slices.ContainsFunc(answers, func(a Answer) bool { _, ok := a.Result.(*Reaped); return ok })
	saw := func(id string, version uint64, doc any) {
		v := versioned{version, fmt.Sprintf("%+v", doc)}
		if old, ok := seen[id]; ok && (v.version < old.version || v.doc != old.doc && v.version == old.version) {
			t.Fatalf("%s went from version %d to %d, from %s to %s", id, old.version, v.version, old.doc, v.doc)
		}
		seen[id] = v
	}
	p, ok := m.st.products.Get("p")
	if !ok {
		return
	}
	p.jobs.Scan(func(id string, r *record) bool {
		j, l := *shownJob(r), *r.lease
		jv, lv := j.Version, l.Version
		j.Version, l.Version = 0, 0
		saw("job "+id, jv, j)
		saw("lease "+id, lv, l)
		for _, run := range r.runs() {
			c := *run
			c.Version = 0
			saw("run "+c.ID, run.Version, c)
		}
		return true
	})
	for id := range seen {
		if name, ok := strings.CutPrefix(id, "factory "); ok {
			if _, ok := p.factories.Get(name); !ok {
				delete(seen, id) // forgotten: it begins anew
			}
		}
	}
	p.factories.Scan(func(id string, f *factory) bool {
		c := *shownFactory(f)
		if reaped && c.Version == m.st.firstVersion()+1 {
			delete(seen, "factory "+id)
		}
		c.Version = 0
		saw("factory "+id, f.doc.Version, c)
		return true
	})
}
