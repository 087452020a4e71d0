package fsm

// This file tests the life of a job through the machine's front, one entry a step.

import (
	"testing"

	"github.com/lysnrai/fleet"
)

const start = fleet.Time(1_700_000_000 * 1e9)

// replica is a machine with the log position that its test has reached.
type replica struct {
	t     testing.TB
	m     *Machine
	now   fleet.Time
	index uint64
	last  News
}

func newReplica(t testing.TB) *replica { return &replica{t: t, m: New(), now: start} }

// try applies one command in an entry of its own.
func (r *replica) try(c Command) Answer {
	actor := ActorRoot
	if c.role() == "" {
		actor = ActorFleet
	}
	r.index++
	answers, news := r.m.Apply(r.index, &Entry{Stamp: r.now, Proposals: []Proposal{{Caller: Caller{actor}, Command: c}}})
	r.last = news
	return answers[0]
}

func (r *replica) refused(c Command, want fleet.Code) *fleet.Error {
	r.t.Helper()
	a := r.try(c)
	if a.Err == nil || a.Err.Code != want {
		r.t.Fatalf("%T: got %v, %v, want %s", c, a.Result, a.Err, want)
	}
	return a.Err
}

func must1[T Result](r *replica, c Command) T {
	r.t.Helper()
	a := r.try(c)
	if a.Err != nil {
		r.t.Fatalf("%T: %v", c, a.Err)
	}
	return a.Result.(T)
}

func (r *replica) job(id string) *fleet.Job {
	r.t.Helper()
	p, _ := r.m.st.products.Get("p")
	rec, ok := p.jobs.Get(id)
	if !ok {
		r.t.Fatalf("there is no job %s", id)
	}
	return shownJob(rec)
}

func (r *replica) stage(id string, want fleet.Stage) {
	r.t.Helper()
	if got := r.job(id).Stage; got != want {
		r.t.Errorf("stage of %s: got %s, want %s", id, got, want)
	}
}

func (r *replica) submit(id string, change func(*fleet.Submission)) *fleet.SubmitResult {
	r.t.Helper()
	return must1[*fleet.SubmitResult](r, &Submit{ProductID: "p", JobID: id, Submission: submission(change)})
}

func submission(change func(*fleet.Submission)) fleet.Submission {
	s := fleet.Submission{
		ManifestSnapshot: "{}", BodyMd: "do", Kind: fleet.Leaf, Priority: fleet.Medium,
		Capabilities: []string{}, Deps: []string{}, DepsMode: fleet.Hard,
	}
	if change != nil {
		change(&s)
	}
	return s
}

func (r *replica) heartbeat(id string, seats int64) {
	r.t.Helper()
	must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, SeatLimit: &seats, Capabilities: &fleet.Strings{"go", "linux"}}})
}

func (r *replica) claim() *fleet.Claim {
	r.t.Helper()
	return must1[*fleet.Claim](r, &Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60})
}

func report(epoch uint64, stage fleet.Stage, reason string) fleet.Report {
	return fleet.Report{LeaseEpoch: &epoch, Stage: stage, Reason: reason}
}

func (r *replica) patch(id string, q fleet.Report) *fleet.Job {
	r.t.Helper()
	return must1[*fleet.Job](r, &Patch{ProductID: "p", JobID: id, Report: q})
}

func TestJobShipsAndUnblocksItsDependents(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 2)
	r.submit("a", nil)
	r.submit("b", func(s *fleet.Submission) { s.Deps = []string{"a", "a"} })
	r.stage("b", fleet.Blocked)
	c := r.claim()
	if c.Job.ID != "a" || c.Job.LeaseEpoch != 1 || c.Run.ID != "a-1" || c.Lease.ExpiresAt != start.Add(60) {
		t.Errorf("claim: got %+v %+v %+v", c.Job, c.Lease, c.Run)
	}
	if got := r.claim(); got.Job != nil {
		t.Errorf("second claim: got %s, want none", got.Job.ID)
	}
	r.patch("a", report(1, fleet.Building, ""))
	r.patch("a", report(1, fleet.Shipped, ""))
	r.stage("b", fleet.Queued)
	if len(r.last.Products) != 1 || len(r.last.Feeds) != 1 {
		t.Errorf("news: got %+v, want product p in both", r.last)
	}
	if err := r.refused(&Patch{ProductID: "p", JobID: "a", Report: report(1, fleet.Building, "")}, fleet.StaleEpoch); err.CurrentEpoch != 1 {
		t.Errorf("current epoch: got %d, want 1", err.CurrentEpoch)
	}
}

