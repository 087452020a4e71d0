package check

// This file is the index witness: every answer must be what the log, replayed from nothing, gives at the answer's index.

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Replay is a log applied from its beginning.
type Replay struct {
	Machine *fsm.Machine // after the last entry

	found map[string][]occurrence // by tag
	reads map[*Operation]fsm.Answer
}

// occurrence is a proposal in the log, with its answer.
type occurrence struct {
	index  uint64
	answer fsm.Answer
}

// rebirth is after how many proposals the machine that judges is replaced by one restored from its snapshot, at first.
const rebirth = 29

// Replay applies the log twice. Once as it is, and what clients were told of a state is read there. Once with each
// proposal alone, every step judged by the invariants, and from time to time through a snapshot. Both must come to the
// same answers and end in the same state (I8).
func (l *Log) Replay(h *History, judges ...Judge) (*Replay, error) {
	whole, err := l.start()
	if err != nil {
		return nil, fmt.Errorf("I8: %w", err)
	}
	single, err := l.start()
	if err != nil {
		return nil, fmt.Errorf("I8: %w", err)
	}
	r := &Replay{Machine: whole, found: map[string][]occurrence{}, reads: map[*Operation]fsm.Answer{}}
	asked := map[uint64][]*Operation{}
	for _, o := range h.Operations() {
		if !o.Unknown && !o.NoEffect {
			asked[o.Answer.Index] = append(asked[o.Answer.Index], o)
		}
	}
	steps, dies := l.before, rarely(rebirth)
	for i, rec := range l.records {
		index := l.before + uint64(i+1)
		answers := rec.apply(r.Machine, index)
		if rec.entry != nil {
			for k := range rec.entry.Proposals {
				p := &rec.entry.Proposals[k]
				if t := tag(p); t != "" {
					r.found[t] = append(r.found[t], occurrence{index, answers[k]})
				}
				steps++
				a, err := step(single, steps, rec.entry.Stamp, p, judges)
				if err != nil {
					return nil, fmt.Errorf("entry %d, proposal %d (%T by %s): %w", index, k, p.Command, p.Caller.Actor, err)
				}
				if why := differ(a, answers[k]); why != "" {
					return nil, fmt.Errorf("I8: entry %d, proposal %d (%T): alone it has another answer: %s", index, k, p.Command, why)
				}
				if dies() {
					if single, err = reborn(single); err != nil {
						return nil, fmt.Errorf("I8: entry %d: %w", index, err)
					}
				}
			}
		}
		r.Machine.View(func(v fsm.View) {
			for _, o := range asked[index] {
				r.reads[o] = o.readAt(v)
			}
		})
	}
	if whole, err = thaw(r.Machine.Handle()); err != nil {
		return nil, fmt.Errorf("I8: %w", err)
	}
	level := max(l.Last(), steps) + 1 // the index is part of the state
	whole.Skip(level)
	single.Skip(level)
	if single.Hash() != whole.Hash() {
		return nil, errors.New("I8: proposals one by one and through snapshots end in another state than the log as it is")
	}
	return r, nil
}

// thaw restores a machine from a snapshot.
func thaw(h *fsm.Handle) (*fsm.Machine, error) {
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("writing a snapshot: %w", err)
	}
	m := fsm.New()
	if err := m.Restore(&b); err != nil {
		return nil, fmt.Errorf("restoring a snapshot: %w", err)
	}
	return m, nil
}

// reborn is a machine restored from another's snapshot, which must be the same.
func reborn(m *fsm.Machine) (*fsm.Machine, error) {
	again, err := thaw(m.Handle())
	if err != nil {
		return nil, err
	}
	if again.Hash() != m.Hash() {
		return nil, errors.New("a machine restored from its snapshot has another state")
	}
	return again, nil
}

// readAt is what a call that writes nothing is answered in a state: a read, or a claim for which there is nothing.
func (o *Operation) readAt(v fsm.View) fsm.Answer {
	var refusal error
	found := false
	var none fsm.Result
	switch c := o.Proposal.Command.(type) {
	case nil:
		return o.Query.Of(v)
	case *fsm.Claim:
		_, found, refusal = v.Claimable(o.Proposal.Caller, c.ProductID, c.FactoryID, nil)
		none = &fleet.Claim{}
	case *fsm.ClaimBatch:
		_, found, refusal = v.Claimable(o.Proposal.Caller, c.ProductID, c.FactoryID, nil)
		none = &fleet.Claims{Claims: []fleet.Claim{}}
	default:
		return fsm.Answer{}
	}
	var e *fleet.Error
	switch {
	case errors.As(refusal, &e):
		return fsm.Answer{Err: e, Index: v.Index()}
	case found:
		return fsm.Answer{}
	}
	return fsm.Answer{Result: none, Index: v.Index()}
}

