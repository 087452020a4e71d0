package fsm

// This file takes an entry apart: who asks, has it been answered before, may they, and then the command itself.

import "github.com/lysnrai/fleet"

// tx is one command being applied: the state, the product it acts in, and who asks.
type tx struct {
	st     *state
	p      *product // nil for the cluster's own commands
	caller Caller
	txn    uint64
	news   *news
}

// news collects what Machine.Apply reports, in the order of the commands.
type news struct{ products, feeds map[string]struct{} }

func (st *state) apply(index uint64, e *Entry) ([]Answer, News) { panic("todo") }

// memory and its methods belong into dedupe.go.
var _ = fleet.Time(0)
