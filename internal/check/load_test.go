package check_test

// This file is the load of the tests: clients that do what factories, submitters and operators do, right and wrong.

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"

	"github.com/lysnrai/fleet/internal/check"
)

const product = "test"

// held is a lease as a client believes it.
type held struct {
	job     string
	factory string
	epoch   uint64
	stage   fleet.Stage
}

// load is what all clients of a run know together. All methods may be called at once.
type load struct {
	jobsMax int  // no more jobs than this are submitted; 0: no bound
	plain   bool // only what the model of a whole product knows

	mu       sync.Mutex // guards what follows
	made     int        // numbers what must be unique
	jobs     []string
	versions map[string]uint64 // as last seen
	keys     []string          // of submits
	leases   []held
}

func newLoad() *load { return &load{versions: map[string]uint64{}} }

// call is what a client does next: a proposal, or a read.
type call struct {
	proposal fsm.Proposal
	query    check.Query
}

var capabilities = []string{"go", "linux", "rust"}

func pointer[T any](v T) *T { return &v }

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// next draws a call. Client numbers start at 0; each belongs to one of three factories.
func (l *load) next(r *rand.Rand, client int) call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	c := l.draw(r, fmt.Sprintf("f%d", client%3))
	c.proposal.Caller = fsm.Caller{Actor: fsm.ActorRoot}
	c.proposal.Request = fmt.Sprintf("r%d", l.made)
	switch c.proposal.Command.(type) {
	case nil, *fsm.Renew, *fsm.Heartbeat: // these are not remembered
		return c
	}
	if r.IntN(2) == 0 {
		c.proposal.Key = fmt.Sprintf("k%d", l.made)
	}
	return c
}

func (l *load) draw(r *rand.Rand, factory string) call {
	do := func(c fsm.Command) call { return call{proposal: fsm.Proposal{Command: c}} }
	seconds := int64(5 + r.IntN(56))
	some := func() string { // a job, sometimes one that is not there
		if len(l.jobs) == 0 || r.IntN(50) == 0 {
			return "nowhere"
		}
		return l.jobs[len(l.jobs)-1-min(r.IntN(len(l.jobs)), r.IntN(len(l.jobs)))]
	}
	n := r.IntN(100)
	full := l.jobsMax > 0 && len(l.jobs) >= l.jobsMax
	var mine held
	for try := 0; len(l.leases) > 0 && try < 4 && mine.factory != factory; try++ {
		mine = pick(r, l.leases) // sometimes another's: whoever knows the epoch may speak
	}
	switch {
	case n < 4 && len(l.keys) > 0: // the same key again: existing, superseded or a conflict
		s := l.submission(r, true)
		s.IdempotencyKey = pick(r, l.keys)
		l.made++
		return do(&fsm.Submit{ProductID: product, JobID: fmt.Sprintf("j%d", l.made), Submission: s})
	case n < 14 && !full:
		s := l.submission(r, false)
		if r.IntN(2) == 0 {
			s.IdempotencyKey = fmt.Sprintf("s%d", l.made)
		}
		id := fmt.Sprintf("j%d", l.made)
		l.jobs = append(l.jobs, id) // known at once: calls that come too early are part of the test
		if s.IdempotencyKey != "" {
			l.keys = append(l.keys, s.IdempotencyKey)
		}
		return do(&fsm.Submit{ProductID: product, JobID: id, Submission: s})
	case n < 16 && !full && !l.plain:
		return do(l.batch(r))
	case n < 36:
		return do(&fsm.Claim{ProductID: product, FactoryID: factory, LeaseSeconds: seconds})
	case n < 38 && !l.plain:
		return do(&fsm.ClaimBatch{ProductID: product, FactoryID: factory, LeaseSeconds: seconds, Max: int64(1 + r.IntN(3))})
	case n < 43:
		return do(l.heartbeat(r, factory))
	case n < 49:
		return call{query: check.Query{Product: product, Subject: check.Jobs, ID: some()}}
	case n < 51:
		return call{query: check.Query{Product: product, Subject: check.Leases, ID: some()}}
	case n < 52:
		return call{query: check.Query{Product: product, Subject: check.Factories, ID: factory}}
	case n < 53:
		return call{query: check.Query{Product: "other", Subject: check.Jobs, ID: some()}}
	case n < 55:
		return do(&fsm.Cancel{ProductID: product, JobID: some(), Reason: "because"})
	case n < 59:
		return do(&fsm.Requeue{ProductID: product, JobID: some()})
	case n < 64:
		return do(l.operate(r, some()))
	case n < 65 && !l.plain:
		return do(&fsm.PutProfile{ProductID: product, Name: "coder", Snapshot: fleet.JSON(fmt.Sprintf(`{"n":%d}`, r.IntN(3)))})
	case mine.job == "":
		return do(&fsm.Claim{ProductID: product, FactoryID: factory, LeaseSeconds: seconds})
	case n < 70:
		return do(&fsm.Renew{ProductID: product, JobID: mine.job, LeaseEpoch: l.epoch(r, mine), LeaseSeconds: seconds * int64(r.IntN(2))})
	case n < 75:
		return do(&fsm.Release{ProductID: product, JobID: mine.job, LeaseEpoch: l.epoch(r, mine), DelaySeconds: max(0, int64(r.IntN(20)-10))})
	case n < 77:
		return do(&fsm.Comment{ProductID: product, JobID: mine.job, LeaseEpoch: pointer(l.epoch(r, mine)), Data: `{"text":"x"}`})
	case n < 78:
		return do(&fsm.AddArtifact{ProductID: product, JobID: mine.job, Request: fleet.ArtifactRequest{
			LeaseEpoch: pointer(l.epoch(r, mine)), Name: "log", Kind: "text", URI: "https://example.org/log",
		}})
	case n < 80 && !l.plain:
		var reports []fleet.JobReport
		for range 1 + r.IntN(3) {
			h := pick(r, l.leases)
			reports = append(reports, fleet.JobReport{JobID: h.job, Report: l.report(r, h)})
		}
		return do(&fsm.Report{ProductID: product, Reports: reports})
	}
	return do(&fsm.Patch{ProductID: product, JobID: mine.job, Report: l.report(r, mine)})
}

