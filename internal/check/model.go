package check

// This file is the contract of one job, written from docs/semantics.md for porcupine, not from the state machine's code.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/lysnrai/fleet"
)

// Op is what a Call asks for.
type Op string

// The calls that the models know. Expire is nobody's call: it is a lease that the reaper took, as the feed shows it.
const (
	OpSubmit    Op = "submit"
	OpClaim     Op = "claim"
	OpPatch     Op = "patch"    // a holder's
	OpOperate   Op = "operate"  // an operator's patch
	OpRenew     Op = "renew"    // also one lease of a heartbeat
	OpRelease   Op = "release"  //
	OpAttach    Op = "attach"   // a holder's comment or artifact
	OpCancel    Op = "cancel"   //
	OpRequeue   Op = "requeue"  //
	OpRead      Op = "read"     // a job
	OpLease     Op = "lease"    // reads a lease
	OpExpire    Op = "expire"   // hidden
	OpOverspend Op = "overtime" // hidden: the reaper found budget.wall passed
	OpBeat      Op = "beat"     // a factory's heartbeat; only in a product
)

// anything stands for a text about which the contract says nothing.
const anything = "*"

// Call is one call as the models see it.
type Call struct {
	Op      Op
	Job     string
	Factory string // who claims or beats; the reaper's victim is not named
	Epoch   uint64 // the fence; of OpExpire and OpOverspend the epoch that they made
	Stage   fleet.Stage
	Reason  string
	Result  string
	// Checkpoint is the commit; the models are given nothing else of it.
	Checkpoint          string
	TokensIn, TokensOut *int64 // absolute, of the open run
	USD                 *fleet.USD
	Delay               bool   // of a release
	IfMatch             uint64 // the version an operator saw; 0: no If-Match
	Any                 bool   // If-Match: *
	Ask                 Ask    // what is submitted
	Beat                Beat   // what a heartbeat sets
}

// Ask is what matters of a submission. It is comparable.
type Ask struct {
	Key        string
	Content    string // equal for equal contents
	Priority   int    // 0 is the most urgent
	Needs      string // capabilities, joined by commas
	Deps       string // ids, joined by commas, keys resolved
	Soft       bool
	Later      bool // a notBefore was submitted
	Checkpoint string
	Retry      bool // there is a policy
	Max        int64
	On         string // reasons, joined by commas
	Losses     int64  // maxLeaseLosses, with its default
	Tokens     int64  // budget; -1: none
	USD        fleet.USD
	Wall       bool // budget.wall is set
}

// Reply is what a caller was told.
type Reply struct {
	Unknown bool       // it may have happened, at any time since the call, or not
	Code    fleet.Code // the refusal; "" done
	Current uint64     // of a stale_epoch
	Outcome fleet.SubmitOutcome
	Job     *Shown // the job, where the call answers one
	Lease   *ShownLease
	Granted string // the claimed job; "" none
	Active  int64  // activeLeases of a heartbeat's answer
}

// Shown is what matters of an answered job.
type Shown struct {
	Stage                      fleet.Stage
	Epoch, Version             uint64
	Attempt, Failures, Losses  int64
	Reason, Checkpoint, Result string
}

// ShownLease is what matters of an answered lease.
type ShownLease struct {
	Held   bool
	Holder string
	Epoch  uint64
}

// job is the state of one job. Queued stands for queued and blocked: which of them depends on other jobs.
type job struct {
	stage                      fleet.Stage // "" before it is submitted
	holder                     string      // "" without a lease
	epoch                      uint64
	attempt, failures, losses  int64
	reason, checkpoint, result string
	waits                      bool // a time may keep it from being claimed
	ask                        Ask
	spent                      int64 // tokens of closed runs since the last requeue
	in, out                    int64 // tokens of the open run
	spentUSD, usd              fleet.USD

	// version is the job's at least; exact once an answer showed it and until something hidden may have moved it.
	version uint64
	exact   bool
}

// outcome is one thing that the contract lets a call come to. What a success shows is a function of the next state.
type outcome struct {
	next  job
	code  fleet.Code
	moved bool // the job's version must have grown
	pure  bool // nothing may have changed
	found fleet.SubmitOutcome
}

func refuse(s job, code fleet.Code) []outcome { return []outcome{{next: s, code: code}} }
func moved(next job) outcome                  { return outcome{next: next, moved: true} }

