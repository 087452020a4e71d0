package fsm

// This file draws logs of a small world, where ids and keys collide often. It applies what it has drawn, so that most of
// what it draws next is about jobs as they are: a log that is refused from end to end says little.

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

// draws is a log being drawn.
type draws struct {
	t    *rapid.T
	m    *Machine // what the log comes to
	n    uint64   // entries so far
	ids  int
	time fleet.Time
}

func newDraws(t *rapid.T) *draws { return &draws{t: t, m: New(), time: epoch} }

// pick draws a number below n. All are as likely: rapid's own numbers favour the least and the greatest.
func (d *draws) pick(n int) int {
	return rapid.Custom(func(t *rapid.T) (k int) {
		for room := 1; room < 4*n; room *= 2 {
			k *= 2
			if rapid.Bool().Draw(t, "bit") {
				k++
			}
		}
		return k % n
	}).Draw(d.t, "pick")
}

// once is true once in so many times.
func (d *draws) once(in int) bool { return d.pick(in) == in-1 }

func one[T any](d *draws, list ...T) T { return list[d.pick(len(list))] }

func (d *draws) between(least, most int64) int64 { return least + int64(d.pick(int(most-least+1))) }

// job is the id of a job in one of these stages, or in any; now and then of none.
func (d *draws) job(stages ...fleet.Stage) string {
	var ids []string
	if p, ok := d.m.st.products.Get("p"); ok && !d.once(16) {
		for i := range p.stages {
			if len(stages) == 0 || contains(stages, fleet.Stages[i]) {
				p.stages[i].Scan(func(_ uint64, id string) bool { ids = append(ids, id); return true })
			}
		}
	}
	switch {
	case len(ids) > 0:
		return one(d, ids...)
	case len(stages) > 0:
		return d.job()
	}
	return fmt.Sprintf("j%d", d.between(1, int64(d.ids+1)))
}

func contains(stages []fleet.Stage, stage fleet.Stage) bool {
	for _, s := range stages {
		if s == stage {
			return true
		}
	}
	return false
}

// held is a job that somebody works on, with its epoch; now and then another job or epoch.
func (d *draws) held() (id string, epoch uint64) {
	id = d.job(fleet.Assigned, fleet.Building, fleet.Review, fleet.Testing)
	epoch = uint64(d.between(1, 4))
	if r, ok := d.m.st.record("p", id); ok && !d.once(8) {
		epoch = r.job.LeaseEpoch
	}
	return id, epoch
}

// factory is the id of a factory that is registered; now and then of any.
func (d *draws) factory() string {
	ids := []string{}
	if p, ok := d.m.st.products.Get("p"); ok {
		ids = p.factories.Keys()
	}
	if len(ids) == 0 || d.once(8) {
		ids = []string{"f1", "f2", "f3"}
	}
	return one(d, ids...)
}

// caller is mostly root, or else somebody with a token, which may have ended.
func (d *draws) caller() string {
	ids := append(d.m.st.tokens.Keys(), ActorAnonymous)
	switch d.pick(16) {
	case 0, 1, 2, 3:
		return one(d, ids...)
	case 4:
		return one(d, "a", "b")
	}
	return ActorRoot
}

func (d *draws) submission() fleet.Submission {
	s := fleet.Submission{
		BodyMd:       one(d, "one", "two"),
		Priority:     one(d, fleet.Priorities[:]...),
		Capabilities: one(d, nil, nil, []string{"go"}, []string{"go", "linux"}, []string{"gpu"}),
	}
	if d.once(2) {
		s.IdempotencyKey = one(d, "a", "b", "c", "d")
	}
	if d.once(6) {
		s.Kind, s.Capabilities = fleet.Composite, nil
	} else if d.once(3) {
		for range d.between(1, 2) {
			s.Deps = append(s.Deps, one(d, "key:a", "key:b", d.job()))
		}
		s.DepsMode = one(d, fleet.Hard, fleet.Soft)
	}
	if d.once(3) {
		s.ParentID = d.composite()
	}
	if d.once(3) {
		losses := d.between(1, 2)
		s.Retry = &fleet.Retry{Max: d.between(0, 2), Backoff: d.between(0, 30), MaxLeaseLosses: &losses, On: one(d, nil, []string{"other"})}
	}
	if d.once(5) {
		usd, wall := fleet.USD(d.between(0, 3)*1e9), d.between(1, 60)
		s.Budget = &fleet.Budget{USD: &usd, Wall: &wall}
	}
	if d.once(6) {
		s.NotBefore = d.time.Add(d.between(1, 200))
	}
	s.Normalize()
	return s
}

// composite is the id of a composite, or of any job.
func (d *draws) composite() string {
	ids := []string{d.job()}
	if p, ok := d.m.st.products.Get("p"); ok {
		p.bySeq.Scan(func(_ uint64, id string) bool {
			if r, _ := p.jobs.Get(id); r.group != nil {
				ids = append(ids, id)
			}
			return true
		})
	}
	return ids[len(ids)-1-d.pick(len(ids))]
}

