package fsm

// This file runs the transcripts in testdata: commands as a story, one entry each, with what they answer.
//
// Every step is also a test of three promises: the entry means the same after its bytes were written and read, a refusal
// changes nothing, and a replica restored from a snapshot before the step ends in the same state.

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/lysnrai/fleet"
)

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := &story{t: t, m: New(), now: epoch, product: "p"}
		datadriven.RunTest(t, path, s.step)
	})
}

// epoch is when every story begins.
const epoch = fleet.Time(1_700_000_000 * 1e9)

// story is one transcript being run.
type story struct {
	t       *testing.T
	m       *Machine
	now     fleet.Time
	index   uint64
	jobs    int
	product string
	actor   string
}

// step runs one directive.
func (s *story) step(t *testing.T, d *datadriven.TestData) string {
	s.t = t
	a := args{d}
	switch d.Cmd {
	case "advance":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		s.now += fleet.Time(by)
		return "now=" + s.ago(s.now)
	case "as": // who speaks from here on: root, anonymous, fleet or a token's id
		s.actor = d.CmdArgs[0].Key
		return "ok"
	case "in": // the product from here on
		s.product = d.CmdArgs[0].Key
		return "ok"
	}
	if out, ok := s.read(d.Cmd, a); ok {
		return out
	}
	c := s.command(d.Cmd, a)
	if c == nil {
		t.Fatalf("%s: unknown directive %s", d.Pos, d.Cmd)
	}
	return s.propose(c, a)
}

// propose applies a command as one entry and shows its answer.
func (s *story) propose(c Command, a args) string {
	actor := s.actor
	if actor == "" {
		actor = ActorRoot
	}
	if c.role() == "" {
		actor = ActorFleet
	}
	key := a.str("idem")
	request := a.str("request")
	if key != "" && request == "" {
		request = fmt.Sprintf("%v", a.d.CmdArgs)
	}
	e := &Entry{Stamp: s.now, Proposals: []Proposal{{Caller: Caller{actor}, Key: key, Request: request, Command: c}}}
	b, err := AppendEntry(nil, e)
	if err != nil {
		s.t.Fatalf("%s: encoding: %v", a.d.Pos, err)
	}
	if e, err = DecodeEntry(b); err != nil {
		s.t.Fatalf("%s: decoding what was encoded: %v", a.d.Pos, err)
	}
	replica := s.restored(a)
	before := timeless(s.m)
	s.index++
	answers, _ := s.m.Apply(s.index, e)
	if answers[0].Err != nil && timeless(s.m) != before {
		s.t.Errorf("%s: the refusal %v changed the state", a.d.Pos, answers[0].Err)
	}
	again, err := DecodeEntry(b)
	if err != nil {
		s.t.Fatal(err)
	}
	replica.Apply(s.index, again)
	if replica.Hash() != s.m.Hash() {
		s.t.Errorf("%s: a replica that was restored before this entry differs after it", a.d.Pos)
	}
	return s.show(answers[0])
}

// restored is a replica made from a snapshot of the state as it is.
func (s *story) restored(a args) *Machine {
	var file bytes.Buffer
	if _, err := s.m.Handle().WriteTo(&file); err != nil {
		s.t.Fatalf("%s: writing a snapshot: %v", a.d.Pos, err)
	}
	replica := New()
	if err := replica.Restore(&file); err != nil {
		s.t.Fatalf("%s: restoring a snapshot: %v", a.d.Pos, err)
	}
	return replica
}

// timeless is the hash of the state without what every entry moves.
func timeless(m *Machine) [32]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.st.fork()
	st.index, st.now = 0, 0
	return st.hash()
}

// args reads a directive's arguments: name=value, name=(value,value), or a bare name.
type args struct{ d *datadriven.TestData }

func (a args) has(name string) bool {
	return slices.ContainsFunc(a.d.CmdArgs, func(c datadriven.CmdArg) bool { return c.Key == name })
}

func (a args) list(name string) []string {
	for _, c := range a.d.CmdArgs {
		if c.Key == name {
			return slices.DeleteFunc(slices.Clone(c.Vals), func(v string) bool { return v == "" })
		}
	}
	return nil
}

func (a args) str(name string) string { return strings.Join(a.list(name), ",") }

func (a args) int(name string) int64 {
	v := a.str(name)
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %s=%s is no integer", a.d.Pos, name, v))
	}
	return n
}