// steps is all that a call on one job may come to. A claim is a granted one: the job was chosen by others' rules.
func (s job) steps(c Call) []outcome {
	switch {
	case c.Op == OpSubmit:
		return s.submit(c)
	case s.stage == "":
		return refuse(s, fleet.NotFound)
	case c.Op == OpRead, c.Op == OpLease:
		return []outcome{{next: s, pure: true}}
	case c.Op == OpClaim:
		return s.claim(c.Factory)
	case c.Op == OpOperate:
		return s.operate(c)
	case c.Op == OpCancel && s.stage.Terminal(), c.Op == OpRequeue && s.stage != fleet.Failed && s.stage != fleet.DeadLetter:
		return refuse(s, fleet.IllegalTransition)
	case c.Op == OpCancel:
		return []outcome{moved(s.fence().end(fleet.Failed, "cancelled"))}
	case c.Op == OpRequeue:
		return []outcome{moved(s.requeue())}
	case c.Op == OpExpire:
		return s.expire(c)
	case c.Op == OpOverspend:
		if !s.ask.Wall || s.holder == "" || c.Epoch != s.epoch+1 {
			return nil
		}
		return []outcome{moved(s.fence().end(fleet.Failed, "budget_exceeded"))}
	case s.holder == "" || s.epoch != c.Epoch: // from here on the holder's calls
		return refuse(s, fleet.StaleEpoch)
	case c.Op == OpRenew, c.Op == OpAttach:
		return []outcome{{next: s}}
	case c.Op == OpRelease:
		return s.release(c)
	case c.Op == OpPatch:
		return s.patch(c)
	}
	panic("unknown op " + c.Op)
}

// submit makes the job, finds it, or supersedes it.
func (s job) submit(c Call) []outcome {
	switch {
	case s.stage == "":
		return []outcome{{next: job{
			stage: fleet.Queued, ask: c.Ask, checkpoint: c.Ask.Checkpoint, waits: c.Ask.Later,
		}, moved: true, found: fleet.Created}}
	case s.ask.Content == c.Ask.Content:
		return []outcome{{next: s, pure: true, found: fleet.Existing}}
	case s.stage == fleet.Queued:
		s.ask, s.checkpoint = c.Ask, c.Ask.Checkpoint
		s.failures, s.losses, s.reason, s.result = 0, 0, "", anything
		s.waits = s.waits || c.Ask.Later
		return []outcome{{next: s, moved: true, found: fleet.Superseded}}
	}
	return refuse(s, fleet.IdempotencyConflict)
}

func (s job) claim(factory string) []outcome {
	if s.stage != fleet.Queued {
		return nil
	}
	s.stage, s.holder, s.waits = fleet.Assigned, factory, false
	s.epoch, s.attempt = s.epoch+1, s.attempt+1
	s.reason = anything
	return []outcome{moved(s)}
}

// closed is the job after its open run, if there is one, was closed and its lease is gone.
func (s job) closed() job {
	s.spent, s.in, s.out = s.spent+s.in+s.out, 0, 0
	s.spentUSD, s.usd = s.spentUSD+s.usd, 0
	s.holder = ""
	return s
}

// fence raises the epoch, so that whoever held the job holds it no more.
func (s job) fence() job {
	s.epoch++
	return s
}

func (s job) end(stage fleet.Stage, reason string) job {
	s = s.closed()
	s.stage, s.reason, s.waits = stage, reason, false
	return s
}

// back is the job in line again.
func (s job) back() job {
	s = s.closed()
	s.stage = fleet.Queued
	return s
}

func (s job) requeue() job {
	s.stage, s.waits = fleet.Queued, false
	s.failures, s.losses, s.spent, s.spentUSD = 0, 0, 0, 0
	s.reason, s.result = "", ""
	return s
}

// expire is a lease that ran out: no verdict on the work, unless it happens too often in a row.
func (s job) expire(c Call) []outcome {
	if s.holder == "" || c.Epoch != s.epoch+1 {
		return nil
	}
	s = s.fence()
	s.losses++
	switch {
	case c.Reason != "": // by the time that the reaper came, the lease had lasted longer than budget.wall too; or the budget had shrunk
		if !s.ask.Wall && !s.overspent() {
			return nil
		}
		return []outcome{moved(s.end(fleet.Failed, c.Reason))}
	case s.overspent():
		return nil
	case s.losses >= s.ask.Losses:
		return []outcome{moved(s.end(fleet.DeadLetter, "lease_expired"))}
	}
	s = s.back()
	s.reason = "lease_expired"
	return []outcome{moved(s)}
}

