// Package check judges what a cluster answered: the invariants of docs/reliability.md, by three independent means.
//
// A History records every call with its answer (history.go). It is judged by two models of the contract that were
// written from docs/semantics.md and know nothing of the state machine's code: one of a single job (model.go) and one of
// a small product with its line, seats and deps (product.go). A Log is the committed log itself (log.go); replayed from
// nothing it must give exactly the answers that clients saw, each acknowledged command once (witness.go), and every step
// of the replay must keep the invariants (invariants.go), as must what any node shows (state.go).
//
// Nothing here runs a cluster. Tests of any kind record and ask: over nodes in virtual time, over HTTP (http.go), or over
// a bare fsm.Machine.
package check
