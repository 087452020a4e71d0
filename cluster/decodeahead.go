package cluster

// This file reads a snapshot with all processors: the state machine itself starts no goroutine.

import (
	"iter"
	"runtime"
	"sync"

	"github.com/lysnrai/fleet/fsm"
)

// decodeAhead gives out parts in their order, and has some read and decoded on other goroutines meanwhile.
func decodeAhead(parts iter.Seq[*fsm.Part]) iter.Seq[*fsm.Part] {
	return func(yield func(*fsm.Part) bool) {
		type decoding struct {
			part *fsm.Part
			done chan struct{}
		}
		ahead, stop := make(chan decoding, runtime.GOMAXPROCS(0)), make(chan struct{})
		var wait sync.WaitGroup
		defer wait.Wait()
		defer close(stop)
		wait.Go(func() {
			defer close(ahead)
			for p := range parts {
				d := decoding{p, make(chan struct{})}
				wait.Go(func() { p.Decode(); close(d.done) })
				select {
				case ahead <- d:
				case <-stop:
					return
				}
			}
		})
		for d := range ahead {
			if <-d.done; !yield(d.part) {
				return
			}
		}
	}
}