// Witness finds every answer of the history in the replay (I1, I5, I6).
func (r *Replay) Witness(h *History) error {
	ops := h.Operations()
	if err := inOrder(ops); err != nil {
		return err
	}
	for _, o := range ops {
		if err := r.witness(o); err != nil {
			return fmt.Errorf("client %d, %s [%d, %d]: %w", o.Client, o, o.Call, o.Return, err)
		}
	}
	return nil
}

// inOrder checks that indexes follow real time: what was answered before another call began has no larger index.
func inOrder(ops []*Operation) error {
	var ended []*Operation
	for _, o := range ops {
		if !o.Unknown && !o.NoEffect {
			ended = append(ended, o)
		}
	}
	byReturn := slices.SortedFunc(slices.Values(ended), func(a, b *Operation) int { return int(a.Return - b.Return) })
	var highest *Operation
	for _, o := range ended { // in the order of their calls
		for len(byReturn) > 0 && byReturn[0].Return < o.Call {
			if highest == nil || byReturn[0].Answer.Index > highest.Answer.Index {
				highest = byReturn[0]
			}
			byReturn = byReturn[1:]
		}
		if highest != nil && highest.Answer.Index > o.Answer.Index {
			return fmt.Errorf("I5: %s was answered at index %d before %s was asked, which was answered at index %d",
				highest, highest.Answer.Index, o, o.Answer.Index)
		}
	}
	return nil
}

func (r *Replay) witness(o *Operation) error {
	inLog := r.found[tag(&o.Proposal)]
	effects := 0
	var effect occurrence
	inLog = slices.DeleteFunc(slices.Clone(inLog), func(c occurrence) bool { // a claim that got nothing looks again, and may find no leader then
		return o.NoEffect && c.answer.Err == nil && nothing(c.answer.Result)
	})
	for _, c := range inLog {
		if c.answer.Err == nil && !c.answer.Replayed && !nothing(c.answer.Result) {
			effects++
			effect = c
		}
	}
	switch {
	case o.Proposal.Command == nil && o.Unknown, o.Proposal.Command == nil && o.NoEffect:
		return nil
	case effects > 1:
		return fmt.Errorf("I6: it happened %d times", effects)
	case o.NoEffect && len(inLog) > 0:
		return fmt.Errorf("I9: it was answered that nothing was done, but entry %d has it", inLog[0].index)
	case o.Unknown, o.NoEffect:
		return nil
	case o.Proposal.Key == "" && len(inLog) > 1 && !claims(o.Proposal.Command): // a claim that came second is proposed again
		return fmt.Errorf("I6: it is in the log %d times, first at %d and %d", len(inLog), inLog[0].index, inLog[1].index)
	}
	if err := o.foreign(); err != nil {
		return err
	}
	for _, again := range o.repeats {
		again.Index, again.Replayed = o.Answer.Index, o.Answer.Replayed
		if why := differ(again, o.Answer); why != "" {
			return fmt.Errorf("I6: its repeat under the same key had another answer: %s", why)
		}
	}
	if o.Answer.Replayed {
		if effects == 0 || effect.index > o.Answer.Index {
			return errors.New("I6: it was answered from memory, but nothing had happened")
		}
		told := o.Answer
		told.Index, told.Replayed = effect.answer.Index, false
		if why := differ(told, effect.answer); why != "" {
			return fmt.Errorf("I6: its memory differs from what happened at %d: %s", effect.index, why)
		}
		return nil
	}
	for _, c := range inLog {
		if c.index != o.Answer.Index {
			continue
		}
		why := differ(o.Answer, c.answer)
		if why == "" {
			return nil
		}
		if !claims(o.Proposal.Command) || !nothing(c.answer.Result) {
			return fmt.Errorf("I5: its answer is not that of the log at %d: %s", c.index, why)
		}
		break // a claim that came second is answered from a read, and that may reflect the rest of the entry in which it did
	}
	read, ok := r.reads[o]
	if !ok || read.Err == nil && read.Result == nil {
		return fmt.Errorf("I1: it was acknowledged at index %d, but the log has it at none", o.Answer.Index)
	}
	if read.Err != nil && nothing(o.Answer.Result) && (read.Err.Code == fleet.SeatsExhausted || read.Err.Code == fleet.FactoryDown) {
		return nil // it waited, and one whose factory can't claim meanwhile goes on waiting to the end
	}
	if o.Proposal.Command != nil && read.Err != nil && o.Answer.Err != nil { // its words may name what was meanwhile
		read.Err = &fleet.Error{Code: read.Err.Code, Detail: o.Answer.Err.Detail}
	}
	if why := differ(o.Answer, read); why != "" {
		return fmt.Errorf("I5: index %d reads otherwise: %s", o.Answer.Index, why)
	}
	return nil
}