func (a args) optional(name string) *int64 {
	if !a.has(name) {
		return nil
	}
	n := a.int(name)
	return &n
}

func (a args) seconds(name string, or int64) int64 {
	v := a.str(name)
	if v == "" {
		return or
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		panic(fmt.Sprintf("%s: %s=%s is no duration", a.d.Pos, name, v))
	}
	return int64(d / time.Second)
}

func (a args) epoch(name string) *uint64 {
	if !a.has(name) {
		return nil
	}
	n := uint64(a.int(name))
	return &n
}

func (a args) usd(name string) *fleet.USD {
	if !a.has(name) {
		return nil
	}
	var u fleet.USD
	if err := u.UnmarshalJSON([]byte(a.str(name))); err != nil {
		panic(err)
	}
	return &u
}

// job is the argument job=, where jN is the N-th job of the story.
func (a args) job() string { return a.str("job") }

// submission reads what a submit may say.
func (s *story) submission(a args) fleet.Submission {
	sub := fleet.Submission{
		BodyMd: "work", IdempotencyKey: a.str("key"), Priority: fleet.Priority(a.str("priority")), Capabilities: a.list("caps"),
		EngineClass: a.str("engine"), Profile: a.str("profile"), Deps: a.list("deps"), DepsMode: fleet.DepsMode(a.str("mode")),
		ParentID: a.str("parent"), Kind: fleet.Kind(a.str("kind")), TrackerItemID: a.str("tracker"),
	}
	if a.has("body") {
		sub.BodyMd = a.str("body")
	}
	if a.has("manifest") {
		sub.ManifestSnapshot = fleet.JSON(a.str("manifest"))
	}
	if a.has("retry") || a.has("losses") {
		sub.Retry = &fleet.Retry{Max: a.int("retry"), Backoff: a.seconds("backoff", 0), On: a.list("on"), MaxLeaseLosses: a.optional("losses")}
	}
	if a.has("usd") || a.has("tokens") || a.has("wall") {
		sub.Budget = &fleet.Budget{USD: a.usd("usd"), Tokens: a.optional("tokens")}
		if a.has("wall") {
			wall := a.seconds("wall", 0)
			sub.Budget.Wall = &wall
		}
	}
	if a.has("checkpoint") {
		sub.Checkpoint = &fleet.Checkpoint{WipCommit: a.str("checkpoint")}
	}
	if a.has("after") { // not before, from the beginning of the story
		sub.NotBefore = epoch.Add(a.seconds("after", 0))
	}
	for _, l := range a.list("labels") {
		k, v, _ := strings.Cut(l, ":")
		sub.Labels = append(sub.Labels, fleet.Label{Key: k, Value: v})
	}
	sub.Normalize()
	return sub
}

func (s *story) newID() string {
	s.jobs++
	return fmt.Sprintf("j%d", s.jobs)
}

func (s *story) report(a args) fleet.Report {
	r := fleet.Report{
		LeaseEpoch: a.epoch("epoch"), Stage: fleet.Stage(a.str("stage")), Reason: a.str("reason"), Result: fleet.JSON(a.str("result")),
		VerifyResult: fleet.JSON(a.str("verify")), Exit: a.optional("exit"),
	}
	if a.has("checkpoint") {
		r.Checkpoint = &fleet.Checkpoint{WipCommit: a.str("checkpoint")}
	}
	if a.has("cost") || a.has("in") || a.has("out") {
		r.Insights = &fleet.Insights{CostUSD: a.usd("cost"), TokensIn: a.optional("in"), TokensOut: a.optional("out")}
	}
	return r
}

