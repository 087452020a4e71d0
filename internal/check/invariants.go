package check

// This file is what every single step of a log must keep, judged from the state before and after it.

import (
	"errors"
	"fmt"
	"slices"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Step is one proposal about to be applied alone.
type Step struct {
	Before   fsm.View
	Frozen   *fsm.Handle     // the same state, to be restored from
	Hash     func() [32]byte // of the machine, for once the step is taken
	Index    uint64
	Now      fleet.Time // the machine's time once the step is taken
	Proposal *fsm.Proposal
}

// Judge looks at a step before it is taken and returns what looks at it afterwards, nil if it has no interest.
type Judge func(Step) func(after fsm.View, a *fsm.Answer) error

// Judges are all that judge steps, with what they remember from step to step: use them for one replay only.
func Judges() []Judge {
	return []Judge{fenced, inLine, epochs(), patience(), refused(), sound()}
}

// step takes one step under the eyes of the judges.
func step(m *fsm.Machine, index uint64, stamp fleet.Time, p *fsm.Proposal, judges []Judge) (fsm.Answer, error) {
	var after []func(fsm.View, *fsm.Answer) error
	frozen := m.Handle()
	m.View(func(v fsm.View) {
		s := Step{Before: v, Frozen: frozen, Hash: m.Hash, Index: index, Now: max(v.Now(), stamp), Proposal: p}
		for _, judge := range judges {
			if then := judge(s); then != nil {
				after = append(after, then)
			}
		}
	})
	answers, _ := m.Apply(index, &fsm.Entry{Stamp: stamp, Proposals: []fsm.Proposal{*p}})
	var errs []error
	m.View(func(v fsm.View) {
		for _, then := range after {
			errs = append(errs, then(v, &answers[0]))
		}
	})
	return answers[0], errors.Join(errs...)
}

// holder is a worker's call: the job it names and its fence.
func holder(c fsm.Command) (product, job string, epoch uint64, ok bool) {
	switch c := c.(type) {
	case *fsm.Patch:
		if c.Report.LeaseEpoch != nil {
			return c.ProductID, c.JobID, *c.Report.LeaseEpoch, true
		}
	case *fsm.Renew:
		return c.ProductID, c.JobID, c.LeaseEpoch, true
	case *fsm.Release:
		return c.ProductID, c.JobID, c.LeaseEpoch, true
	case *fsm.Comment:
		if c.LeaseEpoch != nil {
			return c.ProductID, c.JobID, *c.LeaseEpoch, true
		}
	case *fsm.AddArtifact:
		if c.Request.LeaseEpoch != nil {
			return c.ProductID, c.JobID, *c.Request.LeaseEpoch, true
		}
	}
	return "", "", 0, false
}

// fenced is I4: a worker's call is taken if and only if its lease is held at exactly its epoch.
func fenced(s Step) func(fsm.View, *fsm.Answer) error {
	product, id, epoch, ok := holder(s.Proposal.Command)
	if !ok {
		return nil
	}
	lease, ok := s.Before.Lease(product, id)
	if !ok {
		return nil
	}
	held := lease.Status == fleet.LeaseHeld && lease.LeaseEpoch == epoch
	return func(_ fsm.View, a *fsm.Answer) error {
		stale := a.Err != nil && a.Err.Code == fleet.StaleEpoch
		switch {
		case a.Replayed:
			return nil
		case held && stale:
			return fmt.Errorf("I4: job %s is held at epoch %d, but its holder was refused: %w", id, epoch, a.Err)
		case !held && a.Err == nil:
			return fmt.Errorf("I4: job %s is %s at epoch %d, but a call with epoch %d was taken", id, lease.Status, lease.LeaseEpoch, epoch)
		case !held && stale && a.Err.CurrentEpoch != lease.LeaseEpoch:
			return fmt.Errorf("I4: job %s is at epoch %d, but the refusal says %d", id, lease.LeaseEpoch, a.Err.CurrentEpoch)
		}
		return nil
	}
}

// candidate is a queued job that a factory could be given.
type candidate struct {
	job    *fleet.Job
	place  int
	surely bool // no time keeps it waiting
}

// candidates lists what a factory may be given, best first.
func candidates(v fsm.View, now fleet.Time, product string, f *fleet.Factory) []candidate {
	var all []candidate
	place := 0
	for after := uint64(0); ; {
		jobs, next := v.Jobs(product, fsm.JobFilter{Stage: fleet.Queued}, after, 1000)
		for _, j := range jobs {
			place++
			able := j.Kind == fleet.Leaf && j.NotBefore <= now && (j.EngineClass == "" || slices.Contains(f.Engines, j.EngineClass))
			for _, c := range j.Capabilities {
				able = able && slices.Contains(f.Capabilities, c)
			}
			if able { // between its time and the reaper's entry a job still waits
				all = append(all, candidate{j, place, j.NotBefore == 0})
			}
		}
		if next == 0 {
			break
		}
		after = next
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		if t := a.job.Priority.Tier() - b.job.Priority.Tier(); t != 0 {
			return t
		}
		return a.place - b.place
	})
	return all
}

