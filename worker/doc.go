// Package worker is a factory: it claims jobs, keeps their leases alive, runs a handler or a command for each, and
// reports what came of it.
//
// One heartbeat says what the factory is and renews all of its leases. A job is worked on only while its lease holds,
// by this process's own monotonic clock: when it is lost, the work is stopped and nothing is reported. A command talks
// to the factory through environment variables, files and its exit status, and needs no token.
//
// Start with worker.go (what a factory is, and the claim loop), then run.go (one job), then command.go (one process).
package worker
