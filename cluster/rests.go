package cluster

// This file is how background work makes way for calls: it rests in proportion to what it has worked.

import "time"

// longestRest is for one whose work took long because a disk hung.
const longestRest = time.Second

// rests makes a pause for whoever calls it now and then and has worked for some time since the last: so many times as long as that took,
// which is longer the busier the machine is. It says no when the node closes.
func (n *Node) rests(work time.Duration, times int) func() bool {
	began := time.Now()
	return func() bool {
		worked := time.Since(began)
		if worked < work {
			return true
		}
		timer := time.NewTimer(min(time.Duration(times)*worked, longestRest))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-n.closing:
			return false
		}
		began = time.Now()
		return true
	}
}