func TestExpiredLeaseFencesItsHolder(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", nil)
	r.claim()
	r.now += 60e9 + 1
	must1[*fleet.Lease](r, &Renew{ProductID: "p", JobID: "a", LeaseEpoch: 1})
	if got := must1[*Reaped](r, &Reap{}); got.Changed != 1 { // the factory, which was silent
		t.Errorf("reap after a late renewal: got %d changes, want 1", got.Changed)
	}
	r.stage("a", fleet.Assigned)
	must1[*Done](r, &LeaderChange{})
	r.now += 60e9
	must1[*Reaped](r, &Reap{})
	r.stage("a", fleet.Assigned)
	r.now++
	must1[*Reaped](r, &Reap{})
	r.stage("a", fleet.Queued)
	if err := r.refused(&Renew{ProductID: "p", JobID: "a", LeaseEpoch: 1}, fleet.StaleEpoch); err.Detail != "job a is at epoch 2, you hold 1" {
		t.Errorf("detail: got %q", err.Detail)
	}
	r.refused(&Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60}, fleet.FactoryDown)
	if got := must1[*Reaped](r, &Reap{}); got.Changed != 0 || got.More {
		t.Errorf("second reap: got %+v, want nothing", got)
	}
}

func TestCompositeFollowsItsChildren(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 2)
	composite := func(s *fleet.Submission) { s.Kind = fleet.Composite }
	r.submit("c", composite)
	below := func(s *fleet.Submission) { s.ParentID = "c" }
	r.submit("x", below)
	r.submit("y", below)
	r.stage("c", fleet.Queued)
	r.claim()
	r.stage("c", fleet.Building)
	must1[*fleet.Job](r, &Cancel{ProductID: "p", JobID: "c"})
	r.stage("x", fleet.Failed)
	r.stage("y", fleet.Failed)
	r.refused(&Requeue{ProductID: "p", JobID: "x"}, fleet.IllegalTransition)
	must1[*fleet.Job](r, &Requeue{ProductID: "p", JobID: "c"})
	r.stage("y", fleet.Queued)
	r.stage("c", fleet.Building)
	for range 2 {
		c := r.claim()
		r.patch(c.Job.ID, report(c.Job.LeaseEpoch, fleet.Shipped, ""))
	}
	r.stage("c", fleet.Shipped)
	r.now = r.now.Add(101)
	must1[*Reaped](r, &Reap{RetentionSeconds: 100})
	if p, _ := r.m.st.products.Get("p"); p.jobs.Len() != 0 || p.feed.Len() != 0 {
		t.Errorf("after retention: got %d jobs and %d events, want none", p.jobs.Len(), p.feed.Len())
	}
}