// epoch is mostly the right one.
func (l *load) epoch(r *rand.Rand, h held) uint64 {
	switch r.IntN(12) {
	case 0:
		return max(1, h.epoch-1)
	case 1:
		return h.epoch + 1
	}
	return h.epoch
}

func (l *load) submission(r *rand.Rand, again bool) fleet.Submission {
	s := fleet.Submission{BodyMd: fmt.Sprintf("text %d", r.IntN(3)), Priority: pick(r, fleet.Priorities[:])}
	if r.IntN(3) == 0 {
		s.Capabilities = []string{pick(r, capabilities)}
	}
	if len(l.jobs) > 0 && r.IntN(4) == 0 {
		for range 1 + r.IntN(2) {
			s.Deps = append(s.Deps, l.jobs[len(l.jobs)-1-r.IntN(min(len(l.jobs), 6))])
		}
		if len(s.Deps) == 2 && s.Deps[0] == s.Deps[1] {
			s.Deps = s.Deps[:1]
		}
		s.DepsMode = pick(r, []fleet.DepsMode{fleet.Hard, fleet.Soft})
	}
	if r.IntN(2) == 0 {
		s.Retry = &fleet.Retry{Max: int64(r.IntN(3)), Backoff: int64(r.IntN(2) * 3)}
		if r.IntN(3) == 0 {
			s.Retry.On = []string{"flaky"}
		}
		if r.IntN(2) == 0 {
			s.Retry.MaxLeaseLosses = pointer(int64(1 + r.IntN(3)))
		}
	}
	if r.IntN(4) == 0 {
		s.Budget = &fleet.Budget{Tokens: pointer(int64(1000))}
		if r.IntN(2) == 0 {
			s.Budget.USD = pointer(fleet.USD(2e9))
		}
		if r.IntN(2) == 0 {
			s.Budget.Wall = pointer(int64(20 + r.IntN(100)))
		}
	}
	if !again && !l.plain && r.IntN(20) == 0 {
		s.Profile = "coder" // perhaps unknown yet
	}
	s.Normalize()
	return s
}

// batch is a composite with children, or some jobs that name each other by key.
func (l *load) batch(r *rand.Rand) fsm.Command {
	b := &fsm.SubmitBatch{ProductID: product}
	add := func(s fleet.Submission) string {
		l.made++
		id := fmt.Sprintf("j%d", l.made)
		s.Normalize()
		b.JobIDs, b.Submissions = append(b.JobIDs, id), append(b.Submissions, s)
		return id
	}
	if r.IntN(3) == 0 {
		l.jobs = append(l.jobs, add(fleet.Submission{Kind: fleet.Composite, BodyMd: "all of it"}))
		return b
	}
	key := ""
	for i := range 1 + r.IntN(3) {
		s := l.submission(r, false)
		if key != "" && r.IntN(2) == 0 {
			s.Deps = append(s.Deps, "key:"+key)
		}
		if i == 0 && len(l.jobs) > 0 && r.IntN(3) == 0 {
			s.ParentID = pick(r, l.jobs) // mostly no composite
		}
		key = fmt.Sprintf("b%d-%d", l.made, i)
		s.IdempotencyKey = key
		l.jobs = append(l.jobs, add(s))
	}
	return b
}

