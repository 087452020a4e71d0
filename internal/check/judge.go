package check

// This file asks the models about a history: I5, that it is as if its calls had happened one after the other.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/lysnrai/fleet"
)

// CheckJobs judges every job of a product by JobModel. A job whose verdict takes longer than the limit is a failure too.
// The product's feed must have been seen to its end (Saw). Composites and their children are left to the witness.
func (h *History) CheckJobs(product string, limit time.Duration) error {
	t := h.translate(product)
	var jobs []string
	byJob := map[string][]porcupine.Operation{}
	t.calls = slices.DeleteFunc(t.calls, func(op porcupine.Operation) bool {
		c, r := op.Input.(Call), op.Output.(Reply)
		switch c.Op {
		case OpBeat:
			return true
		case OpClaim:
			return r.Granted == ""
		case OpSubmit: // what other documents refuse says nothing of this job
			return r.Code != "" && r.Code != fleet.IdempotencyConflict
		}
		return false
	})
	if err := h.hidden(t, true); err != nil {
		return err
	}
	for _, op := range t.calls {
		id := op.Input.(Call).Job
		if t.family[id] {
			continue
		}
		if byJob[id] == nil {
			jobs = append(jobs, id)
		}
		byJob[id] = append(byJob[id], op)
	}
	for _, id := range jobs {
		if err := judge(JobModel, byJob[id], limit); err != nil {
			return fmt.Errorf("I5: job %s: %w", id, err)
		}
	}
	return nil
}

// CheckProduct judges a product of at most 6 jobs and 3 factories as a whole by ProductModel.
func (h *History) CheckProduct(product string, limit time.Duration) error {
	t := h.translate(product)
	if err := h.hidden(t, false); err != nil {
		return err
	}
	if err := judge(ProductModel, t.calls, limit); err != nil {
		return fmt.Errorf("I5: product %s: %w", product, err)
	}
	return nil
}

// judge says why a history is not linearizable.
func judge(model porcupine.Model, ops []porcupine.Operation, limit time.Duration) error {
	verdict, info := porcupine.CheckOperationsVerbose(model, ops, limit)
	switch verdict {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("no verdict on %d calls within %s", len(ops), limit)
	}
	var longest []int
	for _, partition := range info.PartialLinearizations() {
		for _, sequence := range partition {
			if len(sequence) > len(longest) {
				longest = sequence
			}
		}
	}
	b := strings.Builder{}
	line := func(op porcupine.Operation) {
		fmt.Fprintf(&b, "\n  [%d, %d] client %d: %s", op.Call, op.Return, op.ClientId, model.DescribeOperation(op.Input, op.Output))
	}
	fits := make([]bool, len(ops))
	state := model.Init()
	for n, i := range longest {
		fits[i] = true
		_, state = model.Step(state, ops[i].Input, ops[i].Output)
		if n >= len(longest)-15 {
			line(ops[i])
		}
	}
	fmt.Fprintf(&b, "\n  then %s, and one of these fits no more", model.DescribeState(state))
	var rest []porcupine.Operation
	for i, op := range ops {
		if !fits[i] {
			rest = append(rest, op)
		}
	}
	slices.SortStableFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, op := range rest[:min(len(rest), 5)] {
		line(op)
	}
	return fmt.Errorf("not linearizable: %d of %d calls fit%s", len(longest), len(ops), b.String())
}