func (d *draws) report() fleet.Report {
	r := fleet.Report{
		Stage:  one(d, "", fleet.Building, fleet.Review, fleet.Testing, fleet.Testing, fleet.Shipped, fleet.Failed, fleet.Queued),
		Reason: one(d, "red", "other"),
	}
	if d.once(3) {
		usd := fleet.USD(d.between(0, 2) * 1e9)
		r.Insights = &fleet.Insights{CostUSD: &usd}
	}
	if d.once(4) {
		r.Checkpoint = &fleet.Checkpoint{WipCommit: one(d, "c1", "c2")}
	}
	if d.once(6) {
		r.Result, r.VerifyResult = `{"pr":1}`, `{"ok":true}`
	}
	return r
}

func (d *draws) holders() (id string, r fleet.Report) {
	r = d.report()
	id, epoch := d.held()
	r.LeaseEpoch = &epoch
	return id, r
}

func (d *draws) newID() string { d.ids++; return fmt.Sprintf("j%d", d.ids) }

func (d *draws) heartbeat() *Heartbeat {
	caps := one(d, fleet.Strings{"go", "linux"}, fleet.Strings{"go", "gpu", "linux"}, fleet.Strings{"gpu"}, fleet.Strings{})
	seats, every := d.between(1, 4), one(d, int64(1), 15, 3600)
	return &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{
		FactoryID: one(d, "f1", "f2", "f3"), Capabilities: &caps, SeatLimit: &seats, HeartbeatSeconds: &every,
		Health: one(d, "", fleet.HealthOK, fleet.HealthOK, fleet.HealthOK, fleet.HealthOK, fleet.HealthOK, fleet.HealthOK, fleet.HealthDown),
	}}
}

// command draws any command, more likely to be granted than not.
func (d *draws) command() Command {
	switch d.pick(40) {
	case 0, 1, 2, 3, 4, 5:
		return &Submit{ProductID: "p", JobID: d.newID(), Submission: d.submission()}
	case 6:
		b := &SubmitBatch{ProductID: "p"}
		keys := map[string]bool{"": true}
		for range d.between(1, 4) {
			s := d.submission()
			if keys[s.IdempotencyKey] {
				s.IdempotencyKey = ""
			}
			keys[s.IdempotencyKey] = true
			b.JobIDs, b.Submissions = append(b.JobIDs, d.newID()), append(b.Submissions, s)
		}
		return b
	case 7, 8, 9, 10, 11:
		return &Claim{ProductID: "p", FactoryID: d.factory(), LeaseSeconds: d.between(1, 60)}
	case 12:
		return &ClaimBatch{ProductID: "p", FactoryID: d.factory(), LeaseSeconds: 30, Max: d.between(1, 3)}
	case 13, 14, 15, 16, 17, 18:
		id, r := d.holders()
		return &Patch{ProductID: "p", JobID: id, Report: r}
	case 19:
		q := &Report{ProductID: "p"}
		for range d.between(1, 4) {
			id, r := d.holders()
			q.Reports = append(q.Reports, fleet.JobReport{JobID: id, Report: r})
		}
		return q
	case 20, 21:
		r := d.report()
		r.Insights = nil
		return &OperatorPatch{ProductID: "p", JobID: d.job(fleet.Review, fleet.Testing), IfMatch: IfMatch{Any: !d.once(8)}, Report: r}
	case 22:
		id, epoch := d.held()
		return &Renew{ProductID: "p", JobID: id, LeaseEpoch: epoch, LeaseSeconds: d.between(0, 60)}
	case 23, 24:
		id, epoch := d.held()
		return &Release{ProductID: "p", JobID: id, LeaseEpoch: epoch, DelaySeconds: d.between(0, 5)}
	case 25:
		return &Cancel{ProductID: "p", JobID: one(d, d.job(), d.composite())}
	case 26, 27:
		return &Requeue{ProductID: "p", JobID: d.job(fleet.Failed, fleet.DeadLetter)}
	case 28:
		return d.heartbeat()
	case 29:
		h := &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: d.factory()}}
		for range d.between(0, 2) {
			id, epoch := d.held()
			h.Heartbeat.Leases = append(h.Heartbeat.Leases, fleet.HeldLease{JobID: id, LeaseEpoch: epoch})
		}
		return h
	case 30, 31, 32:
		return &Reap{Limit: d.between(1, 3), RetentionSeconds: one(d, int64(0), 100)}
	case 33:
		return &LeaderChange{}
	case 34:
		c := &Comment{ProductID: "p", JobID: d.job(), Data: fleet.JSON(`{"text":"` + strings.Repeat("long ", 30) + `"}`)}
		if d.once(2) {
			id, epoch := d.held()
			c.JobID, c.LeaseEpoch = id, &epoch
		}
		return c
	case 35:
		return &AddArtifact{ProductID: "p", JobID: d.job(), Request: fleet.ArtifactRequest{Name: "n", Kind: "log", URI: "https://example.com"}}
	case 36:
		return &PutProfile{ProductID: "p", Name: one(d, "a", "b"), Snapshot: fleet.JSON(fmt.Sprintf(`{"n":%d}`, d.between(1, 3)))}
	}
	return d.clusters()
}