// inLine is I11, and I12 for the jobs it grants: a claim gets the most urgent, oldest job that its factory can do and that
// waits for nothing; nothing only if there is none; and never more than its seats.
func inLine(s Step) func(fsm.View, *fsm.Answer) error {
	var product, id string
	switch c := s.Proposal.Command.(type) {
	case *fsm.Claim:
		product, id = c.ProductID, c.FactoryID
	case *fsm.ClaimBatch:
		product, id = c.ProductID, c.FactoryID
	default:
		return nil
	}
	f, known := s.Before.Factory(product, id)
	var line []candidate
	if known {
		line = candidates(s.Before, s.Now, product, f)
	}
	return func(v fsm.View, a *fsm.Answer) error {
		if a.Replayed {
			return nil
		}
		if a.Err != nil {
			switch {
			case a.Err.Code == fleet.SeatsExhausted && f.ActiveLeases < f.SeatLimit:
				return fmt.Errorf("I10: factory %s uses %d of %d seats and was refused for want of one", id, f.ActiveLeases, f.SeatLimit)
			case a.Err.Code == fleet.UnknownFactory && known, a.Err.Code == fleet.FactoryDown && f.Health != fleet.HealthDown:
				return fmt.Errorf("I11: factory %s is %s and was refused: %w", id, f.Health, a.Err)
			}
			return nil
		}
		var granted []fleet.Claim
		all := false // as many as there were
		switch r := a.Result.(type) {
		case *fleet.Claim:
			granted = append(granted, *r)
			if r.Job == nil {
				granted, all = nil, true
			}
		case *fleet.Claims:
			granted, all = r.Claims, len(r.Claims) == 0
		}
		for _, c := range granted {
			if err := grant(v, &line, c); err != nil {
				return err
			}
		}
		if all && slices.ContainsFunc(line, func(c candidate) bool { return c.surely }) {
			return fmt.Errorf("I11: factory %s was given nothing, though job %s waits for it", id, line[0].job.ID)
		}
		if after, ok := v.Factory(product, id); ok && len(granted) > 0 && after.ActiveLeases > after.SeatLimit {
			return fmt.Errorf("I10: factory %s was given more than its %d seats: %d", id, after.SeatLimit, after.ActiveLeases)
		}
		return nil
	}
}

// grant takes a granted job out of the line, if it had a right to be first.
func grant(v fsm.View, line *[]candidate, c fleet.Claim) error {
	for i, other := range *line {
		if other.job.ID == c.Job.ID {
			*line = slices.Delete(*line, i, i+1)
			if c.Lease.LeaseEpoch != other.job.LeaseEpoch+1 || c.Job.LeaseEpoch != c.Lease.LeaseEpoch || c.Job.Attempt != other.job.Attempt+1 {
				return fmt.Errorf("I2: job %s was at epoch %d, attempt %d and is granted at epoch %d, attempt %d",
					c.Job.ID, other.job.LeaseEpoch, other.job.Attempt, c.Lease.LeaseEpoch, c.Job.Attempt)
			}
			return runnable(v, c.Job)
		}
		if other.surely {
			return fmt.Errorf("I11: job %s was given before job %s, which is %s and was there", c.Job.ID, other.job.ID, other.job.Priority)
		}
	}
	return fmt.Errorf("I11: job %s was given, which was not to be had", c.Job.ID)
}

// runnable is I12: what runs has all its deps met.
func runnable(v fsm.View, j *fleet.Job) error {
	for _, dep := range j.Deps {
		if id, ok := resolve(v, j.ProductID, dep); ok {
			if d, ok := v.Job(j.ProductID, id); !ok || !met(d, j.DepsMode) {
				return fmt.Errorf("I12: job %s runs, but its dep %s is not met", j.ID, dep)
			}
		}
	}
	return nil
}

func met(dep *fleet.Job, mode fleet.DepsMode) bool {
	return dep.Stage == fleet.Shipped || mode == fleet.Soft && dep.Stage == fleet.Testing
}

// resolve is the job that a dep names. A key was resolved when it was submitted; that the same job still has it is true
// while nothing is purged.
func resolve(v fsm.View, product, dep string) (string, bool) {
	const byKey = "key:"
	if len(dep) <= len(byKey) || dep[:len(byKey)] != byKey {
		return dep, true
	}
	jobs, _ := v.Jobs(product, fsm.JobFilter{IdempotencyKey: dep[len(byKey):]}, 0, 1)
	if len(jobs) == 0 {
		return "", false
	}
	return jobs[0].ID, true
}

