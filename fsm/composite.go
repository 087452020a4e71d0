package fsm

// This file is what a change of stage means to others: to a composite, derived from counters of its children, and to
// the jobs that depend on the one that moved.

import "github.com/lysnrai/fleet"

// move is a change of a job's stage.
type move struct {
	id, parent string
	from, to   fleet.Stage // from is empty for a new job
}

// settle tells composites and dependents of every move, and of the moves that follow from it, in the order in which
// they happened.
func (tx *tx) settle() {
	for i := 0; i < len(tx.moved); i++ {
		m := tx.moved[i]
		tx.tellDependents(m)
		tx.tellParent(m)
	}
	tx.moved = tx.moved[:0]
}

// tellParent counts a child's move, and derives the composite's stage anew.
func (tx *tx) tellParent(m move) {
	if m.parent == "" {
		return
	}
	if _, ok := tx.p.jobs.Get(m.parent); !ok {
		return
	}
	child, _ := tx.p.jobs.Get(m.id)
	r := tx.edit(m.parent)
	g := *r.group
	if m.from != "" {
		g.stages[m.from.Index()]--
	}
	g.stages[m.to.Index()]++
	if m.to == fleet.Assigned || child.group != nil && child.group.claimed {
		g.claimed = true
	}
	r.group = &g
	tx.derive(r)
	if m.to.Terminal() && r.job.Stage.Terminal() {
		tx.st.ended.Set(r.ending()) // it may be purged now
	}
}

// derive gives a composite the stage that its children have, unless it was cancelled.
func (tx *tx) derive(r *record) {
	from, to := r.job.Stage, r.group.stage()
	if r.group.cancelled || from == to {
		return
	}
	tx.setStage(r, to)
	switch to {
	case fleet.Shipped:
		tx.record(r, fleet.EventShipped, "")
	case fleet.Failed:
		tx.record(r, fleet.EventFailed, "")
	default:
		tx.record(r, fleet.EventStageChanged, object{}.str("from", string(from)).str("to", string(to)).end())
	}
}

// stage is what the children come to.
func (g *group) stage() fleet.Stage {
	count := func(stages ...fleet.Stage) (n int64) {
		for _, s := range stages {
			n += g.stages[s.Index()]
		}
		return n
	}
	running := count(fleet.Queued, fleet.Assigned, fleet.Building, fleet.Review, fleet.Testing)
	blocked, dead := count(fleet.Blocked), count(fleet.Failed, fleet.DeadLetter)
	switch {
	case running == 0 && dead > 0:
		return fleet.Failed
	case running+blocked == 0 && count(fleet.Shipped) > 0:
		return fleet.Shipped
	case g.claimed:
		return fleet.Building
	}
	return fleet.Queued
}

// childIDs lists the children of a composite in submission order.
func (p *product) childIDs(id string) []string {
	var ids []string
	p.children.Ascend(edge{from: id}, func(e edge) bool {
		if e.from != id {
			return false
		}
		ids = append(ids, e.to)
		return true
	})
	return ids
}

// cancelledAbove finds a composite above the job that was cancelled and not requeued since.
func (p *product) cancelledAbove(parent string) (string, bool) {
	for parent != "" {
		r, ok := p.jobs.Get(parent)
		if !ok {
			break
		}
		if r.group.cancelled {
			return parent, true
		}
		parent = r.job.ParentID
	}
	return "", false
}
