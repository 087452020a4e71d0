package check

// This file is the load: clients that do what factories, submitters and operators do, right and wrong, and what they remember.

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// held is a lease as a client believes it.
type held struct {
	job     string
	factory string
	epoch   uint64
	stage   fleet.Stage
}

// Load is what all clients of a run know together. Its fields are set before the first call; all methods may be called at once.
type Load struct {
	Product string
	JobsMax int  // no more jobs than this are submitted; 0: no bound
	Plain   bool // only what the model of a whole product knows
	// Remote: clients call over HTTP. Nodes give jobs their ids, every write has a key, by which it is found in the log, and claims wait.
	Remote bool
	Text   func(*rand.Rand) string // of bodies and comments; nil: a few bytes

	mu       sync.Mutex // guards what follows
	made     int        // numbers what must be unique
	jobs     []string
	versions map[string]uint64 // as last seen
	keys     []string          // of submits
	leases   []held
}

// NewLoad is a load of one product.
func NewLoad(product string) *Load { return &Load{Product: product, versions: map[string]uint64{}} }

// Move is what a client does next: a proposal, or a read.
type Move struct {
	Proposal fsm.Proposal // its Command is nil for a read
	Query    Query        // of a read
	Wait     int64        // of a claim, in seconds
}

// Capabilities are all that jobs require.
var Capabilities = []string{"go", "linux", "rust"}

func pointer[T any](v T) *T { return &v }

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// Next draws a call. Client numbers start at 0; each belongs to one of three factories.
func (l *Load) Next(r *rand.Rand, client int) Move {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	c := l.draw(r, fmt.Sprintf("f%d", client%3))
	c.Proposal.Caller = fsm.Caller{Actor: fsm.ActorRoot}
	c.Proposal.Request = fmt.Sprintf("r%d", l.made)
	if l.Remote && c.Proposal.Command != nil {
		c.Proposal.Key, c.Proposal.Request = fmt.Sprintf("%s-k%d", l.Product, l.made), ""
		return c
	}
	switch c.Proposal.Command.(type) {
	case nil, *fsm.Renew, *fsm.Heartbeat: // these are not remembered
		return c
	}
	if r.IntN(2) == 0 {
		c.Proposal.Key = fmt.Sprintf("k%d", l.made)
	}
	return c
}

