package fsm

// This file is how the state is read. Every method answers in time that does not depend on the backlog, or says so.

import (
	"slices"

	"github.com/lysnrai/fleet"
)

// View is the state at one index. It is only valid inside the function that Machine.View calls.
type View struct{ st *state }

// Index is the log index that the view reflects.
func (v View) Index() uint64 { return v.st.index }

// Now is the time of the latest stamp.
func (v View) Now() fleet.Time { return v.st.now }

// LeaderSince is the time of the latest LeaderChange.
func (v View) LeaderSince() fleet.Time { return v.st.leaderSince }

// NextDeadline is when the reaper has something to do, leaving retention out; false if nothing waits for a time. A Reap is due
// once the time is strictly later.
func (v View) NextDeadline() (fleet.Time, bool) {
	d, ok := v.st.deadlines.Min()
	return d.at, ok
}

// NextRetention is when the oldest ended job ended; false if none has.
func (v View) NextRetention() (fleet.Time, bool) {
	d, ok := v.st.ended.Min()
	return d.at, ok
}

// Level is the newest format that the cluster writes.
func (v View) Level() int { return v.st.level }

// ClusterID is the cluster's id, empty before Bootstrap was applied.
func (v View) ClusterID() string { return v.st.clusterID }

// Generation counts the backups and survivors from which the state was restored.
func (v View) Generation() uint64 { return v.st.generation }

// Servers lists all servers ever, the removed ones too, by id.
func (v View) Servers() []Server {
	list := make([]Server, 0, v.st.servers.Len())
	v.st.servers.Scan(func(_ string, s *Server) bool { list = append(list, *s); return true })
	return list
}

// Authenticate finds the token whose secret has this SHA-256. A token that was revoked or expired is not found.
func (v View) Authenticate(hash [32]byte) (*fleet.Token, bool) {
	id, ok := v.st.hashes.Get(string(hash[:]))
	if !ok {
		return nil, false
	}
	t, ok := v.st.tokens.Get(id)
	if !ok {
		return nil, false
	}
	return t.doc, true
}

// Authorize is the one place that decides whether a caller may use a role in a product (empty: the cluster's own). It refuses with
// unauthenticated (no such token any more) or forbidden. Reads ask it, and every command is judged by it when it is applied.
func (v View) Authorize(c Caller, role fleet.Role, product string) error {
	return v.st.authorize(c, role, product)
}

// Tokens lists the tokens that are valid, by id.
func (v View) Tokens() []*fleet.Token {
	list := make([]*fleet.Token, 0, v.st.tokens.Len())
	v.st.tokens.Scan(func(_ string, t *token) bool { list = append(list, t.doc); return true })
	return list
}

// Job finds a job, shown as a reader sees it: with the time it waits for as NotBefore.
func (v View) Job(product, id string) (*fleet.Job, bool) {
	r, ok := v.st.record(product, id)
	if !ok {
		return nil, false
	}
	return shownJob(r), true
}

// Lease finds a job's lease, shown as a reader sees it: ExpiresAt is when it can really expire.
func (v View) Lease(product, jobID string) (*fleet.Lease, bool) {
	r, ok := v.st.record(product, jobID)
	if !ok {
		return nil, false
	}
	return v.st.shownLease(r), true
}

// Runs lists a job's runs by attempt; false if there is no such job.
func (v View) Runs(product, jobID string) ([]*fleet.Run, bool) {
	r, ok := v.st.record(product, jobID)
	if !ok {
		return nil, false
	}
	return r.runs(), true
}

// Events lists a job's events with seq > after, at most limit; false if there is no such job.
func (v View) Events(product, jobID string, after uint64, limit int) ([]*fleet.Event, bool) {
	r, ok := v.st.record(product, jobID)
	if !ok {
		return nil, false
	}
	from := min(after, uint64(len(r.events))) // seq counts from 1 without gaps
	events := r.events[from:]
	return slices.Clip(events[:min(max(limit, 0), len(events))]), true
}