func TestSubmitIsIdempotentAndSupersedes(t *testing.T) {
	r := newReplica(t)
	keyed := func(body string, deps ...string) func(*fleet.Submission) {
		return func(s *fleet.Submission) { s.IdempotencyKey, s.BodyMd, s.Deps = "k", body, deps }
	}
	for i, want := range []fleet.SubmitOutcome{fleet.Created, fleet.Existing} {
		if got := r.submit([]string{"a", "b"}[i], keyed("one")); got.Outcome != want || got.Job.ID != "a" {
			t.Errorf("submit: got %s %s, want %s a", got.Outcome, got.Job.ID, want)
		}
	}
	r.submit("d", func(s *fleet.Submission) { s.Deps = []string{"key:k"} })
	if got := r.submit("b", keyed("two")); got.Outcome != fleet.Superseded || got.Job.BodyMd != "two" || got.Job.Version != 2 {
		t.Errorf("supersede: got %+v", got)
	}
	err := r.refused(&Submit{ProductID: "p", JobID: "b", Submission: submission(keyed("three", "d"))}, fleet.DependencyCycle)
	if len(err.Cycle) != 3 || err.Cycle[0] != err.Cycle[2] {
		t.Errorf("cycle: got %v, want a path with first = last", err.Cycle)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	r := newReplica(t)
	a := submission(func(s *fleet.Submission) { s.IdempotencyKey, s.Deps = "a", []string{"key:b"} })
	b := submission(func(s *fleet.Submission) { s.IdempotencyKey = "b" })
	bad := submission(func(s *fleet.Submission) { s.Deps = []string{"nobody"} })
	r.refused(&SubmitBatch{ProductID: "p", JobIDs: []string{"1", "2", "3"}, Submissions: []fleet.Submission{a, b, bad}}, fleet.UnknownDependency)
	if _, ok := r.m.st.products.Get("p"); ok {
		t.Error("a refused batch left a product behind")
	}
	got := must1[*fleet.SubmitResults](r, &SubmitBatch{ProductID: "p", JobIDs: []string{"1", "2"}, Submissions: []fleet.Submission{a, b}})
	if got.Results[0].Job.Stage != fleet.Blocked || got.Results[1].Job.Stage != fleet.Queued {
		t.Errorf("batch: got %s and %s, want blocked and queued", got.Results[0].Job.Stage, got.Results[1].Job.Stage)
	}
}

func TestFailureBacksOffThenEndsInDeadLetter(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", func(s *fleet.Submission) { s.Retry = &fleet.Retry{Max: 1, Backoff: 10} })
	r.claim()
	if got := r.patch("a", report(1, fleet.Failed, "tests")); got.Stage != fleet.Queued || got.NotBefore != start.Add(10) {
		t.Errorf("first failure: got %s until %s, want queued until %s", got.Stage, got.NotBefore, start.Add(10))
	}
	if got := r.claim(); got.Job != nil {
		t.Error("a claim got a job that waits")
	}
	r.now = r.now.Add(11)
	must1[*Reaped](r, &Reap{})
	r.claim()
	if got := r.patch("a", report(2, fleet.Failed, "tests")); got.Stage != fleet.DeadLetter {
		t.Errorf("second failure: got %s, want dead_letter", got.Stage)
	}
}

func TestParkedJobIsTheOperators(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", nil)
	r.claim()
	r.patch("a", report(1, fleet.Review, ""))
	move := &OperatorPatch{ProductID: "p", JobID: "a", Report: fleet.Report{Stage: fleet.Shipped}}
	r.refused(move, fleet.PreconditionRequired)
	move.IfMatch.Any = true
	r.refused(move, fleet.IllegalTransition)
	must1[*fleet.Lease](r, &Release{ProductID: "p", JobID: "a", LeaseEpoch: 1})
	r.stage("a", fleet.Review)
	must1[*fleet.Job](r, move)
	r.stage("a", fleet.Shipped)
}

func TestBudgetEndsAJob(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 2)
	tokens, wall := int64(10), int64(5)
	r.submit("a", func(s *fleet.Submission) { s.Budget = &fleet.Budget{Tokens: &tokens} })
	r.submit("b", func(s *fleet.Submission) { s.Budget = &fleet.Budget{Wall: &wall} })
	r.claim()
	r.claim()
	spent := int64(11)
	q := report(1, fleet.Building, "")
	q.Insights = &fleet.Insights{TokensOut: &spent}
	if got := r.patch("a", q); got.Stage != fleet.Failed || got.Reason != "budget_exceeded" || got.LeaseEpoch != 2 {
		t.Errorf("tokens: got %s %q epoch %d", got.Stage, got.Reason, got.LeaseEpoch)
	}
	r.now = r.now.Add(6)
	must1[*Reaped](r, &Reap{})
	r.stage("b", fleet.Failed)
}

func TestReportsAreJudgedOneByOne(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", nil)
	r.claim()
	got := must1[*fleet.ReportResults](r, &Report{ProductID: "p", Reports: []fleet.JobReport{
		{JobID: "a", Report: report(1, fleet.Building, "")},
		{JobID: "nobody", Report: report(1, fleet.Building, "")},
		{JobID: "a", Report: report(1, fleet.Shipped, "")},
	}}).Results
	if got[0].Job.Stage != fleet.Building || got[1].Code != fleet.NotFound || got[2].Job.Stage != fleet.Shipped {
		t.Errorf("reports: got %+v", got)
	}
}