func (l *Load) draw(r *rand.Rand, factory string) Move {
	do := func(c fsm.Command) Move { return Move{Proposal: fsm.Proposal{Command: c}} }
	read := func(product string, s Subject, id string) Move {
		return Move{Query: Query{Product: product, Subject: s, ID: id}}
	}
	seconds := int64(5 + r.IntN(56))
	claim := func() Move {
		m := do(&fsm.Claim{ProductID: l.Product, FactoryID: factory, LeaseSeconds: seconds})
		if l.Remote {
			m.Wait = max(0, r.Int64N(8)-6)
		}
		return m
	}
	some := func() string { // a job, sometimes one that is not there
		if len(l.jobs) == 0 || r.IntN(50) == 0 {
			return "nowhere"
		}
		return l.jobs[len(l.jobs)-1-min(r.IntN(len(l.jobs)), r.IntN(len(l.jobs)))]
	}
	n := r.IntN(100)
	full := l.JobsMax > 0 && len(l.jobs) >= l.JobsMax
	var mine held
	for try := 0; len(l.leases) > 0 && try < 4 && mine.factory != factory; try++ {
		mine = pick(r, l.leases) // sometimes another's: whoever knows the epoch may speak
	}
	switch {
	case n < 4 && len(l.keys) > 0: // the same key again: existing, superseded or a conflict
		s := l.submission(r, true)
		s.IdempotencyKey = pick(r, l.keys)
		l.made++
		return do(&fsm.Submit{ProductID: l.Product, JobID: fmt.Sprintf("j%d", l.made), Submission: s})
	case n < 14 && !full:
		s := l.submission(r, false)
		if r.IntN(2) == 0 {
			s.IdempotencyKey = fmt.Sprintf("s%d", l.made)
		}
		id := fmt.Sprintf("j%d", l.made)
		if !l.Remote {
			l.jobs = append(l.jobs, id) // known at once: calls that come too early are part of the test
		}
		if s.IdempotencyKey != "" {
			l.keys = append(l.keys, s.IdempotencyKey)
		}
		return do(&fsm.Submit{ProductID: l.Product, JobID: id, Submission: s})
	case n < 16 && !full && !l.Plain:
		return do(l.batch(r))
	case n < 36:
		return claim()
	case n < 38 && !l.Plain:
		return do(&fsm.ClaimBatch{ProductID: l.Product, FactoryID: factory, LeaseSeconds: seconds, Max: int64(1 + r.IntN(3))})
	case n < 43:
		return do(l.heartbeat(r, factory))
	case n < 49:
		return read(l.Product, Jobs, some())
	case n < 51:
		return read(l.Product, Leases, some())
	case n < 52:
		return read(l.Product, Factories, factory)
	case n < 53:
		return read("other", Jobs, some())
	case n < 55:
		return do(&fsm.Cancel{ProductID: l.Product, JobID: some(), Reason: "because"})
	case n < 59:
		return do(&fsm.Requeue{ProductID: l.Product, JobID: some()})
	case n < 64:
		return do(l.operate(r, some()))
	case n < 65 && !l.Plain:
		return do(&fsm.PutProfile{ProductID: l.Product, Name: "coder", Snapshot: fleet.JSON(fmt.Sprintf(`{"n":%d}`, r.IntN(3)))})
	case mine.job == "":
		return claim()
	case n < 70:
		return do(&fsm.Renew{ProductID: l.Product, JobID: mine.job, LeaseEpoch: epoch(r, mine), LeaseSeconds: seconds * int64(r.IntN(2))})
	case n < 75:
		return do(&fsm.Release{ProductID: l.Product, JobID: mine.job, LeaseEpoch: epoch(r, mine), DelaySeconds: max(0, int64(r.IntN(20)-10))})
	case n < 77:
		return do(&fsm.Comment{ProductID: l.Product, JobID: mine.job, LeaseEpoch: pointer(epoch(r, mine)), Data: fleet.JSON(fmt.Sprintf(`{"text":%q}`, l.text(r)))})
	case n < 78:
		return do(&fsm.AddArtifact{ProductID: l.Product, JobID: mine.job, Request: fleet.ArtifactRequest{
			LeaseEpoch: pointer(epoch(r, mine)), Name: "log", Kind: "text", URI: "https://example.org/log",
		}})
	case n < 80 && !l.Plain:
		var reports []fleet.JobReport
		for range 1 + r.IntN(3) {
			h := pick(r, l.leases)
			reports = append(reports, fleet.JobReport{JobID: h.job, Report: l.report(r, h)})
		}
		return do(&fsm.Report{ProductID: l.Product, Reports: reports})
	}
	return do(&fsm.Patch{ProductID: l.Product, JobID: mine.job, Report: l.report(r, mine)})
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

func (l *Load) text(r *rand.Rand) string {
	if l.Text != nil {
		return l.Text(r)
	}
	return fmt.Sprintf("text %d", r.IntN(3))
}

func (l *Load) submission(r *rand.Rand, again bool) fleet.Submission {
	s := fleet.Submission{BodyMd: l.text(r), Priority: pick(r, fleet.Priorities[:])}
	if r.IntN(3) == 0 {
		s.Capabilities = []string{pick(r, Capabilities)}
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
	if !again && !l.Plain && r.IntN(20) == 0 {
		s.Profile = "coder" // perhaps unknown yet
	}
	s.Normalize()
	return s
}

// batch is a composite with children, or some jobs that name each other by key.
func (l *Load) batch(r *rand.Rand) fsm.Command {
	b := &fsm.SubmitBatch{ProductID: l.Product}
	add := func(s fleet.Submission) {
		l.made++
		id := fmt.Sprintf("j%d", l.made)
		s.Normalize()
		b.JobIDs, b.Submissions = append(b.JobIDs, id), append(b.Submissions, s)
		if !l.Remote {
			l.jobs = append(l.jobs, id)
		}
	}
	if r.IntN(3) == 0 {
		add(fleet.Submission{Kind: fleet.Composite, BodyMd: "all of it"})
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
		add(s)
	}
	return b
}

func (l *Load) heartbeat(r *rand.Rand, factory string) fsm.Command {
	b := fleet.HeartbeatRequest{FactoryID: factory, HeartbeatSeconds: pointer(int64(3600))}
	if r.IntN(3) == 0 {
		can := fleet.Strings{}
		for _, c := range Capabilities {
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
			b.Leases = append(b.Leases, fleet.HeldLease{JobID: h.job, LeaseEpoch: epoch(r, h)})
		}
	}
	b.Normalize()
	return &fsm.Heartbeat{ProductID: l.Product, Heartbeat: b}
}

func (l *Load) operate(r *rand.Rand, id string) fsm.Command {
	p := &fsm.OperatorPatch{ProductID: l.Product, JobID: id}
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

func (l *Load) report(r *rand.Rand, h held) fleet.Report {
	rep := fleet.Report{LeaseEpoch: pointer(epoch(r, h))}
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

// Learn takes from an answer what clients remember of it.
func (l *Load) Learn(a fsm.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	submitted := func(s *fleet.SubmitResult) {
		if l.Remote && s.Outcome == fleet.Created {
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

func (l *Load) granted(c *fleet.Claim) {
	if c.Job == nil {
		return
	}
	l.leases = append(l.leases, held{c.Job.ID, c.Lease.HolderFactoryID, c.Lease.LeaseEpoch, c.Job.Stage})
	l.leases = l.leases[max(0, len(l.leases)-12):] // old ones are zombies for a while, then forgotten
}
