package fsm

// This file decides which factory gets which job. Jobs stand in one line per requirement signature; a claim looks at
// the head of each line that the factory can serve, never at the backlog.

import (
	"slices"
	"strings"

	"github.com/lysnrai/fleet"
)

func (c *Claim) apply(tx *tx) (Result, error) {
	f, err := tx.st.claimant(tx.p, tx.caller, c.FactoryID)
	if err != nil {
		return nil, err
	}
	id, ok := tx.p.eligible(f.doc, nil)
	if !ok {
		return &fleet.Claim{}, nil
	}
	claim := tx.grant(id, c.FactoryID, c.LeaseSeconds)
	return &claim, nil
}

func (c *ClaimBatch) apply(tx *tx) (Result, error) {
	f, err := tx.st.claimant(tx.p, tx.caller, c.FactoryID)
	if err != nil {
		return nil, err
	}
	claims := []fleet.Claim{}
	for n := min(c.Max, f.doc.SeatLimit-f.doc.ActiveLeases); n > 0; n-- {
		id, ok := tx.p.eligible(f.doc, nil)
		if !ok {
			break
		}
		claims = append(claims, tx.grant(id, c.FactoryID, c.LeaseSeconds))
	}
	return &fleet.Claims{Claims: claims}, nil
}

// claimant is the factory in whose name a caller may claim now.
func (st *state) claimant(p *product, c Caller, id string) (*factory, error) {
	f, ok := p.factories.Get(id)
	if !ok {
		return nil, fleet.Errorf(fleet.UnknownFactory, "factory %s is not registered in product %s: send a heartbeat first", id, p.id)
	}
	if err := st.speaks(c, f); err != nil {
		return nil, err
	}
	if shownFactory(f).Health == fleet.HealthDown {
		if f.doc.Stale {
			return nil, fleet.Errorf(fleet.FactoryDown, "factory %s is down: it was silent since %s", id, f.doc.LastHeartbeatAt)
		}
		return nil, fleet.Errorf(fleet.FactoryDown, "factory %s is down, as it reported", id)
	}
	if f.doc.ActiveLeases >= f.doc.SeatLimit {
		return nil, fleet.Errorf(fleet.SeatsExhausted, "factory %s uses %d of its %d seats", id, f.doc.ActiveLeases, f.doc.SeatLimit)
	}
	return f, nil
}

// eligible is the job that a factory gets next: of the heads of all lines that it can serve the first by key. skip, if
// not nil, passes over jobs.
func (p *product) eligible(f *fleet.Factory, skip func(id string) bool) (id string, ok bool) {
	var best sortKey
	p.signatures.Scan(func(name string, s *signature) bool {
		if ok && !s.head.key.less(best) || !s.servedBy(f) {
			return true
		}
		if skip == nil {
			id, best, ok = s.head.job, s.head.key, true
			return true
		}
		p.queue.Ascend(s.head, func(q queued) bool {
			if q.signature != name || ok && !q.key.less(best) {
				return false
			}
			if skip(q.job) {
				return true
			}
			id, best, ok = q.job, q.key, true
			return false
		})
		return true
	})
	return id, ok
}

// servedBy reports whether a factory has all that the signature requires. Both lists are sorted.
func (s *signature) servedBy(f *fleet.Factory) bool {
	if s.engine != "" && !slices.Contains(f.Engines, s.engine) {
		return false
	}
	i := 0
	for _, c := range s.capabilities {
		for i < len(f.Capabilities) && f.Capabilities[i] < c {
			i++
		}
		if i == len(f.Capabilities) || f.Capabilities[i] != c {
			return false
		}
	}
	return true
}

// signatureOf names what a job requires. No name has a control character.
func signatureOf(s *fleet.Submission) string {
	return s.EngineClass + "\n" + strings.Join(s.Capabilities, "\n")
}

// keyOf is a job's place in its line, fixed when it is submitted.
func keyOf(r *record) sortKey { return sortKey{tier: uint8(max(r.job.Priority.Tier(), 0)), seq: r.seq} }

// joinLine puts a job in line if it is claimable.
func (tx *tx) joinLine(r *record) {
	if r.job.Stage != fleet.Queued || r.waiting != nil || r.group != nil {
		return
	}
	place := queued{signatureOf(&r.job.Submission), r.key, r.job.ID}
	if _, there := tx.p.queue.Set(place); there {
		return
	}
	tx.p.lengthen(place, &r.job.Submission)
	mention(&tx.news.Products, tx.p.id)
}

// lengthen notes that a line has one more place.
func (p *product) lengthen(place queued, sub *fleet.Submission) {
	s := signature{capabilities: sub.Capabilities, engine: sub.EngineClass, head: place}
	if old, ok := p.signatures.Get(place.signature); ok {
		s = *old
		if place.key.less(s.head.key) {
			s.head = place
		}
	}
	s.jobs++
	p.signatures.Set(place.signature, &s)
}

// leaveLine takes a job out of its line if it stands there.
func (tx *tx) leaveLine(r *record) {
	if r.job.Stage != fleet.Queued || r.waiting != nil || r.group != nil {
		return
	}
	place := queued{signatureOf(&r.job.Submission), r.key, r.job.ID}
	if _, there := tx.p.queue.Delete(place); !there {
		return
	}
	old, _ := tx.p.signatures.Get(place.signature)
	s := *old
	if s.jobs--; s.jobs == 0 {
		tx.p.signatures.Delete(place.signature)
		return
	}
	if s.head.key == place.key {
		tx.p.queue.Ascend(place, func(q queued) bool { s.head = q; return false })
	}
	tx.p.signatures.Set(place.signature, &s)
}
