package fsm

// This file goes to the bounds of graphs and lists: what is refused beyond them, and that nothing costs too much within.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// batches submits n jobs, named and made by their number.
func (r *replica) batches(n int, id string, change func(i int, s *fleet.Submission)) {
	r.t.Helper()
	for first := 0; first < n; first += fleet.MaxBatch {
		c := &SubmitBatch{ProductID: "p"}
		for i := first; i < min(first+fleet.MaxBatch, n); i++ {
			c.JobIDs = append(c.JobIDs, id+strconv.Itoa(i))
			c.Submissions = append(c.Submissions, submission(func(s *fleet.Submission) { change(i, s) }))
		}
		must1[*fleet.SubmitResults](r, c)
	}
}

func onField(t *testing.T, err *fleet.Error, field string) {
	t.Helper()
	if len(err.Fields) != 1 || err.Fields[0].Field != field {
		t.Errorf("got fields %v, want %s", err.Fields, field)
	}
}

// A job has at most 10,000 direct dependents. They are unblocked in one entry.
func TestDependentsAreBounded(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 10)
	r.submit("hub", func(s *fleet.Submission) { s.Priority, s.IdempotencyKey = fleet.Critical, "hub" })
	spoke := func(_ int, s *fleet.Submission) { s.Deps = []string{"hub", "key:hub", "hub"} }
	r.batches(fleet.MaxDependents-1, "s", spoke)
	one := submission(func(s *fleet.Submission) { spoke(0, s) })
	two := &SubmitBatch{ProductID: "p", JobIDs: []string{"x", "y"}, Submissions: []fleet.Submission{one, one}}
	onField(t, r.refused(two, fleet.Invalid), "jobs[1].deps[0]")
	last := submission(func(s *fleet.Submission) { s.IdempotencyKey, s.Deps = "last", []string{"hub"} })
	must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "last", Submission: last})
	onField(t, r.refused(&Submit{ProductID: "p", JobID: "x", Submission: one}, fleet.Invalid), "deps[0]")
	last.BodyMd = "superseded"
	if got := must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "x", Submission: last}); got.Outcome != fleet.Superseded {
		t.Errorf("who is counted already: got %s, want superseded", got.Outcome)
	}

	c := r.claim()
	r.patch("hub", report(c.Job.LeaseEpoch, fleet.Shipped, ""))
	p, _ := r.m.st.products.Get("p")
	if n := p.queue.Len(); n != fleet.MaxDependents {
		t.Errorf("got %d jobs in line, want all %d", n, fleet.MaxDependents)
	}
}

// A composite has at most 10,000 descendants, counted up the parents.
func TestDescendantsAreBounded(t *testing.T) {
	r := newReplica(t)
	r.submit("top", func(s *fleet.Submission) { s.Kind = fleet.Composite })
	r.submit("mid", func(s *fleet.Submission) { s.Kind, s.ParentID = fleet.Composite, "top" })
	r.batches(fleet.MaxDescendants-2, "c", func(_ int, s *fleet.Submission) { s.ParentID = "mid" })
	child := submission(func(s *fleet.Submission) { s.ParentID = "mid" })
	two := &SubmitBatch{ProductID: "p", JobIDs: []string{"x", "y"}, Submissions: []fleet.Submission{child, child}}
	onField(t, r.refused(two, fleet.Invalid), "jobs[1].parentId")
	must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "x", Submission: child})
	onField(t, r.refused(&Submit{ProductID: "p", JobID: "y", Submission: child}, fleet.Invalid), "parentId")

	must1[*fleet.Job](r, &Cancel{ProductID: "p", JobID: "top"})
	r.stage("c9000", fleet.Failed)
	must1[*fleet.Job](r, &Requeue{ProductID: "p", JobID: "top"})
	r.stage("c9000", fleet.Queued)
	r.stage("top", fleet.Queued)
}

