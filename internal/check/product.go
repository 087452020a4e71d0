package check

// This file is the contract of a small product as a whole: its line, its factories' seats, and what waits for what.

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/lysnrai/fleet"
)

// How large a product the model holds. The search grows with what can be concurrent, not with these.
const (
	maxJobs      = 6
	maxFactories = 3
)

// Beat is what matters of a heartbeat: what it leaves out stays as it is.
type Beat struct {
	Needs    string // capabilities, joined by commas
	SetNeeds bool
	Seats    int64 // 0: left out
	Health   fleet.Health
}

// factory is the state of one factory. Its seats in use are counted from the jobs.
type factory struct {
	id     string
	can    string
	seats  int64
	health fleet.Health
}

// product is the state of a product. Jobs stand in the order in which they were submitted.
type product struct {
	ids       [maxJobs]string
	jobs      [maxJobs]job
	factories [maxFactories]factory
}

// at is the place of a job, or the first free one, which has no id and holds no job. It is -1 if all places are taken by
// others.
func (p *product) at(id string) int {
	for i, known := range p.ids {
		if known == id || known == "" {
			return i
		}
	}
	return -1
}

// keyed is the place of the job with a key, -1 if there is none.
func (p *product) keyed(key string) int {
	for i := range p.jobs {
		if key != "" && p.jobs[i].ask.Key == key {
			return i
		}
	}
	return -1
}

func (p *product) factory(id string) int {
	for i, f := range p.factories {
		if f.id == id || f.id == "" {
			return i
		}
	}
	panic("more factories than the model holds")
}

func (p *product) active(factory string) (n int64) {
	for _, j := range p.jobs {
		if j.holder == factory {
			n++
		}
	}
	return n
}

// unmet reports whether something keeps the i-th job blocked.
func (p *product) unmet(i int) bool {
	for _, dep := range split(p.jobs[i].ask.Deps) {
		stage := fleet.Stage("")
		if d := p.at(dep); d >= 0 {
			stage = p.jobs[d].stage
		}
		if stage != fleet.Shipped && (stage != fleet.Testing || !p.jobs[i].ask.Soft) {
			return true
		}
	}
	return false
}

// inLine is how the i-th job is called while it stands in line.
func (p *product) inLine(i int) fleet.Stage {
	if p.unmet(i) {
		return fleet.Blocked
	}
	return fleet.Queued
}

// eligible reports whether a factory could be given the i-th job if no time kept it waiting.
func (p *product) eligible(i int, f factory) bool {
	return p.jobs[i].stage == fleet.Queued && !p.unmet(i) && subset(p.jobs[i].ask.Needs, f.can)
}

// before reports whether the i-th job goes before the k-th: by priority, then by its place in the log.
func (p *product) before(i, k int) bool {
	if a, b := p.jobs[i].ask.Priority, p.jobs[k].ask.Priority; a != b {
		return a < b
	}
	return i < k
}

// cycle reports whether the i-th job waits for itself.
func (p *product) cycle(i int) bool {
	var seen [maxJobs]bool
	var visit func(k int) bool
	visit = func(k int) bool {
		for _, dep := range split(p.jobs[k].ask.Deps) {
			d := p.at(dep)
			if d == i {
				return true
			}
			if d >= 0 && p.ids[d] != "" && !seen[d] {
				seen[d] = true
				if visit(d) {
					return true
				}
			}
		}
		return false
	}
	return visit(i)
}

