package fsm

// This file is dependencies: what a dep names, when it is met, who is unblocked, and that no cycle is ever closed.

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/tidwall/btree"

	"github.com/lysnrai/fleet"
)

// met reports whether a dependency in this stage holds nobody up.
func met(stage fleet.Stage, mode fleet.DepsMode) bool {
	return stage == fleet.Shipped || mode == fleet.Soft && stage == fleet.Testing
}

// tellDependents counts for each dependent whether its dependency is met, and unblocks or blocks it.
func (tx *tx) tellDependents(m move) {
	if m.from == "" {
		return // nobody can depend on a job before it is there
	}
	hard := met(m.from, fleet.Hard) != met(m.to, fleet.Hard)
	soft := met(m.from, fleet.Soft) != met(m.to, fleet.Soft)
	if !hard && !soft {
		return
	}
	for _, id := range tx.p.dependentIDs(m.id) {
		d, _ := tx.p.jobs.Get(id)
		was, is := met(m.from, d.job.DepsMode), met(m.to, d.job.DepsMode)
		if was == is {
			continue
		}
		d = tx.edit(id)
		if is {
			d.unmet--
		} else {
			d.unmet++
		}
		switch {
		case d.unmet == 0 && d.job.Stage == fleet.Blocked:
			tx.setStage(d, fleet.Queued)
			tx.record(d, fleet.EventUnblocked, object{}.str("dependency", m.id).end())
		case d.unmet > 0 && d.job.Stage == fleet.Queued:
			tx.setStage(d, fleet.Blocked)
			tx.record(d, fleet.EventBlocked, object{}.str("dependency", m.id).end())
		}
	}
}

// dependentIDs lists the jobs that depend on this one, in submission order.
func (p *product) dependentIDs(id string) []string {
	var ids []string
	p.dependents.Ascend(edge{from: id}, func(e edge) bool {
		if e.from != id {
			return false
		}
		ids = append(ids, e.to)
		return true
	})
	return ids
}

// link makes a job depend on others and counts which of them are not met.
func (tx *tx) link(r *record, deps []string) {
	r.deps, r.unmet = deps, 0
	for _, dep := range deps {
		tx.p.dependents.Set(edge{dep, r.seq, r.job.ID})
		if d, ok := tx.p.jobs.Get(dep); !ok || !met(d.job.Stage, r.job.DepsMode) {
			r.unmet++
		}
	}
}

// unlink takes back what link did. A dependency that ended may be purged now.
func (tx *tx) unlink(r *record) {
	for _, dep := range r.deps {
		tx.p.dependents.Delete(edge{dep, r.seq, r.job.ID})
		if d, ok := tx.p.jobs.Get(dep); ok && d.job.Stage.Terminal() {
			tx.st.ended.Set(d.ending())
		}
	}
}

// resolve finds the jobs that the deps of a planned submission name.
func (pl *plan) resolve(w *wanted) error {
	named, before := map[string]struct{}{}, map[string]struct{}{}
	if w.old != nil {
		for _, id := range w.old.deps {
			before[id] = struct{}{}
		}
	}
	for i, dep := range w.sub.Deps {
		id, ok := dep, false
		if key, isKey := strings.CutPrefix(dep, "key:"); isKey {
			if id, ok = pl.keys[key]; !ok {
				id, ok = pl.p.byKey.Get(key)
			}
		} else {
			_, ok = pl.p.jobs.Get(dep)
		}
		if !ok {
			err := fleet.Errorf(fleet.UnknownDependency, "%s: %s names no job of product %s", w.field("deps["+strconv.Itoa(i)+"]"), dep, pl.p.id)
			err.Fields = []fleet.FieldError{{Field: w.field("deps[" + strconv.Itoa(i) + "]"), Detail: dep + " names no job of this product"}}
			return err
		}
		if _, twice := named[id]; twice {
			continue
		}
		named[id] = struct{}{}
		w.deps = append(w.deps, id)
		if _, counted := before[id]; counted {
			continue
		}
		n := pl.dependents[id]
		if n == 0 {
			n = pl.p.countDependents(id)
		}
		if n >= fleet.MaxDependents {
			return fleet.InvalidField(w.field("deps["+strconv.Itoa(i)+"]"), "job %s has %d dependents, the most is %d", id, n, fleet.MaxDependents)
		}
		pl.dependents[id] = n + 1
	}
	return nil
}

func (p *product) countDependents(id string) int { return countEdges(p.dependents, id) }