// command turns a directive into a command, nil if it is none.
func (s *story) command(cmd string, a args) Command {
	switch cmd {
	case "submit":
		return &Submit{ProductID: s.product, JobID: s.newID(), Submission: s.submission(a)}
	case "batch": // one submission a line
		b := &SubmitBatch{ProductID: s.product}
		for _, line := range strings.Split(strings.TrimSpace(a.d.Input), "\n") {
			b.JobIDs = append(b.JobIDs, s.newID())
			b.Submissions = append(b.Submissions, s.submission(s.line(a, line)))
		}
		return b
	case "claim":
		return &Claim{ProductID: s.product, FactoryID: a.str("factory"), LeaseSeconds: a.seconds("lease", 60)}
	case "claim-batch":
		return &ClaimBatch{ProductID: s.product, FactoryID: a.str("factory"), LeaseSeconds: a.seconds("lease", 60), Max: a.int("max")}
	case "patch":
		return &Patch{ProductID: s.product, JobID: a.job(), Report: s.report(a)}
	case "operate":
		p := &OperatorPatch{ProductID: s.product, JobID: a.job(), Report: s.report(a)}
		for _, v := range a.list("match") {
			if v == "*" {
				p.IfMatch.Any = true
			} else if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				p.IfMatch.Versions = append(p.IfMatch.Versions, n)
			}
		}
		if a.has("match-current") {
			s.m.View(func(v View) {
				if j, ok := v.Job(s.product, a.job()); ok {
					p.IfMatch.Versions = []uint64{j.Version}
				}
			})
		}
		return p
	case "reports": // one report a line
		r := &Report{ProductID: s.product}
		for _, line := range strings.Split(strings.TrimSpace(a.d.Input), "\n") {
			l := s.line(a, line)
			r.Reports = append(r.Reports, fleet.JobReport{JobID: l.job(), Report: s.report(l)})
		}
		return r
	case "renew":
		return &Renew{ProductID: s.product, JobID: a.job(), LeaseEpoch: uint64(a.int("epoch")), LeaseSeconds: a.seconds("lease", 0)}
	case "release":
		return &Release{ProductID: s.product, JobID: a.job(), LeaseEpoch: uint64(a.int("epoch")), DelaySeconds: a.seconds("delay", 0)}
	case "cancel":
		return &Cancel{ProductID: s.product, JobID: a.job(), Reason: a.str("reason")}
	case "requeue":
		return &Requeue{ProductID: s.product, JobID: a.job()}
	case "heartbeat":
		h := fleet.HeartbeatRequest{
			FactoryID: a.str("factory"), Health: fleet.Health(a.str("health")), SeatLimit: a.optional("seats"),
			HeartbeatSeconds: a.optional("every"), Descriptor: fleet.JSON(a.str("descriptor")),
		}
		if a.has("caps") {
			caps := fleet.Strings(a.list("caps"))
			h.Capabilities = &caps
		}
		if a.has("engines") {
			engines := fleet.Strings(a.list("engines"))
			h.Engines = &engines
		}
		for _, l := range a.list("leases") { // job:epoch
			job, n, _ := strings.Cut(l, ":")
			held, _ := strconv.ParseUint(n, 10, 64)
			h.Leases = append(h.Leases, fleet.HeldLease{JobID: job, LeaseEpoch: held})
		}
		return &Heartbeat{ProductID: s.product, Heartbeat: h}
	case "comment":
		return &Comment{ProductID: s.product, JobID: a.job(), LeaseEpoch: a.epoch("epoch"), Data: fleet.JSON(`{"text":"` + a.str("text") + `"}`)}
	case "artifact":
		return &AddArtifact{ProductID: s.product, JobID: a.job(), Request: fleet.ArtifactRequest{LeaseEpoch: a.epoch("epoch"), Name: a.str("name"), Kind: "log", URI: "https://example.com/log"}}
	case "profile":
		return &PutProfile{ProductID: s.product, Name: a.str("name"), Snapshot: fleet.JSON(a.str("snapshot"))}
	case "token":
		r := fleet.TokenRequest{Name: a.str("name"), Products: a.list("products")}
		for _, role := range a.list("roles") {
			r.Roles = append(r.Roles, fleet.Role(role))
		}
		if a.has("expires") {
			r.ExpiresAt = s.now.Add(a.seconds("expires", 0))
		}
		return &CreateToken{ID: a.str("id"), Hash: bytes.Repeat([]byte(a.str("id")[:1]), 32), Request: r}
	case "revoke":
		return &DeleteToken{ID: a.str("id")}
	case "reap":
		limit := a.int("limit")
		if limit == 0 {
			limit = 1000
		}
		return &Reap{Limit: limit, RetentionSeconds: a.seconds("retention", 0)}
	case "leader-change":
		return &LeaderChange{}
	case "noop":
		return &Noop{}
	case "bootstrap":
		return &Bootstrap{ClusterID: a.str("id")}
	}
	return nil
}

// line reads one input line as a directive's arguments.
func (s *story) line(a args, line string) args {
	_, cmdArgs, err := datadriven.ParseLine("line " + line)
	if err != nil {
		s.t.Fatalf("%s: %v", a.d.Pos, err)
	}
	return args{&datadriven.TestData{Pos: a.d.Pos, CmdArgs: cmdArgs}}
}