// step is all states that a call with this answer may lead to.
func (p product) step(c Call, r Reply) (states []any) {
	if r.Unknown {
		states = append(states, p)
	}
	switch c.Op {
	case OpBeat:
		return append(states, p.beat(c, r)...)
	case OpClaim:
		return append(states, p.claim(c, r)...)
	}
	i := p.at(c.Job)
	if c.Op == OpSubmit {
		if k := p.keyed(c.Ask.Key); k >= 0 {
			i = k
		}
		if code := p.refusal(i, c); code != "" {
			if r.Code == code {
				states = append(states, p)
			}
			return states
		}
	}
	if i < 0 {
		if c.Op == OpSubmit {
			panic("more jobs than the model holds")
		}
		if r.Code == fleet.NotFound {
			states = append(states, p)
		}
		return states
	}
	s := p.jobs[i]
	for _, o := range s.steps(c) {
		after := p
		after.jobs[i] = o.next
		if o.next.stage != "" {
			after.ids[i] = c.Job
		}
		if next, ok := o.fits(s, c, r, after.inLine(i)); ok {
			after.jobs[i] = next
			states = append(states, after)
		}
	}
	return states
}

// refusal is what the deps of a submission are refused with.
func (p *product) refusal(i int, c Call) fleet.Code {
	was := p.jobs[i]
	if was.stage != "" && (was.ask.Content == c.Ask.Content || was.stage != fleet.Queued) {
		return "" // nothing would be set: the key decides
	}
	for _, dep := range split(c.Ask.Deps) {
		if d := p.at(dep); d < 0 || p.ids[d] == "" {
			return fleet.UnknownDependency
		}
	}
	after := *p
	after.jobs[i].ask, after.ids[i] = c.Ask, c.Job
	if after.cycle(i) {
		return fleet.DependencyCycle
	}
	return ""
}

func (p product) beat(c Call, r Reply) []any {
	i := p.factory(c.Factory)
	f := p.factories[i]
	if f.id == "" {
		f = factory{id: c.Factory, seats: 1, health: fleet.HealthOK}
	}
	if c.Beat.SetNeeds {
		f.can = c.Beat.Needs
	}
	if c.Beat.Seats != 0 {
		f.seats = c.Beat.Seats
	}
	if c.Beat.Health != "" {
		f.health = c.Beat.Health
	}
	p.factories[i] = f
	if r.Unknown || r.Code == "" && r.Active == p.active(f.id) {
		return []any{p}
	}
	return nil
}

// claim is a factory that asks for work. A job that a time may keep waiting may be granted or passed over.
func (p product) claim(c Call, r Reply) (states []any) {
	f := p.factories[p.factory(c.Factory)]
	code := fleet.Code("")
	switch {
	case f.id == "":
		code = fleet.UnknownFactory
	case f.health == fleet.HealthDown:
		code = fleet.FactoryDown
	case p.active(f.id) >= f.seats:
		code = fleet.SeatsExhausted
	}
	if code != "" || r.Code != "" {
		if r.Code == code {
			return []any{p}
		}
		return nil
	}
	best := -1 // of those that nothing keeps waiting
	for i := range p.jobs {
		if p.eligible(i, f) && !p.jobs[i].waits && (best < 0 || p.before(i, best)) {
			best = i
		}
	}
	if best < 0 && !r.Unknown && r.Granted == "" {
		states = append(states, p)
	}
	for i := range p.jobs {
		if !p.eligible(i, f) || best >= 0 && p.before(best, i) || !r.Unknown && r.Granted != p.ids[i] {
			continue
		}
		for _, o := range p.jobs[i].claim(f.id) {
			if next, ok := o.fits(p.jobs[i], c, r); ok {
				after := p
				after.jobs[i] = next
				states = append(states, after)
			}
		}
	}
	return states
}

// ProductModel judges the whole history of one product of at most 6 jobs and 3 factories.
var ProductModel = (&porcupine.NondeterministicModel{
	Init:              func() []any { return []any{product{}} },
	Step:              func(state, in, out any) []any { return state.(product).step(in.(Call), out.(Reply)) },
	DescribeOperation: describe,
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()

func split(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(joined, ",")
}

// subset reports whether all that is needed is among what a factory can do.
func subset(needs, can string) bool {
	for _, need := range split(needs) {
		if !strings.Contains(","+can+",", ","+need+",") {
			return false
		}
	}
	return true
}