func (l *load) heartbeat(r *rand.Rand, factory string) fsm.Command {
	b := fleet.HeartbeatRequest{FactoryID: factory, HeartbeatSeconds: pointer(int64(3600))}
	if r.IntN(3) == 0 {
		can := fleet.Strings{}
		for _, c := range capabilities {
			if r.IntN(3) > 0 {
				can = append(can, c)
			}
		}
		b.Capabilities = &can
	}
	if r.IntN(3) == 0 {
		b.SeatLimit = pointer(int64(1 + r.IntN(4)))
	}
	if r.IntN(8) == 0 {
		b.Health = fleet.HealthDown
	} else if r.IntN(2) == 0 {
		b.Health = fleet.HealthOK
	}
	named := map[string]bool{}
	for _, h := range l.leases {
		if h.factory == factory && r.IntN(2) == 0 && !named[h.job] && len(b.Leases) < 5 {
			named[h.job] = true
			b.Leases = append(b.Leases, fleet.HeldLease{JobID: h.job, LeaseEpoch: l.epoch(r, h)})
		}
	}
	return &fsm.Heartbeat{ProductID: product, Heartbeat: b}
}

func (l *load) operate(r *rand.Rand, id string) fsm.Command {
	p := &fsm.OperatorPatch{ProductID: product, JobID: id}
	switch n := r.IntN(10); {
	case n == 0: // no If-Match
	case n < 4:
		p.IfMatch.Any = true
	default:
		p.IfMatch.Versions = []uint64{max(1, l.versions[id])}
	}
	switch r.IntN(4) {
	case 0:
		p.Report.Checkpoint = &fleet.Checkpoint{WipCommit: fmt.Sprintf("c%d", l.made)}
	case 1:
		p.Report.Result = fleet.JSON(fmt.Sprintf(`{"by":%d}`, l.made))
	default:
		p.Report.Stage = pick(r, []fleet.Stage{fleet.Review, fleet.Testing, fleet.Shipped, fleet.Failed, fleet.Queued})
		if p.Report.Stage == fleet.Failed {
			p.Report.Reason = "rejected"
		}
	}
	return p
}

func (l *load) report(r *rand.Rand, h held) fleet.Report {
	rep := fleet.Report{LeaseEpoch: pointer(l.epoch(r, h))}
	switch n := r.IntN(20); {
	case n < 9:
		on := map[fleet.Stage]fleet.Stage{fleet.Assigned: fleet.Building, fleet.Building: fleet.Review, fleet.Review: fleet.Testing, fleet.Testing: fleet.Shipped}
		rep.Stage = on[h.stage]
	case n < 11:
		rep.Stage = pick(r, fleet.Stages[:])
	case n < 13:
		rep.Stage = fleet.Shipped
	case n < 15:
		rep.Stage = fleet.Failed
	}
	if rep.Stage == fleet.Failed {
		rep.Reason = pick(r, []string{"flaky", "broken"})
	}
	if r.IntN(4) == 0 {
		rep.Checkpoint = &fleet.Checkpoint{WipCommit: fmt.Sprintf("c%d", l.made)}
	}
	if r.IntN(4) == 0 {
		rep.Result = fleet.JSON(fmt.Sprintf(`{"n":%d}`, l.made))
	}
	if r.IntN(4) == 0 {
		rep.Insights = &fleet.Insights{TokensIn: pointer(int64(r.IntN(700)))}
		if r.IntN(2) == 0 {
			rep.Insights.CostUSD = pointer(fleet.USD(r.IntN(13)) * 1e8)
		}
		if r.IntN(2) == 0 {
			rep.Insights.TokensOut = pointer(int64(r.IntN(100)))
		}
	}
	return rep
}

// learn takes from an answer what a client remembers of it.
func (l *load) learn(c call, a fsm.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch d := a.Result.(type) {
	case *fleet.Claim:
		l.granted(d)
	case *fleet.Claims:
		for i := range d.Claims {
			l.granted(&d.Claims[i])
		}
	case *fleet.SubmitResult:
		l.versions[d.Job.ID] = d.Job.Version
	case *fleet.Job:
		l.versions[d.ID] = d.Version
		for i := range l.leases {
			if l.leases[i].job == d.ID && l.leases[i].epoch == d.LeaseEpoch {
				l.leases[i].stage = d.Stage
			}
		}
	}
}

func (l *load) granted(c *fleet.Claim) {
	if c.Job == nil {
		return
	}
	l.leases = append(l.leases, held{c.Job.ID, c.Lease.HolderFactoryID, c.Lease.LeaseEpoch, c.Job.Stage})
	l.leases = l.leases[max(0, len(l.leases)-12):] // old ones are zombies for a while, then forgotten
}
