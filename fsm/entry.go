package fsm

// This file is what goes through the log: an entry is a group of proposals under one leader's stamp.

import "github.com/lysnrai/fleet"

// Entry is one log entry: what was waiting when the leader proposed it.
type Entry struct {
	// Group is random. A node that lost leadership finds by it whether its entry was committed.
	Group [16]byte
	// Stamp is the leader's time; the state machine's own time never goes back.
	Stamp     fleet.Time
	Proposals []Proposal
}

// Proposal is one command as somebody asked for it.
type Proposal struct {
	Caller Caller
	// Key is the Idempotency-Key, empty for none. Request identifies what was asked with it (a hash of method, path,
	// query, If-Match and body), so that a repeat can be told from a reuse.
	Key     string
	Request string
	Command Command
}

// Caller is who asks. The zero Caller may do nothing.
type Caller struct {
	// Actor is a token's id, or one of ActorRoot, ActorAnonymous, ActorFleet. A token is looked up again when the
	// command is applied: what was true at the node that took the call may not be true any more.
	Actor string
}

// The callers that are no tokens.
const (
	ActorRoot      = "root"      // holds the root token: may do all
	ActorAnonymous = "anonymous" // a node under --no-auth: may do all
	ActorFleet     = "fleet"     // the leader itself: internal commands
)

// Answer is what became of one proposal.
type Answer struct {
	// Result is nil if the proposal was refused.
	Result Result
	// Err is the refusal.
	Err *fleet.Error
	// Replayed is set if the answer was remembered under the proposal's Key.
	Replayed bool
	// Index is the log index that the answer reflects.
	Index uint64
}
