package check

// This file turns a recorded history into what the models judge.

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// translation is one history of one product on its way to the models.
type translation struct {
	product string
	byKey   map[string]string // a submit's key to its job's id
	family  map[string]bool   // composites and their children: the models know nothing of them
	calls   []porcupine.Operation
}

// translate gives all that the models know of a product's history, in the order in which it began. Hidden steps are not
// yet among it.
func (h *History) translate(product string) *translation {
	t := &translation{product: product, byKey: map[string]string{}, family: map[string]bool{}}
	ops := h.Operations()
	for _, o := range ops {
		t.learn(o)
	}
	for _, o := range ops {
		if !o.NoEffect {
			t.add(o)
		}
	}
	return t
}

// learn takes from a submit that happened which job its key names, and which jobs belong to a composite. Of one whose answer
// was lost the log says so: others are told of its job.
func (t *translation) learn(o *Operation) {
	note := func(s *fleet.Submission, id string) {
		if s.IdempotencyKey != "" {
			t.byKey[s.IdempotencyKey] = id
		}
		if s.Kind == fleet.Composite || s.ParentID != "" {
			t.family[id] = true
		}
	}
	answer := o.Answer
	if o.Unknown {
		answer = o.logged
	}
	switch c := o.Proposal.Command.(type) {
	case *fsm.Submit:
		if r, ok := answer.Result.(*fleet.SubmitResult); ok && c.ProductID == t.product {
			note(&c.Submission, r.Job.ID)
		}
	case *fsm.SubmitBatch:
		if r, ok := answer.Result.(*fleet.SubmitResults); ok && c.ProductID == t.product {
			for i := range r.Results {
				note(&c.Submissions[i], r.Results[i].Job.ID)
			}
		}
	}
}

// add translates one operation.
func (t *translation) add(o *Operation) {
	put := func(c Call, r Reply) {
		r.Unknown = o.Unknown
		t.calls = append(t.calls, porcupine.Operation{ClientId: o.Client, Input: c, Output: r, Call: o.Call, Return: o.Return})
	}
	if o.Proposal.Command == nil {
		t.read(o, put)
		return
	}
	a := o.Answer
	refused := Reply{}
	if a.Err != nil {
		refused = Reply{Code: a.Err.Code, Current: a.Err.CurrentEpoch}
	}
	withJob := func() Reply {
		if j, ok := a.Result.(*fleet.Job); ok {
			return Reply{Job: show(j)}
		}
		return refused
	}
	withLease := func() Reply {
		if l, ok := a.Result.(*fleet.Lease); ok {
			return Reply{Lease: showLease(l)}
		}
		return refused
	}
	switch c := o.Proposal.Command.(type) {
	case *fsm.Submit:
		if c.ProductID != t.product {
			return
		}
		r := refused
		if s, ok := a.Result.(*fleet.SubmitResult); ok {
			r = Reply{Outcome: s.Outcome, Job: show(s.Job)}
		}
		t.submit(&c.Submission, c.JobID, r, put)
	case *fsm.SubmitBatch:
		if c.ProductID != t.product || a.Err != nil {
			return // all or nothing: what was refused for another's sake says nothing of this job
		}
		for i := range c.Submissions {
			var r Reply
			if s, ok := a.Result.(*fleet.SubmitResults); ok {
				r = Reply{Outcome: s.Results[i].Outcome, Job: show(s.Results[i].Job)}
			}
			t.submit(&c.Submissions[i], c.JobIDs[i], r, put)
		}
	case *fsm.Claim:
		if c.ProductID == t.product {
			granted, _ := a.Result.(*fleet.Claim)
			t.claim(c.FactoryID, granted, refused, put)
		}
	case *fsm.ClaimBatch:
		if r, ok := a.Result.(*fleet.Claims); c.ProductID == t.product && ok {
			for i := range r.Claims {
				t.claim(c.FactoryID, &r.Claims[i], refused, put)
			}
		}
	case *fsm.Patch:
		if c.ProductID == t.product {
			put(report(OpPatch, c.JobID, &c.Report), withJob())
		}
	case *fsm.Report:
		if c.ProductID != t.product || a.Err != nil {
			return
		}
		for i := range c.Reports {
			var r Reply
			if all, ok := a.Result.(*fleet.ReportResults); ok {
				one := all.Results[i]
				r = Reply{Code: one.Code, Current: one.CurrentEpoch}
				if one.Job != nil {
					r.Job = show(one.Job)
				}
			}
			put(report(OpPatch, c.Reports[i].JobID, &c.Reports[i].Report), r)
		}
	case *fsm.OperatorPatch:
		if c.ProductID == t.product {
			call := report(OpOperate, c.JobID, &c.Report)
			call.Any = c.IfMatch.Any
			if len(c.IfMatch.Versions) > 0 {
				call.IfMatch = c.IfMatch.Versions[0]
			}
			put(call, withJob())
		}
	case *fsm.Renew:
		if c.ProductID == t.product {
			put(Call{Op: OpRenew, Job: c.JobID, Epoch: c.LeaseEpoch}, withLease())
		}
	case *fsm.Release:
		if c.ProductID == t.product {
			put(Call{Op: OpRelease, Job: c.JobID, Epoch: c.LeaseEpoch, Delay: c.DelaySeconds > 0}, withLease())
		}
	case *fsm.Comment:
		if c.ProductID == t.product && c.LeaseEpoch != nil {
			put(Call{Op: OpAttach, Job: c.JobID, Epoch: *c.LeaseEpoch}, refused)
		}
	case *fsm.AddArtifact:
		if c.ProductID == t.product && c.Request.LeaseEpoch != nil {
			put(Call{Op: OpAttach, Job: c.JobID, Epoch: *c.Request.LeaseEpoch}, refused)
		}
	case *fsm.Cancel:
		if c.ProductID == t.product {
			put(Call{Op: OpCancel, Job: c.JobID}, withJob())
		}
	case *fsm.Requeue:
		if c.ProductID == t.product {
			put(Call{Op: OpRequeue, Job: c.JobID}, withJob())
		}
	case *fsm.Heartbeat:
		if c.ProductID == t.product {
			t.heartbeat(&c.Heartbeat, a, put)
		}
	}
}

