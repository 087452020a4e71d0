package chaos

// This file is the load: clients that do what factories, submitters and operators do, right and wrong, and what they remember.

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

// held is a lease as a client believes it.
type held struct {
	job, factory string
	epoch        uint64
	stage        fleet.Stage
}

// load is what all clients of a run know together. All methods may be called at once.
type load struct {
	mu       sync.Mutex // guards what follows
	made     int        // numbers what must be unique
	jobs     []string
	versions map[string]uint64 // as last seen
	keys     []string          // of submits
	leases   []held
}

func newLoad() *load { return &load{versions: map[string]uint64{}} }

var capabilities = []string{"go", "linux", "rust"}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// next draws a call. Each client belongs to one of three factories.
func (l *load) next(r *rand.Rand, client int) call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	c := l.draw(r, fmt.Sprintf("f%d", client%3))
	if c.command != nil {
		l.made++
		c.key = fmt.Sprintf("k%d", l.made)
	}
	return c
}

func (l *load) draw(r *rand.Rand, factory string) call {
	do := func(c fsm.Command) call { return call{command: c} }
	read := func(s check.Subject, id string) call {
		return call{query: check.Query{Product: Product, Subject: s, ID: id}}
	}
	seconds := int64(5 + r.IntN(56))
	claim := func() call {
		return call{command: &fsm.Claim{ProductID: Product, FactoryID: factory, LeaseSeconds: seconds}, wait: max(0, r.Int64N(8)-6)}
	}
	some := func() string { // a job, mostly a young one, sometimes one that is not there
		if len(l.jobs) == 0 || r.IntN(50) == 0 {
			return "nowhere"
		}
		return l.jobs[len(l.jobs)-1-min(r.IntN(len(l.jobs)), r.IntN(len(l.jobs)))]
	}
	var mine held
	for try := 0; len(l.leases) > 0 && try < 4 && mine.factory != factory; try++ {
		mine = pick(r, l.leases) // sometimes another's: whoever knows the epoch may speak
	}
	switch n := r.IntN(100); {
	case n < 4 && len(l.keys) > 0: // the same key again: existing, superseded or a conflict
		s := l.submission(r)
		s.IdempotencyKey = pick(r, l.keys)
		return do(&fsm.Submit{ProductID: Product, JobID: fmt.Sprintf("unknown%d", l.made), Submission: s})
	case n < 20:
		s := l.submission(r)
		s.IdempotencyKey = fmt.Sprintf("s%d", l.made)
		l.keys = append(l.keys, s.IdempotencyKey)
		return do(&fsm.Submit{ProductID: Product, JobID: fmt.Sprintf("unknown%d", l.made), Submission: s})
	case n < 22:
		return do(l.batch(r))
	case n < 38:
		return claim()
	case n < 40:
		return do(&fsm.ClaimBatch{ProductID: Product, FactoryID: factory, LeaseSeconds: seconds, Max: int64(1 + r.IntN(3))})
	case n < 45:
		return do(l.heartbeat(r, factory))
	case n < 51:
		return read(check.Jobs, some())
	case n < 53:
		return read(check.Leases, some())
	case n < 54:
		return read(check.Factories, factory)
	case n < 56:
		return do(&fsm.Cancel{ProductID: Product, JobID: some(), Reason: "because"})
	case n < 59:
		return do(&fsm.Requeue{ProductID: Product, JobID: some()})
	case n < 63:
		return do(l.operate(r, some()))
	case n < 64:
		return do(&fsm.PutProfile{ProductID: Product, Name: "coder", Snapshot: fleet.JSON(fmt.Sprintf(`{"n":%d}`, r.IntN(3)))})
	case mine.job == "":
		return claim()
	case n < 68:
		return do(&fsm.Renew{ProductID: Product, JobID: mine.job, LeaseEpoch: epoch(r, mine), LeaseSeconds: seconds * int64(r.IntN(2))})
	case n < 73:
		return do(&fsm.Release{ProductID: Product, JobID: mine.job, LeaseEpoch: epoch(r, mine), DelaySeconds: max(0, int64(r.IntN(20)-10))})
	case n < 76:
		e := epoch(r, mine)
		return do(&fsm.Comment{ProductID: Product, JobID: mine.job, LeaseEpoch: &e, Data: fleet.JSON(fmt.Sprintf(`{"text":%q}`, text(r)))})
	case n < 78:
		e := epoch(r, mine)
		return do(&fsm.AddArtifact{ProductID: Product, JobID: mine.job, Request: fleet.ArtifactRequest{
			LeaseEpoch: &e, Name: "log", Kind: "text", URI: "https://example.org/log",
		}})
	case n < 81:
		var reports []fleet.JobReport
		for range 1 + r.IntN(3) {
			h := pick(r, l.leases)
			reports = append(reports, fleet.JobReport{JobID: h.job, Report: l.report(r, h)})
		}
		return do(&fsm.Report{ProductID: Product, Reports: reports})
	}
	return do(&fsm.Patch{ProductID: Product, JobID: mine.job, Report: l.report(r, mine)})
}