// countEdges counts the edges that lead from an id. Few are counted one by one; a star is measured, since each of its
// 10,000 edges was added by a submit that counted those before.
func countEdges(t *btree.BTreeG[edge], from string) (n int) {
	const few = 64
	t.Ascend(edge{from: from}, func(e edge) bool {
		if e.from == from {
			n++
		}
		return e.from == from && n < few
	})
	if n < few {
		return n
	}
	return rank(t, edge{from: from, seq: math.MaxUint64}, lessEdge) - rank(t, edge{from: from}, lessEdge)
}

// rank is how many items of a tree are before one.
func rank[T any](t *btree.BTreeG[T], item T, less func(a, b T) bool) int {
	return sort.Search(t.Len(), func(i int) bool {
		at, _ := t.GetAt(i)
		return !less(at, item)
	})
}

// visit is a job on the path of a search for cycles, with those of its successors that are left.
type visit struct {
	id   string
	next []string
}

// acyclic refuses a plan that would close a cycle. Edges lead from a job to its deps and from a composite to its
// children; a new cycle passes through one of the jobs that are planned. A search looks at jobs outside of the plan only
// if one of them may lead back into it, or every batch at the end of a long chain would walk all of the chain.
func (pl *plan) acyclic() error {
	const onPath, done = 1, 2
	seen := map[string]int{}
	outside := false
	for _, w := range pl.wanted {
		outside = outside || (w.old != nil || w.sub.ParentID != "") && pl.mayClose(w)
	}
	for _, start := range pl.wanted {
		if !pl.mayClose(start) || seen[start.id] == done {
			continue
		}
		path := []visit{{start.id, pl.successors(start.id, outside)}}
		seen[start.id] = onPath
		for len(path) > 0 {
			top := &path[len(path)-1]
			if len(top.next) == 0 {
				seen[top.id] = done
				path = path[:len(path)-1]
				continue
			}
			id := top.next[0]
			top.next = top.next[1:]
			switch seen[id] {
			case done:
			case onPath:
				return pl.cycle(path, id)
			default:
				if len(seen) >= fleet.MaxCycleSearch {
					return fleet.InvalidField(start.field("deps"), "the search for a cycle meets more than %d jobs", fleet.MaxCycleSearch)
				}
				seen[id] = onPath
				path = append(path, visit{id, pl.successors(id, outside)})
			}
		}
	}
	return nil
}

// mayClose reports whether a cycle can lead through a planned job: it has deps, and somebody depends on it or on a
// composite above it.
func (pl *plan) mayClose(w *wanted) bool {
	if len(w.deps) == 0 {
		return false
	}
	for id, up := w.id, w.sub.ParentID; ; {
		if pl.dependents[id] > 0 || pl.p.countDependents(id) > 0 {
			return true
		}
		r, ok := pl.p.jobs.Get(up)
		if !ok {
			return false
		}
		id, up = up, r.job.ParentID
	}
}

// successors lists where the edges from a job lead; those of a job outside of the plan only if they are asked for.
func (pl *plan) successors(id string, outside bool) []string {
	if w, ok := pl.byID[id]; ok && w.sub.Kind != fleet.Composite {
		return w.deps
	}
	r, ok := pl.p.jobs.Get(id)
	if !ok || !outside {
		return nil
	}
	if r.group != nil {
		return pl.withPlanned(id)
	}
	return r.deps
}

// withPlanned lists the children of a composite with those that the plan adds.
func (pl *plan) withPlanned(id string) []string { return append(pl.p.childIDs(id), pl.children[id]...) }

// cycle names the path, and those of its jobs that are submitted here: nobody has seen their ids.
func (pl *plan) cycle(path []visit, id string) error {
	ids := []string{}
	for _, v := range path {
		if len(ids) > 0 || v.id == id {
			ids = append(ids, v.id)
		}
	}
	ids = append(ids, id)
	shown := ids
	if n := len(ids); n > 10 {
		shown = []string{ids[0], ids[1], ids[2], "…", ids[n-3], ids[n-2], id}
	}
	err := fleet.Errorf(fleet.DependencyCycle, "the dependencies would close a cycle: %s", strings.Join(shown, " → "))
	err.Cycle = ids
	for _, w := range pl.wanted {
		if pl.byID[w.id] == w && slices.Contains(ids, w.id) {
			err.Fields = append(err.Fields, fleet.FieldError{Field: w.field("deps"), Detail: "job " + w.id + " is on the cycle"})
		}
	}
	return err
}
