package fsm

// This file explains why a job is not running: the reasons that hold, most decisive first, each with its cure.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lysnrai/fleet"
)

// The codes of reasons, in their order.
const (
	whyTerminal    = "terminal"
	whyComposite   = "composite"
	whyParked      = "parked"
	whyHeld        = "held_by"
	whyDeps        = "dependencies_unmet"
	whyNotBefore   = "not_before"
	whyNoCapable   = "no_capable_factory"
	whyUnavailable = "capable_factories_unavailable"
	whyWaiting     = "waiting"
)

// Why says why a job is not running, most decisive reason first.
func (v View) Why(product, id string) (*fleet.Why, bool) {
	r, ok := v.st.record(product, id)
	if !ok {
		return nil, false
	}
	p, _ := v.st.products.Get(product)
	return &fleet.Why{Stage: r.job.Stage, Reasons: v.st.reasons(p, r)}, true
}

func (st *state) reasons(p *product, r *record) []fleet.Reason {
	j := r.job
	switch {
	case j.Stage.Terminal():
		return []fleet.Reason{terminal(j)}
	case r.group != nil:
		return []fleet.Reason{composed(r.group)}
	case r.parked():
		return []fleet.Reason{{
			Code: whyParked, Stage: j.Stage,
			Detail: fmt.Sprintf("It waits in %s and nobody holds it: an operator moves it on with PATCH and If-Match, or back to queued.", j.Stage),
		}}
	case r.held():
		l := st.shownLease(r)
		return []fleet.Reason{{
			Code: whyHeld, Factory: l.HolderFactoryID, Expires: l.ExpiresAt, Stage: j.Stage,
			Detail: fmt.Sprintf("Factory %s works on it and must renew its lease before %s; cancel the job to stop it.", l.HolderFactoryID, l.ExpiresAt),
		}}
	}
	reasons := []fleet.Reason{}
	if r.unmet > 0 {
		reasons = append(reasons, p.unmetDeps(r))
	}
	if w := r.waiting; w != nil {
		reasons = append(reasons, notBefore(w))
	}
	reason, capable := p.unserved(r)
	if reason != nil {
		reasons = append(reasons, *reason)
	}
	if capable && j.Stage == fleet.Queued && r.waiting == nil {
		reasons = append(reasons, p.inLine(r))
	}
	return reasons
}

func terminal(j *fleet.Job) fleet.Reason {
	reason := fleet.Reason{Code: whyTerminal, Stage: j.Stage, Reason: j.Reason, Detail: "It is shipped: there is nothing left to do."}
	if j.Stage != fleet.Shipped {
		cause := j.Reason
		if cause == "" {
			cause = "no reason given"
		}
		reason.Detail = fmt.Sprintf("It ended %s (%s): look at its runs, then requeue it.", j.Stage, cause)
	}
	return reason
}

func composed(g *group) fleet.Reason {
	stages := map[string]int64{}
	var list []string
	for _, s := range fleet.Stages {
		if n := g.stages[s.Index()]; n > 0 {
			stages[string(s)] = n
			list = append(list, fmt.Sprintf("%d %s", n, s))
		}
	}
	detail := "It is a composite without children: submit jobs that name it as parentId."
	switch {
	case g.cancelled:
		detail = "It is a composite that was cancelled: requeue it to bring its children back."
	case len(list) > 0:
		detail = "It is a composite and runs through its children (" + strings.Join(list, ", ") + "): ask why of those."
	}
	return fleet.Reason{Code: whyComposite, Stages: stages, Detail: detail}
}