// Artifacts lists a job's artifacts in the order in which they were added; false if there is no such job.
func (v View) Artifacts(product, jobID string) ([]*fleet.Artifact, bool) {
	r, ok := v.st.record(product, jobID)
	if !ok {
		return nil, false
	}
	return slices.Clip(r.artifacts), true
}

// Feed lists the product's events with index > after, at most limit. first is the oldest index that is kept (0: none was purged,
// nothing is missing), last the newest ever given out: a reader whose after is below first-1 has a gap.
func (v View) Feed(product string, after uint64, limit int) (events []*fleet.Event, first, last uint64) {
	p, ok := v.st.products.Get(product)
	if !ok {
		return nil, 0, 0
	}
	last = p.nextEvent - 1
	if p.purged > 0 {
		if first, _, ok = p.feed.Min(); !ok {
			first = p.nextEvent
		}
	}
	if after >= last {
		return nil, first, last
	}
	p.feed.Ascend(after+1, func(_ uint64, e *fleet.Event) bool {
		if len(events) >= limit {
			return false
		}
		events = append(events, e)
		return true
	})
	return events, first, last
}

// Factory finds a factory.
func (v View) Factory(product, id string) (*fleet.Factory, bool) {
	p, ok := v.st.products.Get(product)
	if !ok {
		return nil, false
	}
	f, ok := p.factories.Get(id)
	if !ok {
		return nil, false
	}
	return shownFactory(f), true
}

// Factories lists the product's factories by id.
func (v View) Factories(product string) []*fleet.Factory {
	list := []*fleet.Factory{}
	if p, ok := v.st.products.Get(product); ok {
		p.factories.Scan(func(_ string, f *factory) bool { list = append(list, shownFactory(f)); return true })
	}
	return list
}

// Profile finds a version of a profile; version 0 is the latest.
func (v View) Profile(product, name string, version int64) (*fleet.Profile, bool) {
	p, ok := v.st.products.Get(product)
	if !ok {
		return nil, false
	}
	versions, _ := p.profiles.Get(name)
	latest := int64(len(versions))
	if version == 0 {
		version = latest
	}
	if version < 1 || version > latest {
		return nil, false
	}
	return versions[version-1], true
}

// Profiles lists the latest version of each profile by name.
func (v View) Profiles(product string) []*fleet.Profile {
	list := []*fleet.Profile{}
	if p, ok := v.st.products.Get(product); ok {
		p.profiles.Scan(func(_ string, versions []*fleet.Profile) bool {
			list = append(list, versions[len(versions)-1])
			return true
		})
	}
	return list
}

// Claimable says whether a claim by this factory would be granted now: the error is the refusal it would get
// (unknown_factory, forbidden, factory_down, seats_exhausted); found is whether a job is eligible. skip, if not nil, passes over jobs that
// are promised to others; jobID is the one it would get.
func (v View) Claimable(c Caller, product, factoryID string, skip func(jobID string) bool) (jobID string, found bool, err error) {
	if err := v.st.authorize(c, fleet.RoleFactory, product); err != nil {
		return "", false, err
	}
	p, ok := v.st.products.Get(product)
	if !ok {
		p = newProduct(product, v.st.gen)
	}
	f, err := v.st.claimant(p, c, factoryID)
	if err != nil {
		return "", false, err
	}
	jobID, found = p.eligible(f.doc, skip)
	return jobID, found, nil
}

// Remembered finds the answer that is remembered under a proposal's Idempotency-Key: found with the answer, or refused with
// idempotency_key_reused (also an Answer), or not found. A proposal without a key is never found.
func (v View) Remembered(p *Proposal) (Answer, bool) {
	a, ok := v.st.remembered(p, p.appendKey(make([]byte, 0, keyRoom)))
	a.Index = v.st.index
	return a, ok
}