// clusters draws a command of the cluster's own.
func (d *draws) clusters() Command {
	id := one(d, "a", "b", "c")
	switch d.pick(9) {
	case 0, 1:
		r := fleet.TokenRequest{Roles: []fleet.Role{one(d, fleet.RoleReader, fleet.RoleSubmitter, fleet.RoleFactory, fleet.RoleFactory, fleet.RoleOperator, fleet.RoleAdmin)}, Products: []string{}}
		if d.once(2) {
			r.ExpiresAt = d.time.Add(d.between(1, 100))
		}
		return &CreateToken{ID: id, Hash: bytes.Repeat([]byte(id), 32), Request: r}
	case 2:
		return &DeleteToken{ID: id}
	case 3:
		return &PutServer{Server: Server{ID: id, Name: one(d, "n1", "n2"), HTTPAddr: "h:1", NodeAddr: "h:2"}}
	case 4:
		return &RemoveServer{ID: id}
	case 5:
		return &Bootstrap{ClusterID: "cluster-" + one(d, "a", "a", "b")}
	case 6:
		return &Level{To: int(d.between(1, MaxLevel))}
	case 7:
		return &Checkpoint{Index: 1000, Hash: 1, Version: HashVersion}
	}
	return &Noop{}
}

// entry draws one entry, and applies it to the model.
func (d *draws) entry() *Entry {
	seconds := one(d, int64(0), 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 5, 5, 31, 61, -10)
	if d.once(32) {
		seconds = one(d, int64(601), 7*24*3601)
	}
	d.time += fleet.Time(seconds) * 1e9
	e := &Entry{Stamp: d.time}
	for range d.between(1, 2) {
		p := Proposal{Caller: Caller{d.caller()}, Command: d.command()}
		if p.Command.role() == "" {
			p.Caller.Actor = ActorFleet
		} else if d.once(4) {
			p.Key, p.Request = one(d, "k1", "k2", "k3", "k4", "k5", "k6"), fmt.Sprintf("%T", p.Command)
		}
		e.Proposals = append(e.Proposals, p)
		d.t.Logf("entry %d at %s: %s, key %q: %T %+v", d.n+1, e.Stamp.Sub(epoch), p.Caller.Actor, p.Key, p.Command, p.Command)
	}
	d.n++
	d.m.Apply(d.n, e)
	return e
}

// log draws at most n entries. The first is of a factory, so that a short log gets somewhere too.
func (d *draws) log(n int) []*Entry {
	e := &Entry{Stamp: epoch, Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: d.heartbeat()}}}
	d.n++
	d.m.Apply(d.n, e)
	log := []*Entry{e}
	for range one(d, n/10, n-1, n-1, n-1) {
		log = append(log, d.entry())
	}
	return log
}

// The logs that are drawn come to everything that can happen: else what is held of any log would be held of little.
func TestDrawsReachEverything(t *testing.T) {
	seen := map[string]int{}
	logs := rapid.Custom(func(t *rapid.T) []*Entry { return newDraws(t).log(60) })
	for seed := range 300 {
		m := New()
		for i, e := range logs.Example(seed) {
			answers, _ := m.Apply(uint64(i+1), e)
			for j, a := range answers {
				switch {
				case a.Err != nil:
					seen[string(a.Err.Code)]++
				case a.Replayed:
					seen["replayed"]++
				default:
					seen[fmt.Sprintf("%T", e.Proposals[j].Command)]++
				}
			}
		}
		for event, n := range m.st.tally.events {
			seen[string(event)] += int(n)
		}
		m.st.products.Scan(func(_ string, p *product) bool {
			if p.purged > 0 {
				seen["purged"]++
			}
			return true
		})
	}
	t.Log(seen)
	want := []string{
		"replayed", "stale_epoch", "illegal_transition", "idempotency_conflict", "idempotency_key_reused", "seats_exhausted", "factory_down",
		"unknown_factory", "unknown_dependency", "unknown_parent", "dependency_cycle", "not_found", "forbidden", "unauthenticated",
		"submitted", "superseded", "blocked", "unblocked", "claimed", "stage_changed", "checkpoint_saved", "released", "lease_expired",
		"retry_scheduled", "failed", "dead_lettered", "shipped", "cancelled", "requeued", "budget_exceeded", "artifact_added", "comment",
		"purged", "precondition_required",
	}
	for _, row := range commands {
		want = append(want, fmt.Sprintf("%T", row.new()))
	}
	for _, what := range want {
		if seen[what] < 3 {
			t.Errorf("the logs come to %s %d times, want 3 at least", what, seen[what])
		}
	}
}