var productIDs = regexp.MustCompile(`"productId":"([^"]*)"`)

// foreign is I14: no answer holds a document of another product.
func (o *Operation) foreign() error {
	product := o.Query.Product
	if o.Proposal.Command != nil {
		field := reflect.ValueOf(o.Proposal.Command).Elem().FieldByName("ProductID")
		if !field.IsValid() {
			return nil // the cluster's own
		}
		product = field.String()
	}
	for _, id := range productIDs.FindAllStringSubmatch(text(o.Answer), -1) {
		if id[1] != product {
			return fmt.Errorf("I14: it was asked in product %q and answered a document of product %q", product, id[1])
		}
	}
	return nil
}

func claims(c fsm.Command) bool {
	switch c.(type) {
	case *fsm.Claim, *fsm.ClaimBatch:
		return true
	}
	return false
}

// nothing reports whether a claim found nothing: that is no refusal, but it is not remembered either.
func nothing(r fsm.Result) bool {
	switch r := r.(type) {
	case *fleet.Claim:
		return r.Job == nil
	case *fleet.Claims:
		return len(r.Claims) == 0
	}
	return false
}

// Settle uses the log to bound what is unknown: a call that is not in the log never happened and leaves the history; one
// that is had happened before anybody was answered at its index or later. The log must be complete: no node may still
// hold something back.
func (r *Replay) Settle(h *History) {
	ops := h.Operations()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range ops {
		if !o.Unknown {
			continue
		}
		inLog := r.found[tag(&o.Proposal)]
		if len(inLog) == 0 {
			o.Unknown, o.NoEffect, o.Return = false, true, Never
			continue
		}
		happened := inLog[0].index
		for _, found := range inLog { // one at most did something, and not always the first
			if found.answer.Err == nil && !found.answer.Replayed && !nothing(found.answer.Result) {
				happened, o.logged = found.index, found.answer
			}
		}
		o.Return = Never
		for _, seen := range ops {
			if !seen.Unknown && !seen.NoEffect && seen.Answer.Index >= happened && seen.Return > o.Call {
				o.Return = min(o.Return, seen.Return)
			}
		}
	}
}

// differ says how two answers differ, empty if they don't. An error's words count, too.
func differ(got, want fsm.Answer) string {
	switch {
	case (got.Err == nil) != (want.Err == nil):
		return fmt.Sprintf("got %s, want %s", text(got), text(want))
	case got.Err != nil && (got.Err.Code != want.Err.Code || got.Err.Detail != want.Err.Detail || got.Err.CurrentEpoch != want.Err.CurrentEpoch):
		return fmt.Sprintf("got %v (current %d), want %v (current %d)", got.Err, got.Err.CurrentEpoch, want.Err, want.Err.CurrentEpoch)
	case got.Err == nil && (text(got) != text(want) || got.Replayed != want.Replayed):
		return fmt.Sprintf("got %s (replayed %t), want %s (replayed %t)", text(got), got.Replayed, text(want), want.Replayed)
	}
	return ""
}

func text(a fsm.Answer) string {
	if a.Err != nil {
		return a.Err.Error()
	}
	b, err := json.Marshal(a.Result, json.Deterministic(true))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (o *Operation) String() string {
	if o.Proposal.Command == nil {
		return fmt.Sprintf("read of %s %s", o.Query.Subject, o.Query.ID)
	}
	b, err := json.Marshal(o.Proposal.Command, json.Deterministic(true))
	if err != nil {
		b = []byte(err.Error())
	}
	return fmt.Sprintf("%T %s", o.Proposal.Command, b)
}
