package fsm

// This file is the factories: one heartbeat registers, reports and renews all leases; who may speak for a factory; and
// when its silence counts.

import (
	"slices"

	"github.com/lysnrai/fleet"
)

const (
	silentHeartbeats = 3             // missed heartbeats after which a factory is silent
	forgetSeconds    = 7 * 24 * 3600 // of silence after which a factory that holds nothing is forgotten
)

func (c *Heartbeat) apply(tx *tx) (Result, error) {
	q := &c.Heartbeat
	old, known := tx.p.factories.Get(q.FactoryID)
	if known {
		if err := tx.st.speaks(tx.caller, old); err != nil {
			return nil, err
		}
	} else {
		tx.found()
		f := &factory{doc: &fleet.Factory{
			FactoryID: q.FactoryID, ProductID: tx.p.id, Version: tx.st.firstVersion(), Descriptor: "{}", Capabilities: []string{},
			Health: fleet.HealthOK, SeatLimit: fleet.DefaultSeats, HeartbeatSeconds: fleet.DefaultHeartbeatSeconds,
		}}
		tx.p.factories.Set(q.FactoryID, f)
		note(&tx.factories, tx.p, nil, f)
	}
	f := tx.editFactory(q.FactoryID)
	if !tx.st.admin(tx.caller) && !tx.st.owned(f) {
		f.owner = tx.caller.Actor
	}
	tx.describe(f, q)
	if !known || !alike(old.doc, f.doc) {
		mention(&tx.news.Factories, tx.p.id)
	}
	if !known || matters(old.doc, f.doc) {
		mention(&tx.news.Products, tx.p.id)
	}
	tx.alive(f)
	leases := make([]fleet.LeaseResult, len(q.Leases))
	for i, l := range q.Leases {
		tx.part()
		lease, err := tx.renew(l.JobID, l.LeaseEpoch, 0)
		leases[i] = fleet.LeaseResult{JobID: l.JobID, OK: err == nil, Lease: lease}
		if err != nil {
			e := refusal(err).Err
			leases[i].Code, leases[i].Detail, leases[i].CurrentEpoch = e.Code, e.Detail, e.CurrentEpoch
		}
	}
	return &fleet.HeartbeatResult{Factory: shownFactory(f), Leases: leases}, nil
}

// describe takes over what a heartbeat says; what it leaves out stays.
func (tx *tx) describe(f *factory, q *fleet.HeartbeatRequest) {
	d := f.doc
	if q.Descriptor != "" {
		d.Descriptor = q.Descriptor
	}
	if q.Capabilities != nil {
		d.Capabilities = sortedSet(*q.Capabilities)
	}
	if q.Engines != nil {
		d.Engines = sortedSet(*q.Engines)
	}
	if q.Health != "" {
		d.Health = q.Health
	}
	if q.Load != nil {
		d.Load = *q.Load
	}
	if q.SeatLimit != nil {
		d.SeatLimit = *q.SeatLimit
	}
	if q.HeartbeatSeconds != nil {
		d.HeartbeatSeconds = *q.HeartbeatSeconds
	}
	d.Stale = false
}

func sortedSet(list fleet.Strings) []string {
	set := append([]string{}, list...)
	slices.Sort(set)
	return slices.Compact(set)
}

// matters reports whether a factory may get other jobs than before.
func matters(a, b *fleet.Factory) bool {
	return a.Health != b.Health || a.Stale != b.Stale || a.SeatLimit != b.SeatLimit || !alike(a, b)
}

// alike reports whether two factories can do the same.
func alike(a, b *fleet.Factory) bool {
	return slices.Equal(a.Capabilities, b.Capabilities) && slices.Equal(a.Engines, b.Engines)
}

// editFactory is a factory for writing; it must exist.
func (tx *tx) editFactory(id string) *factory {
	old, _ := tx.p.factories.Get(id)
	f, doc := *old, *old.doc
	doc.Version++
	f.doc = &doc
	tx.p.factories.Set(id, &f)
	note(&tx.factories, tx.p, old, &f)
	tx.changed++
	return &f
}

// alive notes a sign of life.
func (tx *tx) alive(f *factory) {
	f.doc.LastHeartbeatAt = tx.st.now
	tx.setSilent(f, tx.st.silentAt(f.doc))
	tx.setForget(f)
}

// silentAt is until when a factory may be silent. It is silent only from a leader change on: it may have been unable to
// speak before.
func (st *state) silentAt(d *fleet.Factory) fleet.Time {
	return max(d.LastHeartbeatAt, st.leaderSince).Add(silentHeartbeats * d.HeartbeatSeconds)
}

// forgetAt is when a silent factory may be forgotten.
func (st *state) forgetAt(d *fleet.Factory) fleet.Time {
	return max(d.LastHeartbeatAt, st.leaderSince).Add(forgetSeconds)
}

func (tx *tx) setSilent(f *factory, at fleet.Time) {
	tx.moveDue(dueFactory, f.doc.FactoryID, f.silent, at)
	f.silent = at
}

// setForget looks forward to forgetting a factory that holds nothing.
func (tx *tx) setForget(f *factory) {
	at := fleet.Time(0)
	if f.doc.ActiveLeases == 0 {
		at = tx.st.forgetAt(f.doc)
	}
	tx.moveDue(dueForget, f.doc.FactoryID, f.forget, at)
	f.forget = at
}

func (tx *tx) moveDue(kind deadlineKind, id string, from, to fleet.Time) {
	if from == to {
		return
	}
	if from != 0 {
		tx.st.deadlines.Delete(deadline{from, kind, tx.p.id, id})
	}
	if to != 0 {
		tx.st.deadlines.Set(deadline{to, kind, tx.p.id, id})
	}
}

// shownFactory is the factory as it is read: one that was silent too long is down, whatever it last reported.
func shownFactory(f *factory) *fleet.Factory {
	if !f.doc.Stale || f.doc.Health == fleet.HealthDown {
		return f.doc
	}
	c := *f.doc
	c.Health = fleet.HealthDown
	return &c
}

// speaks refuses a caller that may not speak for the factory.
func (st *state) speaks(c Caller, f *factory) error {
	if !st.owned(f) || f.owner == c.Actor || st.admin(c) {
		return nil
	}
	return fleet.Errorf(fleet.Forbidden, "factory %s belongs to token %s, you are %s", f.doc.FactoryID, f.owner, c.Actor)
}

// owned reports whether a factory belongs to a token that is still valid.
func (st *state) owned(f *factory) bool {
	if f.owner == "" {
		return false
	}
	_, valid := st.tokens.Get(f.owner)
	return valid
}

// admin reports whether a caller may do all.
func (st *state) admin(c Caller) bool {
	if c.Actor == ActorRoot || c.Actor == ActorAnonymous {
		return true
	}
	t, ok := st.tokens.Get(c.Actor)
	return ok && slices.Contains(t.doc.Roles, fleet.RoleAdmin)
}
