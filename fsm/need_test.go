package fsm

// This file tests what is turned away as disks fill.

import (
	"reflect"
	"testing"
)

// Submits, comments, artifacts and profiles are new work; all else goes on for longer.
func TestNeedOf(t *testing.T) {
	want := map[string]Need{
		"Submit": NeedsReserve, "SubmitBatch": NeedsReserve, "Comment": NeedsReserve, "AddArtifact": NeedsReserve, "PutProfile": NeedsReserve,
		"LeaderChange": NeedsNothing, "Noop": NeedsNothing, "Bootstrap": NeedsNothing,
		"Claim": NeedsHalf, "ClaimBatch": NeedsHalf, "Patch": NeedsHalf, "OperatorPatch": NeedsHalf, "Report": NeedsHalf, "Renew": NeedsHalf,
		"Release": NeedsHalf, "Cancel": NeedsHalf, "Requeue": NeedsHalf, "Heartbeat": NeedsHalf, "CreateToken": NeedsHalf, "DeleteToken": NeedsHalf,
		"Reap": NeedsHalf, "PutServer": NeedsHalf, "RemoveServer": NeedsHalf, "Checkpoint": NeedsHalf, "Level": NeedsHalf,
	}
	for _, row := range commands {
		name := reflect.TypeOf(row.new()).Elem().Name()
		need, decided := want[name]
		if !decided {
			t.Errorf("%s: decide what it needs, here and in NeedOf", name)
			continue
		}
		if got := NeedOf(row.new()); got != need {
			t.Errorf("%s: got %d, want %d", name, got, need)
		}
	}
}
