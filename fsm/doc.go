// Package fsm is the replicated state machine: jobs, leases, runs and factories as a pure function of the log.
//
// Apply takes one entry at a time, in log order, on every node. Time arrives as the leader's stamp: nothing here reads
// a clock, ranges over a map into a result, starts a goroutine or does I/O. A command that is refused has changed
// nothing.
//
// Start with command.go (what can happen), then claim.go (who gets which job), then lease.go (who still holds it).
// What is kept is state.go; how it is read is query.go; how it becomes a file and back is snapshot.go.
package fsm
