package worker

// This file is how a factory stops: by signals, each more urgent than the one before.

import (
	"context"
	"errors"
	"os"
)

// errStopped is why a job's context ends when the factory itself is to stop.
var errStopped = errors.New("the factory stops")

// stop is the stages of an end.
type stop struct {
	draining context.Context // ends: nothing more is claimed
	stopping context.Context // ends: what runs is stopped and released
	killed   context.Context // ends: what runs is killed
	end      func()
}

// watchSignals turns signals into stages. The end of ctx skips the first.
func watchSignals(ctx context.Context, signals <-chan os.Signal, drain Drain) *stop {
	s := &stop{}
	var drainNow, stopNow, killNow, end context.CancelFunc
	s.killed, killNow = context.WithCancel(context.WithoutCancel(ctx))
	s.stopping, stopNow = context.WithCancel(ctx)
	s.draining, drainNow = context.WithCancel(s.stopping)
	watching, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = func() { end(); stopNow() }
	go func() {
		for count := 1; ; count++ {
			select {
			case <-watching.Done():
				return
			case _, open := <-signals:
				if !open {
					return
				}
			}
			drainNow()
			if count > 1 || drain == DrainRelease {
				stopNow()
			}
			if count == 3 {
				killNow()
				return
			}
		}
	}()
	return s
}