// epochs is I3: no job's epoch ever falls.
func epochs() Judge {
	highest := map[string]uint64{}
	return func(s Step) func(fsm.View, *fsm.Answer) error {
		product, id, _, ok := holder(s.Proposal.Command)
		switch c := s.Proposal.Command.(type) {
		case *fsm.Cancel:
			product, id, ok = c.ProductID, c.JobID, true
		case *fsm.Requeue:
			product, id, ok = c.ProductID, c.JobID, true
		case *fsm.OperatorPatch:
			product, id, ok = c.ProductID, c.JobID, true
		}
		return func(v fsm.View, a *fsm.Answer) error {
			grow := func(id string, epoch uint64) error {
				if epoch < highest[id] {
					return fmt.Errorf("I3: job %s fell from epoch %d to %d", id, highest[id], epoch)
				}
				highest[id] = epoch
				return nil
			}
			if r, claimed := a.Result.(*fleet.Claim); claimed && r.Job != nil && !a.Replayed {
				return grow(r.Job.ID, r.Job.LeaseEpoch)
			}
			if j, found := v.Job(product, id); ok && found {
				return grow(id, j.LeaseEpoch)
			}
			return nil
		}
	}
}

// term is a lease as its grant and its renewals made it, by a count of its own.
type term struct {
	product string
	expires fleet.Time
	seconds int64
}

// patience is I13: no lease is reaped before its time, nor within min(ttl, 60 s) of a leader change; and a reaper that
// says that nothing is left has left none that is due.
func patience() Judge {
	terms := map[string]term{}
	var leaderSince fleet.Time
	return func(s Step) func(fsm.View, *fsm.Answer) error {
		now := s.Now
		due := func(t term) bool { return t.expires < now && leaderSince.Add(min(t.seconds, 60)) < now }
		lasts := func(product, job string, seconds int64) {
			if seconds == 0 {
				seconds = terms[job].seconds
			}
			terms[job] = term{product, now.Add(seconds), seconds}
		}
		return func(v fsm.View, a *fsm.Answer) error {
			if a.Err != nil || a.Replayed {
				return nil
			}
			switch c := s.Proposal.Command.(type) {
			case *fsm.LeaderChange:
				leaderSince = now
			case *fsm.Claim:
				if r := a.Result.(*fleet.Claim); r.Job != nil {
					lasts(c.ProductID, r.Job.ID, c.LeaseSeconds)
				}
			case *fsm.ClaimBatch:
				for _, r := range a.Result.(*fleet.Claims).Claims {
					lasts(c.ProductID, r.Job.ID, c.LeaseSeconds)
				}
			case *fsm.Renew:
				lasts(c.ProductID, c.JobID, c.LeaseSeconds)
			case *fsm.Heartbeat:
				for _, r := range a.Result.(*fleet.HeartbeatResult).Leases {
					if r.OK {
						lasts(c.ProductID, r.JobID, 0)
					}
				}
			case *fsm.Reap:
				more := a.Result.(*fsm.Reaped).More
				for job, t := range terms { // any order will do: the first fault ends the test
					l, ok := v.Lease(t.product, job)
					switch held := ok && l.Status == fleet.LeaseHeld; {
					case ok && l.Status == fleet.LeaseExpired && !due(t):
						return fmt.Errorf("I13: the lease of job %s was reaped at %s, but lasts to %s (leader since %s, ttl %d s)", job, now, t.expires, leaderSince, t.seconds)
					case held && due(t) && !more:
						return fmt.Errorf("I13: the reaper at %s left the lease of job %s, which ended at %s", now, job, t.expires)
					case !held:
						delete(terms, job)
					}
				}
			}
			return nil
		}
	}
}

// rarely says which steps get a look at the whole state, which costs a pass over it: every n-th at first, then fewer, so that
// all looks together cost as much as a fixed number of passes and a long log is judged at the speed of a short one.
func rarely(n int) func() bool {
	seen, next, gap := 0, n, float64(n)
	return func() bool {
		if seen++; seen < next {
			return false
		}
		gap *= 1.04
		next += int(gap)
		return true
	}
}

// refused is I9: a refusal changes nothing but the machine's time and index, which a Noop moves as well.
func refused() Judge {
	due := rarely(4)
	return func(s Step) func(fsm.View, *fsm.Answer) error {
		return func(_ fsm.View, a *fsm.Answer) error {
			if a.Err == nil || !due() {
				return nil
			}
			other, err := thaw(s.Frozen)
			if err != nil {
				return err
			}
			other.Apply(s.Index, &fsm.Entry{Stamp: s.Now, Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Noop{}}}})
			if s.Hash() != other.Hash() {
				return fmt.Errorf("I9: it changed the state, though it was refused: %w", a.Err)
			}
			return nil
		}
	}
}

// sound is what State says of the step's product, now and then.
func sound() Judge {
	due := rarely(4)
	return func(s Step) func(fsm.View, *fsm.Answer) error {
		c, ok := s.Proposal.Command.(*fsm.Claim) // it names a product
		if !ok || !due() {
			return nil
		}
		return func(v fsm.View, _ *fsm.Answer) error { return State(v, c.ProductID) }
	}
}
