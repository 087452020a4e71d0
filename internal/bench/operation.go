package bench

// This file is what is measured of one kind of call.

import (
	"context"
	"sync"
	"time"
)

// operation measures one kind of call, of all clients together.
type operation struct {
	name string

	mu        sync.Mutex // guards what follows
	latencies histogram
	errors    int64
	first     error         // the first error
	last      time.Time     // when the last success was
	gap       time.Duration // the longest time without one
}

// start begins the measurement.
func (o *operation) start(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
}

// record counts a call. One that failed because the run gives up on it says nothing about the cluster.
func (o *operation) record(ctx context.Context, sent, now time.Time, err error) {
	if err != nil && ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if o.errors++; o.first == nil {
			o.first = err
		}
		return
	}
	o.latencies.add(now.Sub(sent))
	o.gap = max(o.gap, now.Sub(o.last))
	o.last = now
}

// timed makes a call and records it.
func timed[T any](ctx context.Context, o *operation, call func() (T, error)) (T, error) {
	sent := time.Now()
	answer, err := call()
	o.record(ctx, sent, time.Now(), err)
	return answer, err
}

// done is how many calls succeeded and failed.
func (o *operation) done() (succeeded, failed int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.latencies.n, o.errors
}

// result is what there is to say at the end.
func (o *operation) result(began, ended time.Time) Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := Operation{
		Name: o.name, Count: o.latencies.n, Errors: o.errors, PerSecond: rate(o.latencies.n, ended.Sub(began)),
		P50Seconds: o.latencies.quantile(0.5).Seconds(), P99Seconds: o.latencies.quantile(0.99).Seconds(),
		MaxSeconds: o.latencies.max.Seconds(), GapSeconds: max(o.gap, ended.Sub(o.last)).Seconds(),
	}
	if o.first != nil {
		r.FirstError = o.first.Error()
	}
	return r
}

func rate(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