// text is long enough to fill a segment of 64 KiB every second or so.
func text(r *rand.Rand) string {
	return strings.Repeat(pick(r, []string{"lorem ", "ipsum ", "dolor "}), 100+r.IntN(900))
}

// epoch is mostly the right one.
func epoch(r *rand.Rand, h held) uint64 {
	switch r.IntN(12) {
	case 0:
		return max(1, h.epoch-1)
	case 1:
		return h.epoch + 1
	}
	return h.epoch
}

func (l *load) submission(r *rand.Rand) fleet.Submission {
	s := fleet.Submission{BodyMd: text(r), Priority: pick(r, fleet.Priorities[:])}
	if r.IntN(3) == 0 {
		s.Capabilities = []string{pick(r, capabilities)}
	}
	if len(l.jobs) > 0 && r.IntN(4) == 0 {
		s.Deps = []string{l.jobs[len(l.jobs)-1-r.IntN(min(len(l.jobs), 6))]}
		s.DepsMode = pick(r, []fleet.DepsMode{fleet.Hard, fleet.Soft})
	}
	if r.IntN(2) == 0 {
		losses := int64(1 + r.IntN(3))
		s.Retry = &fleet.Retry{Max: int64(r.IntN(3)), Backoff: int64(r.IntN(2) * 3), MaxLeaseLosses: &losses}
		if r.IntN(3) == 0 {
			s.Retry.On = []string{"flaky"}
		}
	}
	if r.IntN(4) == 0 {
		tokens, dollars := int64(1000), fleet.USD(2e9)
		s.Budget = &fleet.Budget{Tokens: &tokens, USD: &dollars}
	}
	s.Normalize()
	return s
}

// batch is a composite, or some jobs that name each other by key.
func (l *load) batch(r *rand.Rand) fsm.Command {
	b := &fsm.SubmitBatch{ProductID: Product}
	add := func(s fleet.Submission) {
		l.made++
		s.Normalize()
		b.JobIDs, b.Submissions = append(b.JobIDs, fmt.Sprintf("unknown%d", l.made)), append(b.Submissions, s)
	}
	if r.IntN(3) == 0 {
		add(fleet.Submission{Kind: fleet.Composite, BodyMd: "all of it"})
		return b
	}
	key := ""
	for i := range 1 + r.IntN(3) {
		s := l.submission(r)
		if key != "" && r.IntN(2) == 0 {
			s.Deps = append(s.Deps, "key:"+key)
		}
		if i == 0 && len(l.jobs) > 0 && r.IntN(3) == 0 {
			s.ParentID = pick(r, l.jobs) // mostly no composite
		}
		key = fmt.Sprintf("b%d-%d", l.made, i)
		s.IdempotencyKey = key
		add(s)
	}
	return b
}

func (l *load) heartbeat(r *rand.Rand, factory string) fsm.Command {
	beat := int64(3600)
	b := fleet.HeartbeatRequest{FactoryID: factory, HeartbeatSeconds: &beat}
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
		seats := int64(1 + r.IntN(4))
		b.SeatLimit = &seats
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
			b.Leases = append(b.Leases, fleet.HeldLease{JobID: h.job, LeaseEpoch: epoch(r, h)})
		}
	}
	b.Normalize()
	return &fsm.Heartbeat{ProductID: Product, Heartbeat: b}
}

func (l *load) operate(r *rand.Rand, id string) fsm.Command {
	p := &fsm.OperatorPatch{ProductID: Product, JobID: id}
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
	e := epoch(r, h)
	rep := fleet.Report{LeaseEpoch: &e}
	switch n := r.IntN(20); {
	case n < 9:
		on := map[fleet.Stage]fleet.Stage{
			fleet.Assigned: fleet.Building, fleet.Building: fleet.Review, fleet.Review: fleet.Testing, fleet.Testing: fleet.Shipped,
		}
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
		in, out, dollars := int64(r.IntN(700)), int64(r.IntN(100)), fleet.USD(r.IntN(13))*1e8
		rep.Insights = &fleet.Insights{TokensIn: &in, TokensOut: &out, CostUSD: &dollars}
	}
	return rep
}

// learn takes from an answer what clients remember of it.
func (l *load) learn(a fsm.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	submitted := func(s *fleet.SubmitResult) {
		if s.Outcome == fleet.Created {
			l.jobs = append(l.jobs, s.Job.ID)
		}
		l.versions[s.Job.ID] = s.Job.Version
	}
	switch d := a.Result.(type) {
	case *fleet.Claim:
		l.granted(d)
	case *fleet.Claims:
		for i := range d.Claims {
			l.granted(&d.Claims[i])
		}
	case *fleet.SubmitResult:
		submitted(d)
	case *fleet.SubmitResults:
		for i := range d.Results {
			submitted(&d.Results[i])
		}
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