func TestWorkersWordIsSignedWithItsFactory(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", nil)
	r.claim()
	epoch := uint64(1)
	e := must1[*fleet.Event](r, &Comment{ProductID: "p", JobID: "a", LeaseEpoch: &epoch, Data: `{"factoryId":"f2","text":"50%"}`})
	if want := fleet.JSON(`{"factoryId":"f1","text":"50%"}`); e.Data != want {
		t.Errorf("comment: got %s, want %s", e.Data, want)
	}
	a := must1[*fleet.Artifact](r, &AddArtifact{ProductID: "p", JobID: "a", Request: fleet.ArtifactRequest{LeaseEpoch: &epoch, Name: "n", Kind: "log", URI: "file:x"}})
	if a.ID != "a-a1" || a.RunID != "a-1" {
		t.Errorf("artifact: got %+v", a)
	}
}

func TestFactoryBelongsToItsToken(t *testing.T) {
	st := newState()
	st.tokens.Set("t1", &token{doc: &fleet.Token{ID: "t1", Roles: []fleet.Role{fleet.RoleFactory}}})
	f := &factory{doc: &fleet.Factory{FactoryID: "f"}, owner: "t1"}
	if err := st.speaks(Caller{"t2"}, f); err == nil {
		t.Error("another token may speak for the factory")
	}
	st.tokens.Delete("t1")
	if err := st.speaks(Caller{"t2"}, f); err != nil {
		t.Errorf("after the owner's token was revoked: got %v, want none", err)
	}
}

// A job that kills its host must not go through the whole fleet: the fifth loss in a row is the last, unless it says otherwise.
func TestFifthLossIsTheLast(t *testing.T) {
	r := newReplica(t)
	for i := range 5 {
		r.heartbeat("f1", 1)
		if i == 0 {
			r.submit("a", nil)
		}
		r.claim()
		r.now = r.now.Add(61)
		must1[*Reaped](r, &Reap{})
		want := fleet.Queued
		if i == 4 {
			want = fleet.DeadLetter
		}
		if j := r.job("a"); j.Stage != want || j.LeaseLosses != int64(i+1) || j.Reason != "lease_expired" || j.Failures != 0 {
			t.Errorf("loss %d: got %s, %d losses, %q, want %s", i+1, j.Stage, j.LeaseLosses, j.Reason, want)
		}
	}
}

// A granted claim is a sign of life; one that finds nothing, or is refused, is none.
func TestClaimIsASignOfLife(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	seen := func() (at fleet.Time) {
		r.m.View(func(v View) { f, _ := v.Factory("p", "f1"); at = f.LastHeartbeatAt })
		return at
	}
	born := r.now
	r.now = r.now.Add(10)
	r.claim()
	if at := seen(); at != born {
		t.Errorf("after a claim that found nothing: got %v, want %v", at, born)
	}
	r.submit("a", nil)
	r.claim()
	if at := seen(); at != r.now {
		t.Errorf("after a claim: got %v, want %v", at, r.now)
	}
	granted := r.now
	r.now = r.now.Add(10)
	r.refused(&Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60}, fleet.SeatsExhausted)
	if at := seen(); at != granted {
		t.Errorf("after a claim that was refused: got %v, want %v", at, granted)
	}
}

// A job id is given out once.
func TestJobIDIsNew(t *testing.T) {
	r := newReplica(t)
	r.submit("a", nil)
	other := submission(func(s *fleet.Submission) { s.BodyMd = "other" })
	r.refused(&Submit{ProductID: "p", JobID: "a", Submission: other}, fleet.Internal)
	r.refused(&SubmitBatch{ProductID: "p", JobIDs: []string{"b", "b"}, Submissions: []fleet.Submission{other, other}}, fleet.Internal)
	if r.job("a").BodyMd != "do" {
		t.Error("the job was replaced")
	}
}

// A stamp that is behind leaves the machine's time where it is: no leader's clock turns it back.
func TestTimeNeverGoesBack(t *testing.T) {
	m := New()
	for i, c := range []struct{ stamp, want fleet.Time }{{epoch, epoch}, {epoch - 1e9, epoch}, {0, epoch}, {epoch + 1, epoch + 1}} {
		m.Apply(uint64(i+1), &Entry{Stamp: c.stamp, Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Noop{}}}})
		if got := m.Now(); got != c.want {
			t.Errorf("entry %d with the stamp %d: the time is %d, want %d", i+1, c.stamp, got, c.want)
		}
	}
}
