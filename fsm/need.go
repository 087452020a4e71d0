package fsm

// This file says of each command how much of a disk's reserve it may use: as room runs out, new work is turned away before what
// goes on with work.

// Need is how much room a command needs.
type Need int

// The needs, from the least. Whoever is turned away needs more than there is.
const (
	NeedsNothing Need = iota // without it nobody leads or reads
	NeedsHalf                // goes on with work, ends it, or tends the cluster: half the reserve must be left
	NeedsReserve             // new work: the whole reserve must be left
)

// NeedOf is what a command needs.
func NeedOf(c Command) Need {
	switch c.(type) {
	case *Submit, *SubmitBatch, *Comment, *AddArtifact, *PutProfile:
		return NeedsReserve
	case *LeaderChange, *Noop, *Bootstrap:
		return NeedsNothing
	}
	return NeedsHalf
}
