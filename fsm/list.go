package fsm

// This file lists jobs: the index that leaves the fewest to look at is followed, the rest of the filter looks at each.

import (
	"github.com/tidwall/btree"

	"github.com/lysnrai/fleet"
)

// maxScan is how many jobs one page looks at.
const maxScan = 10_000

// JobFilter selects jobs. Zero fields select all.
type JobFilter struct {
	Stage          fleet.Stage
	IdempotencyKey string
	ParentID       string
	FactoryID      string      // jobs that this factory holds
	Parked         *bool       // true: in review or testing, held by nobody
	Label          fleet.Label // Key "" selects all
}

// Jobs lists jobs in submission order, those after the cursor `after` (0: from the start), at most limit. It looks at no more than
// 10,000 jobs: next is where to go on, 0 at the end, so that a page may be short or empty and still not be the last.
func (v View) Jobs(product string, f JobFilter, after uint64, limit int) (jobs []*fleet.Job, next uint64) {
	p, ok := v.st.products.Get(product)
	if !ok {
		return nil, 0
	}
	looked, last := 0, after
	p.candidates(f, after, func(seq uint64, id string) bool {
		if looked == maxScan || len(jobs) >= limit {
			next = last
			return false
		}
		looked, last = looked+1, seq
		if r, ok := p.jobs.Get(id); ok && f.selects(r) {
			jobs = append(jobs, shownJob(r))
		}
		return true
	})
	return jobs, next
}

// candidates goes over all jobs that the filter may select, in submission order.
func (p *product) candidates(f JobFilter, after uint64, yield func(seq uint64, id string) bool) {
	switch {
	case after == 1<<64-1:
	case f.IdempotencyKey != "":
		if id, ok := p.byKey.Get(f.IdempotencyKey); ok {
			if r, ok := p.jobs.Get(id); ok && r.seq > after {
				yield(r.seq, id)
			}
		}
	case f.FactoryID != "":
		ascendEdges(p.held, f.FactoryID, after, yield)
	case f.ParentID != "":
		ascendEdges(p.children, f.ParentID, after, yield)
	case f.Parked != nil && *f.Parked:
		p.parked.Ascend(after+1, yield)
	case f.Stage.Index() >= 0:
		p.stages[f.Stage.Index()].Ascend(after+1, yield)
	default:
		p.bySeq.Ascend(after+1, yield)
	}
}

func ascendEdges(t *btree.BTreeG[edge], from string, after uint64, yield func(seq uint64, id string) bool) {
	t.Ascend(edge{from: from, seq: after + 1}, func(e edge) bool { return e.from == from && yield(e.seq, e.to) })
}

func (f *JobFilter) selects(r *record) bool {
	j := r.job
	switch {
	case f.Stage != "" && j.Stage != f.Stage,
		f.IdempotencyKey != "" && j.IdempotencyKey != f.IdempotencyKey,
		f.ParentID != "" && j.ParentID != f.ParentID,
		f.FactoryID != "" && !(r.held() && r.lease.HolderFactoryID == f.FactoryID),
		f.Parked != nil && r.parked() != *f.Parked:
		return false
	case f.Label.Key == "":
		return true
	}
	for _, l := range j.Labels {
		if l == f.Label {
			return true
		}
	}
	return false
}
