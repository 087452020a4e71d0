package fsm

// This file derives every index from the tables that a snapshot has.

import (
	"fmt"

	"github.com/lysnrai/fleet"
)

// rebuild derives the indexes. It refuses tables that do not fit together, so that no later entry trips over them.
func (st *state) rebuild() error {
	st.tokens.Scan(func(id string, t *token) bool { st.hashes.Set(t.hash, id); return true })
	var err error
	st.products.Scan(func(_ string, p *product) bool {
		err = p.rebuild()
		return err == nil
	})
	if err != nil {
		return err
	}
	st.deadlines.Scan(func(d deadline) bool { err = st.rebuildDue(d); return err == nil })
	if err != nil {
		return err
	}
	st.ended.Scan(func(d deadline) bool {
		if _, ok := st.record(d.product, d.id); !ok {
			err = fmt.Errorf("job %s, which ended, does not exist", d.id)
		}
		return err == nil
	})
	return err
}

func (st *state) record(product, id string) (*record, bool) {
	p, ok := st.products.Get(product)
	if !ok {
		return nil, false
	}
	return p.jobs.Get(id)
}

// rebuildDue notes a deadline with what it is of.
func (st *state) rebuildDue(d deadline) error {
	switch d.kind {
	case dueLease, dueWaiting, dueWall:
		if r, ok := st.record(d.product, d.id); ok && r.due[d.kind] == 0 && (d.kind == dueWaiting && r.waiting != nil || d.kind != dueWaiting && r.held()) {
			r.due[d.kind] = d.at
			return nil
		}
	case dueFactory, dueForget:
		if p, ok := st.products.Get(d.product); ok {
			if f, ok := p.factories.Get(d.id); ok {
				if d.kind == dueFactory {
					f.silent = d.at
				} else {
					f.forget = d.at
				}
				return nil
			}
		}
	case dueToken:
		if _, ok := st.tokens.Get(d.id); ok {
			return nil
		}
	}
	return fmt.Errorf("a deadline of kind %d is of %s, which does not exist", d.kind, d.id)
}

func (p *product) rebuild() error {
	var err error
	p.jobs.Scan(func(id string, r *record) bool {
		err = p.rebuildJob(id, r)
		return err == nil
	})
	if err != nil {
		return err
	}
	p.memory.dir, err = p.memory.direct()
	return err
}

func (p *product) rebuildJob(id string, r *record) error {
	j := r.job
	stage := j.Stage.Index()
	if stage < 0 || r.lease.JobID != id || (j.Kind == fleet.Composite) != (r.group != nil) || r.held() && r.latest == nil {
		return fmt.Errorf("job %s is inconsistent", id)
	}
	p.bySeq.Set(r.seq, id)
	p.stages[stage].Set(r.seq, id)
	if j.IdempotencyKey != "" {
		p.byKey.Set(j.IdempotencyKey, id)
	}
	if r.parked() {
		p.parked.Set(r.seq, id)
	}
	if j.ParentID != "" {
		p.children.Set(edge{j.ParentID, r.seq, id})
	}
	if parent, ok := p.jobs.Get(j.ParentID); ok && (parent.group == nil || r.group != nil && r.group.depth != parent.group.depth+1) {
		return fmt.Errorf("job %s is no child of %s", id, j.ParentID)
	}
	for _, dep := range r.deps {
		p.dependents.Set(edge{dep, r.seq, id})
	}
	if r.held() {
		if _, ok := p.factories.Get(r.lease.HolderFactoryID); !ok {
			return fmt.Errorf("job %s is held by factory %s, which does not exist", id, r.lease.HolderFactoryID)
		}
		p.held.Set(edge{r.lease.HolderFactoryID, r.seq, id})
	}
	if j.Stage == fleet.Queued && r.waiting == nil && r.group == nil {
		place := queued{signatureOf(&j.Submission), r.key, id}
		p.queue.Set(place)
		p.lengthen(place, &j.Submission)
	}
	for _, e := range r.events {
		p.feed.Set(e.Index, e)
	}
	return nil
}
