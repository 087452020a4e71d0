package worker

// This file is how a factory stops: by signals, each more urgent than the one before, and why a job must stop.

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// errStopped is why a job's context ends when the factory itself is to stop.
var errStopped = errors.New("the factory stops")

// stop is the stages of an end.
type stop struct {
	draining context.Context // ends: nothing more is claimed
	stopping context.Context // ends: what runs is stopped and released
	killed   chan struct{}   // closed: what runs is killed
	end      func()
}

// watchSignals turns signals into stages. The end of ctx skips the first.
func watchSignals(ctx context.Context, signals <-chan os.Signal, drain Drain) *stop {
	s := &stop{killed: make(chan struct{})}
	var stopNow, drainNow context.CancelFunc
	s.stopping, stopNow = context.WithCancel(ctx)
	s.draining, drainNow = context.WithCancel(s.stopping)
	ended := make(chan struct{})
	s.end = sync.OnceFunc(func() { close(ended); stopNow() })
	go func() {
		for count := 1; ; count++ {
			select {
			case <-ended:
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
				close(s.killed)
				return
			}
		}
	}()
	return s
}

// stopWord is what a command finds in FLEET_STOP_FILE.
type stopWord string

// Why a command is stopped.
const (
	stopCancelled stopWord = "cancelled"
	stopBudget    stopWord = "budget_exceeded"
	stopLeaseLost stopWord = "lease_lost"
	stopFactory   stopWord = "released"
)

// lostError is a lease that is gone, and what became of its job.
type lostError struct {
	word stopWord
	err  error
}

func (e *lostError) Error() string { return string(e.word) + ": " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// wordFor is the word for the cause of a context's end.
func wordFor(cause error) stopWord {
	var lost *lostError
	switch {
	case errors.As(cause, &lost):
		return lost.word
	case errors.Is(cause, errStopped):
		return stopFactory
	}
	return stopLeaseLost
}

// fenced reports whether a job's context ended because the job is not ours any more.
func fenced(cause error) bool {
	return errors.Is(cause, fleet.StaleEpoch) || errors.Is(cause, fleet.NotFound) || errors.Is(cause, client.ErrLeaseExpired)
}