// Composites are at most 16 deep, and what happens below reaches the top.
func TestDepthIsBounded(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	parent := ""
	composite := func(s *fleet.Submission) { s.Kind, s.ParentID = fleet.Composite, parent }
	for i := range fleet.MaxDepth {
		id := "c" + strconv.Itoa(i)
		r.submit(id, composite)
		parent = id
	}
	onField(t, r.refused(&Submit{ProductID: "p", JobID: "x", Submission: submission(composite)}, fleet.Invalid), "parentId")
	r.submit("leaf", func(s *fleet.Submission) { s.ParentID = parent })
	c := r.claim()
	r.stage("c0", fleet.Building)
	r.patch("leaf", report(c.Job.LeaseEpoch, fleet.Shipped, ""))
	r.stage("c0", fleet.Shipped)
}

// A job has at most 10,000 comments and artifacts together.
func TestRemarksAreBounded(t *testing.T) {
	r := newReplica(t)
	r.submit("a", nil)
	comment := &Comment{ProductID: "p", JobID: "a", Data: `{}`}
	artifact := &AddArtifact{ProductID: "p", JobID: "a", Request: fleet.ArtifactRequest{Name: "n", Kind: "k", URI: "s3://b/k"}}
	for range fleet.MaxRecords / 2 {
		must1[*fleet.Event](r, comment)
		must1[*fleet.Artifact](r, artifact)
	}
	for _, c := range []Command{comment, artifact} {
		if err := r.refused(c, fleet.QuotaExceeded); err.RetryAfterSeconds == 0 {
			t.Errorf("%T: got no Retry-After", c)
		}
	}
}

// A product's line has at most 10,000 requirement signatures; who requires what is there is welcome.
func TestSignaturesAreBounded(t *testing.T) {
	r := newReplica(t)
	requires := func(i int, s *fleet.Submission) { s.Capabilities = []string{"c" + strconv.Itoa(i)} }
	r.batches(fleet.MaxSignatures, "j", requires)
	another := submission(func(s *fleet.Submission) { requires(fleet.MaxSignatures, s) })
	if err := r.refused(&Submit{ProductID: "p", JobID: "x", Submission: another}, fleet.QuotaExceeded); err.RetryAfterSeconds == 0 {
		t.Error("got no Retry-After")
	}
	r.submit("same", func(s *fleet.Submission) { requires(7, s) })
	r.submit("group", func(s *fleet.Submission) { requires(fleet.MaxSignatures, s); s.Kind = fleet.Composite })
	must1[*fleet.Job](r, &Cancel{ProductID: "p", JobID: "j8"})
	must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "x", Submission: another})
}

// A batch may be one chain, each job after the next by its key; a cycle at its end refuses it whole.
func TestBatchIsAChain(t *testing.T) {
	r := newReplica(t)
	chain := func(ends string) *SubmitBatch {
		c := &SubmitBatch{ProductID: "p"}
		for i := range fleet.MaxBatch {
			c.JobIDs = append(c.JobIDs, "j"+strconv.Itoa(i))
			c.Submissions = append(c.Submissions, submission(func(s *fleet.Submission) {
				s.IdempotencyKey = "k" + strconv.Itoa(i)
				if i < fleet.MaxBatch-1 {
					s.Deps = []string{"key:k" + strconv.Itoa(i+1)}
				} else if ends != "" {
					s.Deps = []string{ends}
				}
			}))
		}
		return c
	}
	err := r.refused(chain("key:k500"), fleet.DependencyCycle)
	if n := len(err.Cycle); n != 501 || err.Cycle[0] != "j500" || err.Cycle[n-1] != "j500" {
		t.Errorf("got a cycle of %d from %s to %s, want 501 from j500 to j500", n, err.Cycle[0], err.Cycle[n-1])
	}
	if len(err.Detail) > 1000 {
		t.Errorf("got a detail of %d bytes", len(err.Detail))
	}
	got := must1[*fleet.SubmitResults](r, chain(""))
	if stage := got.Results[fleet.MaxBatch-1].Job.Stage; stage != fleet.Queued {
		t.Errorf("the last: got %s, want queued", stage)
	}
	if stage := got.Results[0].Job.Stage; stage != fleet.Blocked {
		t.Errorf("the first: got %s, want blocked", stage)
	}
}