func (s job) release(c Call) []outcome {
	var all []outcome
	if s.ask.Wall { // it may have been late, and the reaper later still
		all = forgiving(s.fence().end(fleet.Failed, "budget_exceeded"))
	}
	s.losses, s.reason = 0, anything
	if s.stage == fleet.Review || s.stage == fleet.Testing { // parked
		return append(all, moved(s.closed()))
	}
	s = s.back()
	s.waits = s.waits || c.Delay
	return append(all, moved(s))
}

// overspent is that tokens or money pass the budget. One that was superseded may have a smaller budget than it has spent.
func (s job) overspent() bool {
	return s.ask.Tokens >= 0 && s.spent+s.in+s.out > s.ask.Tokens || s.ask.USD >= 0 && s.spentUSD+s.usd > s.ask.USD
}

// patch is what the holder reports.
func (s job) patch(c Call) []outcome {
	was := s.stage
	if c.Stage != "" && c.Stage != was && !legal(was, c.Stage) {
		return refuse(s, fleet.IllegalTransition)
	}
	if c.Checkpoint != "" {
		if c.Checkpoint != s.checkpoint {
			s.losses = 0
		}
		s.checkpoint = c.Checkpoint
	}
	if c.Result != "" {
		s.result = c.Result
	}
	if c.TokensIn != nil {
		s.in = *c.TokensIn
	}
	if c.TokensOut != nil {
		s.out = *c.TokensOut
	}
	if c.USD != nil {
		s.usd = *c.USD
	}
	if c.Reason != "" {
		s.reason = anything
	}
	var all []outcome
	overspent := s.overspent()
	if overspent || s.ask.Wall { // whether the stage of the same report still counts is not said, nor whether its losses do
		all = forgiving(s.fence().end(fleet.Failed, "budget_exceeded"))
		if overspent && c.Stage != fleet.Shipped && c.Stage != fleet.Failed {
			return all
		}
	}
	switch c.Stage {
	case "", was:
		return append(all, outcome{next: s})
	case fleet.Failed:
		return append(all, s.fail(c.Reason)...)
	case fleet.Shipped:
		s = s.end(fleet.Shipped, anything)
		return append(all, forgiving(s)...)
	}
	if c.Stage.Index() > was.Index() {
		s.losses = 0
	}
	s.stage = c.Stage
	return append(all, moved(s))
}

// forgiving is a job whose lease losses may or may not be forgotten: the contract calls them "in a row" and speaks of
// moves to a later stage, but not of the end.
func forgiving(s job) []outcome {
	all := []outcome{moved(s)}
	if s.losses > 0 {
		s.losses = 0
		all = append(all, moved(s))
	}
	return all
}

// legal says whether a holder may move a job on.
func legal(from, to fleet.Stage) bool {
	switch to {
	case fleet.Building, fleet.Review, fleet.Testing, fleet.Shipped, fleet.Failed:
		return true
	}
	return false
}

// fail is a reported failure and what the retry policy makes of it.
func (s job) fail(reason string) []outcome {
	s.failures++
	switch retried := s.ask.Retry && (s.ask.On == "" || slices.Contains(strings.Split(s.ask.On, ","), reason)); {
	case !retried:
		return forgiving(s.end(fleet.Failed, reason))
	case s.failures > s.ask.Max:
		return forgiving(s.end(fleet.DeadLetter, reason))
	}
	s = s.back()
	s.reason, s.waits = reason, true
	return forgiving(s)
}

// operate is an operator's patch: the decision at a gate, or an amendment of a job that nobody holds.
func (s job) operate(c Call) []outcome {
	switch {
	case !c.Any && c.IfMatch == 0:
		return refuse(s, fleet.PreconditionRequired)
	case !c.Any && (c.IfMatch < s.version || s.known() && c.IfMatch != s.version):
		return refuse(s, fleet.VersionMismatch)
	}
	all := s.decide(c)
	if !c.Any && !s.known() {
		all = append(all, outcome{next: s, code: fleet.VersionMismatch})
	}
	return all
}

