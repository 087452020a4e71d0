package fsm

// This file takes an entry apart: who asks, has it been answered before, may they, and then the command itself.

import (
	"errors"
	"slices"

	"github.com/lysnrai/fleet"
)

// tx is one command being applied: the state, the product it acts in, and who asks.
type tx struct {
	st      *state
	p       *product // the product "" for the cluster's own commands
	caller  Caller
	txn     uint64
	news    News
	moved   []move // changes of stage that others have not been told of (composite.go)
	changed int64  // documents changed by this entry so far

	// What the entry has touched, for the sum (sum.go).
	entry     uint64 // no other entry of this process has the number
	products  []touched
	jobs      []change[record]
	factories []change[factory]
}

// mention puts a product into a list of News, which is short and sorted.
func mention(list *[]string, product string) {
	if i, there := slices.BinarySearch(*list, product); !there {
		*list = slices.Insert(*list, i, product)
	}
}

func (st *state) apply(index uint64, e *Entry) ([]Answer, News) {
	st.index = max(st.index, index)
	st.now = max(st.now, e.Stamp)
	t := &tx{st: st, entry: st.txn + 1}
	answers := make([]Answer, len(e.Proposals))
	for i := range e.Proposals {
		answers[i] = t.answer(&e.Proposals[i])
		answers[i].Index = index
	}
	t.sumUp()
	return answers, t.news
}

// answer judges one proposal and, unless it is refused or was answered before, applies its command.
func (tx *tx) answer(p *Proposal) Answer {
	st, command := tx.st, p.Command
	key := p.appendKey(make([]byte, 0, keyRoom))
	if err := st.permit(p.Caller, command); err != nil {
		return refusal(err)
	}
	if a, ok := st.remembered(p, key); ok {
		return a
	}
	tx.begin(p.Caller, command.product())
	result, err := command.apply(tx)
	if err != nil {
		return refusal(err)
	}
	tx.settle()
	a := Answer{Result: result}
	tx.remember(p, key, a)
	return a
}

// permit judges whether a caller may give a command. Internal commands are the leader's own.
func (st *state) permit(c Caller, command Command) error {
	role := command.role()
	if role != "" {
		return st.authorize(c, role, command.product())
	}
	if c.Actor != ActorFleet {
		return fleet.Errorf(fleet.Forbidden, "%s may not give the cluster's own commands", c.Actor)
	}
	return nil
}

// begin makes the next command, or the next part of one that is judged on its own.
func (tx *tx) begin(c Caller, product string) {
	tx.caller = c
	tx.part()
	tx.enter(product)
}

// part ends what may be written to in place: documents handed out until now never change again.
func (tx *tx) part() {
	tx.st.txn++
	tx.txn = tx.st.txn
}

// enter goes to a product. One that is new is stored with its first document, so that a refusal leaves no trace.
func (tx *tx) enter(id string) {
	st := tx.st
	if _, ok := st.products.Get(id); ok {
		tx.p = st.writable(id)
		tx.touch(tx.p, false)
		return
	}
	if id != "" {
		tx.p = newProduct(id, st.gen)
		return
	}
	if st.unstored == nil || st.unstored.gen != st.gen { // as it was made: who writes to a product stores it first
		st.unstored = newProduct(id, st.gen)
	}
	tx.p = st.unstored
}

// found stores the product if it is new.
func (tx *tx) found() {
	if _, ok := tx.st.products.Get(tx.p.id); !ok {
		tx.st.products.Set(tx.p.id, tx.p)
		tx.touch(tx.p, true)
	}
}

func refusal(err error) Answer {
	var refused *fleet.Error
	if !errors.As(err, &refused) {
		refused = fleet.Errorf(fleet.Internal, "%v", err)
	}
	return Answer{Err: refused}
}
