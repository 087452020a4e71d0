package cluster

// This file reads the whole state again in the background, slowly, and ends the node if its documents are not those that the log made:
// memory that rotted would be served, and written into the next snapshot.

import (
	"time"
)

const (
	rereadEvery = 10 * time.Minute     // after a round, until the next
	rereadWork  = 2 * time.Millisecond // of reading, then a pause
	rereadPause = 19                   // times as long: a twentieth of a core
	rereadLook  = 16                   // jobs between two looks at the time
)

// reread goes round until the node closes.
func (n *Node) reread() {
	timer := time.NewTimer(rereadEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.closing:
			return
		}
		if err := n.machine.Handle().Verify(n.pace()); err != nil {
			n.stop(n.untrue(err))
			return
		}
		n.metrics.rereads.Inc()
		timer.Reset(rereadEvery)
	}
}

// pace makes pauses for whoever calls it after each job that was read. It says no when the node closes.
func (n *Node) pace() func() bool {
	jobs, rest := 0, n.rests(rereadWork, rereadPause)
	return func() bool {
		jobs++
		return jobs%rereadLook != 0 || rest()
	}
}