func (s job) decide(c Call) []outcome {
	parked := (s.stage == fleet.Review || s.stage == fleet.Testing) && s.holder == ""
	if s.holder != "" {
		return refuse(s, fleet.IllegalTransition)
	}
	was := s
	if c.Checkpoint != "" {
		s.checkpoint = c.Checkpoint
	}
	if c.Result != "" {
		s.result = c.Result
	}
	if c.Reason != "" {
		s.reason = anything
	}
	// A new checkpoint forgets lost leases; whether an operator's does is not said.
	loose := func(s job) []outcome {
		if c.Checkpoint != "" || c.Stage != "" {
			return forgiving(s)
		}
		return []outcome{moved(s)}
	}
	switch {
	case c.Stage == "", c.Stage == s.stage:
		all := loose(s)
		for i := range all {
			all[i].moved = false
		}
		if c.Stage == fleet.Queued && s.ask.Deps != "" { // it may be blocked, which is another stage
			all = append(all, outcome{next: was, code: fleet.IllegalTransition})
		}
		return all
	case !parked:
		return refuse(was, fleet.IllegalTransition)
	}
	switch c.Stage {
	case fleet.Review, fleet.Testing:
		s.stage = c.Stage
		return loose(s)
	case fleet.Shipped:
		return loose(s.end(fleet.Shipped, anything))
	case fleet.Failed:
		return loose(s.end(fleet.Failed, c.Reason)) // no worker failed: the retry policy has no say
	case fleet.Queued:
		return loose(s.back())
	}
	return refuse(was, fleet.IllegalTransition)
}

// known reports whether the version is exactly known: in line, deps and times that come due move it unseen.
func (s job) known() bool { return s.exact && s.stage != fleet.Queued }

// fits takes a step if the answer is what its outcome shows. inLine lists how a job in line may be called.
func (o outcome) fits(was job, c Call, r Reply, inLine ...fleet.Stage) (job, bool) {
	next := o.next
	if r.Unknown {
		next.exact = next.exact && o.pure
		return next, o.code == ""
	}
	if r.Code != o.code {
		return next, false
	}
	if r.Code != "" {
		return next, r.Code != fleet.StaleEpoch || r.Current == was.epoch
	}
	if c.Op == OpSubmit && r.Outcome != o.found {
		return next, false
	}
	if l := r.Lease; l != nil && (l.Held != (next.holder != "") || l.Epoch != next.epoch || l.Held && l.Holder != next.holder) {
		return next, false
	}
	if c.Op == OpOperate && !c.Any {
		was.version = c.IfMatch
	}
	if r.Job == nil {
		if o.moved {
			next.version++
		}
		next.exact = was.exact && !o.moved && c.Op == OpLease
		return next, true
	}
	j := *r.Job
	switch {
	case next.stage == fleet.Queued && !slices.Contains(inLine, j.Stage), next.stage != fleet.Queued && j.Stage != next.stage,
		j.Epoch != next.epoch, j.Attempt != next.attempt, j.Failures != next.failures, j.Losses != next.losses,
		next.reason != anything && j.Reason != next.reason,
		next.checkpoint != anything && j.Checkpoint != next.checkpoint,
		next.result != anything && j.Result != next.result,
		j.Version < was.version, o.moved && j.Version == was.version,
		o.pure && was.known() && j.Version != was.version:
		return next, false
	}
	next.version, next.exact = j.Version, true
	if next.reason == anything { // what was once seen stays until something changes it
		next.reason = j.Reason
	}
	return next, true
}

// JobModel judges the history of one job: split a history with History.Jobs first.
var JobModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{job{}} },
	Step: func(state, in, out any) []any {
		s, c, r := state.(job), in.(Call), out.(Reply)
		inLine := []fleet.Stage{fleet.Queued}
		if s.ask.Deps != "" || c.Ask.Deps != "" {
			inLine = append(inLine, fleet.Blocked)
		}
		var states []any
		if r.Unknown {
			states = append(states, s)
		}
		for _, o := range s.steps(c) {
			if next, ok := o.fits(s, c, r, inLine...); ok {
				states = append(states, next)
			}
		}
		return states
	},
	DescribeOperation: describe,
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()