func (t *translation) read(o *Operation, put func(Call, Reply)) {
	if o.Unknown || o.Query.Product != t.product {
		return
	}
	r := Reply{}
	switch d := o.Answer.Result.(type) {
	case *fleet.Job:
		r.Job = show(d)
	case *fleet.Lease:
		r.Lease = showLease(d)
	}
	if o.Answer.Err != nil {
		r.Code = o.Answer.Err.Code
	}
	switch o.Query.Subject {
	case Jobs:
		put(Call{Op: OpRead, Job: o.Query.ID}, r)
	case Leases:
		put(Call{Op: OpLease, Job: o.Query.ID}, r)
	}
}

func (t *translation) submit(s *fleet.Submission, id string, r Reply, put func(Call, Reply)) {
	if known, ok := t.byKey[s.IdempotencyKey]; ok && s.IdempotencyKey != "" {
		id = known
	}
	ask := Ask{
		Key: s.IdempotencyKey, Priority: s.Priority.Tier(), Needs: strings.Join(s.Capabilities, ","), Soft: s.DepsMode == fleet.Soft,
		Later: s.NotBefore != 0, Losses: 5, Tokens: -1, USD: -1,
	}
	var deps []string
	for _, dep := range s.Deps {
		if key, ok := strings.CutPrefix(dep, "key:"); ok {
			dep = t.byKey[key]
		}
		deps = append(deps, dep)
	}
	ask.Deps = strings.Join(deps, ",")
	if s.Checkpoint != nil {
		ask.Checkpoint = s.Checkpoint.WipCommit
	}
	if s.Retry != nil {
		ask.Retry, ask.Max, ask.On = true, s.Retry.Max, strings.Join(s.Retry.On, ",")
		if s.Retry.MaxLeaseLosses != nil {
			ask.Losses = *s.Retry.MaxLeaseLosses
		}
	}
	if s.Budget != nil && s.Budget.Tokens != nil {
		ask.Tokens = *s.Budget.Tokens
	}
	ask.Wall = s.Budget != nil && s.Budget.Wall != nil
	if s.Budget != nil && s.Budget.USD != nil {
		ask.USD = *s.Budget.USD
	}
	keyless := *s
	keyless.IdempotencyKey = ""
	content, err := json.Marshal(&keyless)
	if err != nil {
		panic(err) // plain data
	}
	ask.Content = string(content)
	if s.IdempotencyKey == "" {
		ask.Content += " by " + id // never the same as another's
	}
	put(Call{Op: OpSubmit, Job: id, Ask: ask}, r)
}