// A search for a cycle goes through 100,000 jobs without recursion, and no further.
func TestCycleSearchIsBounded(t *testing.T) {
	r := newReplica(t)
	first := submission(func(s *fleet.Submission) { s.IdempotencyKey = "first" })
	must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "first", Submission: first})
	before := "first"
	link := func(i int, s *fleet.Submission) {
		s.IdempotencyKey, s.Deps = "k"+strconv.Itoa(i), []string{before}
		before = "key:" + s.IdempotencyKey
	}
	r.batches(fleet.MaxCycleSearch-1, "j", link)
	closing := func(i int) *Submit {
		first.Deps = []string{"key:k" + strconv.Itoa(i)}
		return &Submit{ProductID: "p", JobID: "x", Submission: first}
	}
	if err := r.refused(closing(fleet.MaxCycleSearch-2), fleet.DependencyCycle); len(err.Cycle) != fleet.MaxCycleSearch+1 {
		t.Errorf("got a cycle of %d, want %d", len(err.Cycle), fleet.MaxCycleSearch+1)
	}
	more := submission(func(s *fleet.Submission) { link(fleet.MaxCycleSearch-1, s) })
	must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: "more", Submission: more})
	onField(t, r.refused(closing(fleet.MaxCycleSearch-1), fleet.Invalid), "deps")
}

// Reports that would come after 20,000 changed documents of an entry are put off.
func TestReportsAreBoundedByWhatTheyChange(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 10)
	hubs := []string{"h0", "h1", "h2", "h3"}
	for _, id := range hubs {
		r.submit(id, func(s *fleet.Submission) { s.Priority = fleet.Critical })
	}
	for _, id := range hubs[:2] {
		r.batches(fleet.MaxDependents, id+"-", func(_ int, s *fleet.Submission) { s.Deps = []string{id} })
	}
	c := &Report{ProductID: "p"}
	for range hubs {
		id := r.claim().Job.ID
		c.Reports = append(c.Reports, fleet.JobReport{JobID: id, Report: report(1, fleet.Shipped, "")})
	}
	var got []string
	for _, x := range must1[*fleet.ReportResults](r, c).Results {
		got = append(got, fmt.Sprint(x.OK, x.Code))
	}
	if want := []string{"true", "true", "falserate_limited", "falserate_limited"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.stage("h2", fleet.Assigned)
	if again := must1[*fleet.ReportResults](r, &Report{ProductID: "p", Reports: c.Reports[2:]}); !again.Results[0].OK || !again.Results[1].OK {
		t.Errorf("sent again: got %+v", again.Results)
	}
}

// The room to remember answers is a product's, by documents and by bytes: who has none of his own is refused when it is full.
func TestMemoryOfAProductIsBounded(t *testing.T) {
	defer func(documents, bytes int64) { maxMemoryDocuments, maxMemoryBytes = documents, bytes }(maxMemoryDocuments, maxMemoryBytes)
	fill := func(t *testing.T, most int) {
		c := newCaller(t)
		for i, n := 0, 0; ; i++ {
			actor := fmt.Sprint("t", i)
			c.actor = ActorRoot
			c.must("", &CreateToken{ID: actor, Hash: []byte(fmt.Sprintf("%032d", i)), Request: fleet.TokenRequest{Roles: []fleet.Role{fleet.RoleSubmitter}}})
			for c.actor = actor; ; n++ {
				a := c.submit(fmt.Sprint("k", n), fmt.Sprint("j", n), strings.Repeat("b", 200))
				if a.Err != nil && !errors.Is(error(a.Err), fleet.RateLimited) {
					t.Fatal(a.Err)
				}
				if a.Err != nil {
					break
				}
				if n > most {
					t.Fatalf("%d answers are remembered, want at most %d", n, most)
				}
			}
			if c.memory().directory().lines[actor] == nil {
				if i < 4 {
					t.Errorf("caller %d was refused before the product was full", i)
				}
				return
			}
		}
	}
	maxMemoryDocuments = 40
	fill(t, 42)
	maxMemoryDocuments, maxMemoryBytes = 1_000_000, 20_000
	fill(t, 20_000/200)
}