// read answers the directives that only look.
func (s *story) read(cmd string, a args) (out string, ok bool) {
	ok = true
	s.m.View(func(v View) {
		switch cmd {
		case "job":
			j, found := v.Job(s.product, a.job())
			if !found {
				out = "not_found"
				return
			}
			out = s.showJob(j)
		case "lease":
			l, found := v.Lease(s.product, a.job())
			if !found {
				out = "not_found"
				return
			}
			out = s.showLease(l)
		case "runs":
			runs, _ := v.Runs(s.product, a.job())
			for _, r := range runs {
				out += s.showRun(r) + "\n"
			}
		case "events":
			events, _ := v.Events(s.product, a.job(), uint64(a.int("after")), 1000)
			for _, e := range events {
				out += fmt.Sprintf("%d %s by %s %s\n", e.Seq, e.Type, e.Actor, e.Data)
			}
		case "feed":
			events, _, last := v.Feed(s.product, uint64(a.int("after")), 1000)
			for _, e := range events {
				out += fmt.Sprintf("%d %s %s\n", e.Index, e.JobID, e.Type)
			}
			out += fmt.Sprintf("last=%d\n", last)
		case "artifacts":
			list, _ := v.Artifacts(s.product, a.job())
			for _, x := range list {
				out += fmt.Sprintf("%s run=%s %s\n", x.ID, x.RunID, x.Name)
			}
		case "factory":
			f, found := v.Factory(s.product, a.str("factory"))
			if !found {
				out = "not_found"
				return
			}
			out = showFactory(f)
		case "why":
			w, found := v.Why(s.product, a.job())
			if !found {
				out = "not_found"
				return
			}
			out = string(w.Stage)
			for _, r := range w.Reasons {
				out += " " + r.Code
			}
		case "jobs":
			f := JobFilter{Stage: fleet.Stage(a.str("stage")), IdempotencyKey: a.str("key"), ParentID: a.str("parent"), FactoryID: a.str("factory")}
			if a.has("parked") {
				parked := a.str("parked") == "true"
				f.Parked = &parked
			}
			if k, val, ok := strings.Cut(a.str("label"), ":"); ok {
				f.Label = fleet.Label{Key: k, Value: val}
			}
			list, _ := v.Jobs(s.product, f, 0, 1000)
			for _, j := range list {
				out += j.ID + " "
			}
		case "stats":
			st := v.Stats(s.product, s.now)
			for _, stage := range fleet.Stages {
				if n := st.Stages[stage]; n > 0 {
					out += fmt.Sprintf("%s=%d ", stage, n)
				}
			}
			out += fmt.Sprintf("shippedLastHour=%d failedLastHour=%d", st.ShippedLastHour, st.FailedLastHour)
		default:
			ok = false
		}
	})
	if ok && strings.TrimSpace(out) == "" {
		out = "none"
	}
	return strings.TrimRight(out, " \n"), ok
}

// ago is a time as seconds since the beginning of the story.
func (s *story) ago(t fleet.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Sub(epoch).String()
}

// show is an answer in a line, or a line for each of its parts.
func (s *story) show(a Answer) string {
	prefix := ""
	if a.Replayed {
		prefix = "replayed "
	}
	if a.Err != nil {
		out := prefix + a.Err.Error()
		for _, f := range a.Err.Fields {
			out += "\n  " + f.Field
		}
		if len(a.Err.Cycle) > 0 {
			out += "\n  cycle=" + strings.Join(a.Err.Cycle, ",")
		}
		if a.Err.CurrentEpoch > 0 {
			out += fmt.Sprintf("\n  currentEpoch=%d", a.Err.CurrentEpoch)
		}
		if !errors.Is(a.Err, a.Err.Code) {
			s.t.Errorf("errors.Is(%v, its code) is false", a.Err)
		}
		return out
	}
	return prefix + s.showResult(a.Result)
}