func (t *translation) claim(factory string, granted *fleet.Claim, r Reply, put func(Call, Reply)) {
	c := Call{Op: OpClaim, Factory: factory}
	if granted != nil && granted.Job != nil {
		c.Job = granted.Job.ID
		r = Reply{Granted: c.Job, Job: show(granted.Job), Lease: showLease(granted.Lease)}
	}
	put(c, r)
}

func (t *translation) heartbeat(b *fleet.HeartbeatRequest, a fsm.Answer, put func(Call, Reply)) {
	r := Reply{}
	result, _ := a.Result.(*fleet.HeartbeatResult)
	if result != nil {
		r.Active = result.Factory.ActiveLeases
	} else if a.Err != nil {
		return
	}
	beat := Beat{Health: b.Health}
	if b.Capabilities != nil {
		beat.Needs, beat.SetNeeds = strings.Join(*b.Capabilities, ","), true
	}
	if b.SeatLimit != nil {
		beat.Seats = *b.SeatLimit
	}
	put(Call{Op: OpBeat, Factory: b.FactoryID, Beat: beat}, r)
	for i, l := range b.Leases {
		var r Reply
		if result != nil {
			one := result.Leases[i]
			r = Reply{Code: one.Code, Current: one.CurrentEpoch}
			if one.Lease != nil {
				r.Lease = showLease(one.Lease)
			}
		}
		put(Call{Op: OpRenew, Job: l.JobID, Epoch: l.LeaseEpoch}, r)
	}
}

func report(op Op, id string, r *fleet.Report) Call {
	c := Call{Op: op, Job: id, Stage: r.Stage, Reason: r.Reason, Result: string(r.Result)}
	if r.LeaseEpoch != nil {
		c.Epoch = *r.LeaseEpoch
	}
	if r.Checkpoint != nil {
		c.Checkpoint = r.Checkpoint.WipCommit
	}
	if in := r.Insights; in != nil {
		c.TokensIn, c.TokensOut, c.USD = in.TokensIn, in.TokensOut, in.CostUSD
	}
	return c
}

func show(j *fleet.Job) *Shown {
	s := &Shown{
		Stage: j.Stage, Epoch: j.LeaseEpoch, Version: j.Version, Attempt: j.Attempt, Failures: j.Failures, Losses: j.LeaseLosses,
		Reason: j.Reason, Result: string(j.Result),
	}
	if j.Checkpoint != nil {
		s.Checkpoint = j.Checkpoint.WipCommit
	}
	return s
}

func showLease(l *fleet.Lease) *ShownLease {
	return &ShownLease{Held: l.Status == fleet.LeaseHeld, Holder: l.HolderFactoryID, Epoch: l.LeaseEpoch}
}