func (p *product) unmetDeps(r *record) fleet.Reason {
	reason := fleet.Reason{Code: whyDeps, Unmet: []string{}, Dead: []string{}}
	for _, id := range r.deps {
		d, ok := p.jobs.Get(id)
		if ok && met(d.job.Stage, r.job.DepsMode) {
			continue
		}
		reason.Unmet = append(reason.Unmet, id)
		if ok && (d.job.Stage == fleet.Failed || d.job.Stage == fleet.DeadLetter) {
			reason.Dead = append(reason.Dead, id)
		}
	}
	reason.Detail = fmt.Sprintf("It waits for %s to finish.", some(reason.Unmet))
	if len(reason.Dead) > 0 {
		reason.Detail = fmt.Sprintf("It waits for %s, which ended without shipping: requeue that, or cancel this job.", some(reason.Dead))
	}
	return reason
}

// some names the first of a list and says how many there are.
func some(ids []string) string {
	if len(ids) == 1 {
		return "job " + ids[0]
	}
	return fmt.Sprintf("job %s and %d others", ids[0], len(ids)-1)
}

func notBefore(w *waiting) fleet.Reason {
	detail := map[string]string{
		causeSubmitted: "It was submitted not to start before %s: submit it again with another notBefore to change that.",
		causeBackoff:   "It failed and is tried again after %s; its runs say what went wrong.",
		causeReleased:  "A factory gave it back until %s; its runs say which.",
	}[w.cause]
	return fleet.Reason{Code: whyNotBefore, Until: w.until, Cause: w.cause, Detail: fmt.Sprintf(detail, w.until)}
}

// unserved is why no factory could take the job now, nil if one could; capable is whether one could ever.
func (p *product) unserved(r *record) (reason *fleet.Reason, capable bool) {
	needs := signature{capabilities: r.job.Capabilities, engine: r.job.EngineClass}
	missing := needs.missing(&fleet.Factory{})
	var paused, down, full int64 // no factory can be paused yet
	free := false
	p.factories.Scan(func(_ string, f *factory) bool {
		d := shownFactory(f)
		switch lacks := needs.missing(d); {
		case len(lacks) > 0:
			if len(lacks) < len(missing) {
				missing = lacks
			}
			return true
		case d.Health == fleet.HealthDown:
			down++
		case d.ActiveLeases >= d.SeatLimit:
			full++
		default:
			free = true
		}
		capable = true
		return true
	})
	switch {
	case free:
		return nil, true
	case capable:
		return &fleet.Reason{
			Code: whyUnavailable, Paused: &paused, Down: &down, Full: &full,
			Detail: fmt.Sprintf("Of the factories that could do it %d are down and %d use all their seats: bring one back, or add seats.", down, full),
		}, true
	case p.factories.Len() == 0:
		return &fleet.Reason{Code: whyNoCapable, Missing: missing, Detail: "No factory is registered: start a worker."}, false
	}
	return &fleet.Reason{
		Code: whyNoCapable, Missing: missing,
		Detail: fmt.Sprintf("No factory has all that it requires; the nearest lacks %s: start a worker that has it.", strings.Join(missing, ", ")),
	}, false
}

// missing lists what a factory lacks of what is required, the engine last.
func (s *signature) missing(f *fleet.Factory) []string {
	list := []string{}
	for _, c := range s.capabilities {
		if !slices.Contains(f.Capabilities, c) {
			list = append(list, c)
		}
	}
	if s.engine != "" && !slices.Contains(f.Engines, s.engine) {
		list = append(list, s.engine)
	}
	return list
}

// inLine is the job's place among those that require the same.
func (p *product) inLine(r *record) fleet.Reason {
	name := signatureOf(&r.job.Submission)
	ahead := int64(rank(p.queue, queued{signature: name, key: r.key}, lessQueued) - rank(p.queue, queued{signature: name}, lessQueued))
	detail := "It is next in line for a factory that asks for work: see that workers are running."
	if ahead > 0 {
		detail = fmt.Sprintf("%d jobs that require the same are before it: raise its priority, or add seats.", ahead)
	}
	return fleet.Reason{Code: whyWaiting, Position: ahead + 1, Ahead: &ahead, Detail: detail}
}