func (s *story) showResult(r Result) string {
	var lines []string
	switch r := r.(type) {
	case *fleet.SubmitResult:
		return fmt.Sprintf("%s %s", r.Outcome, s.showJob(r.Job))
	case *fleet.SubmitResults:
		for _, x := range r.Results {
			lines = append(lines, fmt.Sprintf("%s %s", x.Outcome, s.showJob(x.Job)))
		}
	case *fleet.Claim:
		if r.Job == nil {
			return "nothing"
		}
		return s.showClaim(*r)
	case *fleet.Claims:
		if len(r.Claims) == 0 {
			return "nothing"
		}
		for _, c := range r.Claims {
			lines = append(lines, s.showClaim(c))
		}
	case *fleet.Job:
		return s.showJob(r)
	case *fleet.ReportResults:
		for _, x := range r.Results {
			if x.OK {
				lines = append(lines, s.showJob(x.Job))
			} else {
				lines = append(lines, fmt.Sprintf("%s %s", x.JobID, x.Code))
			}
		}
	case *fleet.Lease:
		return s.showLease(r)
	case *fleet.HeartbeatResult:
		lines = append(lines, showFactory(r.Factory))
		for _, l := range r.Leases {
			if l.OK {
				lines = append(lines, s.showLease(l.Lease))
			} else {
				lines = append(lines, fmt.Sprintf("%s %s", l.JobID, l.Code))
			}
		}
	case *fleet.Event:
		return fmt.Sprintf("%d %s by %s %s", r.Seq, r.Type, r.Actor, r.Data)
	case *fleet.Artifact:
		return fmt.Sprintf("%s run=%s %s", r.ID, r.RunID, r.Name)
	case *fleet.ProfileResult:
		return fmt.Sprintf("created=%t %s@%d %s", r.Created, r.Profile.Name, r.Profile.Version, r.Profile.Snapshot)
	case *fleet.Token:
		return fmt.Sprintf("token %s roles=%v products=%v expires=%s", r.ID, r.Roles, r.Products, s.ago(r.ExpiresAt))
	case *Reaped:
		return fmt.Sprintf("changed=%d more=%t", r.Changed, r.More)
	case *Done:
		return "ok"
	default:
		return fmt.Sprintf("%T", r)
	}
	return strings.Join(lines, "\n")
}

func (s *story) showClaim(c fleet.Claim) string {
	return fmt.Sprintf("%s to %s epoch=%d attempt=%d expires=%s", s.showJob(c.Job), c.Run.FactoryID, c.Lease.LeaseEpoch, c.Run.Attempt, s.ago(c.Lease.ExpiresAt))
}

func (s *story) showJob(j *fleet.Job) string {
	out := j.ID + " " + string(j.Stage)
	if j.LeaseEpoch > 0 {
		out += fmt.Sprintf(" epoch=%d", j.LeaseEpoch)
	}
	if j.Failures > 0 {
		out += fmt.Sprintf(" failures=%d", j.Failures)
	}
	if j.LeaseLosses > 0 {
		out += fmt.Sprintf(" losses=%d", j.LeaseLosses)
	}
	if j.Reason != "" {
		out += " reason=" + j.Reason
	}
	if j.NotBefore != 0 {
		out += " notBefore=" + s.ago(j.NotBefore)
	}
	if j.Checkpoint != nil {
		out += " checkpoint=" + j.Checkpoint.WipCommit
	}
	if j.Result != "" {
		out += " result=" + string(j.Result)
	}
	return out
}

func (s *story) showLease(l *fleet.Lease) string {
	out := fmt.Sprintf("%s lease %s epoch=%d", l.JobID, l.Status, l.LeaseEpoch)
	if l.Status == fleet.LeaseHeld {
		out += fmt.Sprintf(" by %s expires=%s renewals=%d", l.HolderFactoryID, s.ago(l.ExpiresAt), l.Renewals)
	}
	return out
}

func (s *story) showRun(r *fleet.Run) string {
	out := fmt.Sprintf("%s %s", r.ID, r.FactoryID)
	if r.Outcome != "" {
		out += fmt.Sprintf(" %s at %s", r.Outcome, s.ago(r.EndedAt))
	}
	if r.Reason != "" {
		out += " reason=" + r.Reason
	}
	if r.Exit != nil {
		out += fmt.Sprintf(" exit=%d", *r.Exit)
	}
	if r.ProfileSnapshot != "" {
		out += " profile=" + string(r.ProfileSnapshot)
	}
	if r.Insights.CostUSD != nil {
		out += " cost=" + r.Insights.CostUSD.String()
	}
	return out
}

func showFactory(f *fleet.Factory) string {
	return fmt.Sprintf("%s %s seats=%d/%d caps=%v stale=%t", f.FactoryID, f.Health, f.ActiveLeases, f.SeatLimit, f.Capabilities, f.Stale)
}