// hidden adds what nobody called, as the feed shows it: leases that the reaper took, and, if grants are asked for, claims
// whose answer nobody got. It began when the lease was granted and was over when anybody saw the event.
func (h *History) hidden(t *translation, grants bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	type attempt struct {
		job   string
		epoch uint64
	}
	granted := map[attempt]int64{} // when the claim began
	lost := map[string]int64{}     // by factory: when its first unanswered claim began
	for _, op := range t.calls {
		c, r := op.Input.(Call), op.Output.(Reply)
		if c.Op == OpClaim && r.Granted != "" {
			granted[attempt{c.Job, r.Job.Epoch}] = op.Call
		}
	}
	for _, o := range h.ops {
		factory := ""
		switch c := o.Proposal.Command.(type) {
		case *fsm.Claim:
			factory = c.FactoryID
		case *fsm.ClaimBatch:
			factory = c.FactoryID
		}
		if first, ok := lost[factory]; o.Unknown && factory != "" && (!ok || o.Call < first) {
			lost[factory] = o.Call
		}
	}
	epochs := map[string]uint64{}
	ranOut := map[string]int{} // where the call is that took the job's last lease, until the next claim
	feed := h.events[t.product]
	for _, index := range slices.Sorted(maps.Keys(feed)) {
		s := feed[index]
		e := s.event
		op := porcupine.Operation{ClientId: 0, Return: s.at, Output: Reply{}}
		switch e.Type {
		case fleet.EventClaimed:
			epochs[e.JobID]++
			delete(ranOut, e.JobID)
			a := attempt{e.JobID, epochs[e.JobID]}
			if _, ok := granted[a]; ok {
				continue
			}
			factory := factoryOf(e)
			call, ok := lost[factory]
			if !ok {
				return fmt.Errorf("I2: job %s was claimed for %s at epoch %d, but nobody of that factory had asked", a.job, factory, a.epoch)
			}
			granted[a] = call
			if !grants {
				continue
			}
			op.Call, op.Input = call, Call{Op: OpClaim, Job: a.job, Factory: factory}
		case fleet.EventLeaseExpired, fleet.EventBudgetExceeded:
			if i, ok := ranOut[e.JobID]; ok && e.Type == fleet.EventBudgetExceeded { // what came of the lost lease
				c := t.calls[i].Input.(Call)
				c.Reason = string(e.Type)
				t.calls[i].Input = c
				continue
			}
			if e.Type == fleet.EventLeaseExpired {
				ranOut[e.JobID] = len(t.calls)
			}
			call := granted[attempt{e.JobID, epochs[e.JobID]}]
			epochs[e.JobID]++
			if e.Type == fleet.EventBudgetExceeded && e.Actor != fsm.ActorFleet {
				continue // a report's doing
			}
			op.Call, op.Input = call, Call{Op: OpExpire, Job: e.JobID, Epoch: epochs[e.JobID]}
			if e.Type == fleet.EventBudgetExceeded {
				op.Input = Call{Op: OpOverspend, Job: e.JobID, Epoch: epochs[e.JobID]}
			}
		case fleet.EventCancelled:
			epochs[e.JobID]++
			continue
		default:
			continue
		}
		t.calls = append(t.calls, op)
	}
	return nil
}

func factoryOf(e *fleet.Event) string {
	var data struct {
		FactoryID string `json:"factoryId"`
	}
	if json.Unmarshal([]byte(e.Data), &data) != nil {
		return ""
	}
	return data.FactoryID
}

func describe(in, out any) string {
	c, r := in.(Call), out.(Reply)
	b := strings.Builder{}
	fmt.Fprintf(&b, "%s %s", c.Op, c.Job)
	for _, part := range []struct {
		name  string
		value any
		shown bool
	}{
		{"factory", c.Factory, c.Factory != ""},
		{"epoch", c.Epoch, c.Epoch != 0},
		{"stage", c.Stage, c.Stage != ""},
		{"reason", c.Reason, c.Reason != ""},
		{"checkpoint", c.Checkpoint, c.Checkpoint != ""},
		{"result", c.Result, c.Result != ""},
		{"if-match", c.IfMatch, c.IfMatch != 0},
		{"ask", c.Ask, c.Op == OpSubmit},
		{"beat", c.Beat, c.Op == OpBeat},
	} {
		if part.shown {
			fmt.Fprintf(&b, " %s=%v", part.name, part.value)
		}
	}
	switch {
	case r.Unknown:
		b.WriteString(" -> ?")
	case r.Code != "":
		fmt.Fprintf(&b, " -> %s", r.Code)
		if r.Current != 0 {
			fmt.Fprintf(&b, " (current %d)", r.Current)
		}
	default:
		fmt.Fprintf(&b, " -> ok %s", r.Outcome)
	}
	if r.Active != 0 {
		fmt.Fprintf(&b, " active %d", r.Active)
	}
	if r.Job != nil {
		fmt.Fprintf(&b, " %+v", *r.Job)
	}
	if r.Lease != nil {
		fmt.Fprintf(&b, " %+v", *r.Lease)
	}
	return b.String()
}
