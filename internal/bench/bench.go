// Package bench loads a running cluster and measures it, for people who size one: fleet-node bench.
package bench

// This file is a run: what it needs is set up, the load is driven, and what was made is cleaned up.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// Kind is what the clients of a run do, over and over.
type Kind string

// The kinds.
const (
	Cycle     Kind = "cycle"     // submit a job, claim one, and report it through its stages
	Submit    Kind = "submit"    // submit a job
	Claim     Kind = "claim"     // claim a job of the backlog
	Heartbeat Kind = "heartbeat" // a factory's heartbeat
	Feed      Kind = "feed"      // read the live feed while one client submits
	Batch     Kind = "batch"     // submit, claim and report many jobs a call
)

// Kinds lists every kind.
var Kinds = [...]Kind{Cycle, Submit, Claim, Heartbeat, Feed, Batch}

// Config is what a run does.
type Config struct {
	Kind     Kind
	Clients  []*client.Client // one for each client of the load, all of one product that has nothing else to do
	Name     string           // of the run: its factories and jobs carry it
	Size     int              // of a job's body, in bytes
	Backlog  int              // jobs that are queued before the load starts
	Batch    int              // jobs of a call, of the kind Batch
	Stages   []fleet.Stage    // that a job is reported through, of the kind Cycle
	Duration time.Duration    // zero: as long as Count takes
	Count    int64            // how often all clients together do it; zero: as often as Duration lasts
	HTTP     *http.Client     // reads the nodes' metrics
	Progress func(string)     // is told how far the run is
}

const (
	label        = "bench"                // of a run's jobs; the value is its name
	grace        = 2 * time.Second        // what calls in flight have when a run is interrupted
	pauseOnError = 100 * time.Millisecond // a cluster that refuses is not to be hammered
	sayEvery     = 500 * time.Millisecond

	setUpPatience = 2 * time.Minute // a large backlog may meet rate_limited, which lasts for a minute

	// leaseSeconds is longer than runs are: what a run measures is never a lease that ran out. So is heartbeatSeconds.
	leaseSeconds     = fleet.MaxLeaseSeconds
	heartbeatSeconds = fleet.MaxHeartbeatSeconds
)

// errDone ends a client: there is nothing left for it to do.
var errDone = errors.New("done")

// bench is one run.
type bench struct {
	Config
	workers    []*worker
	operations []*operation
	whole      *operation // the one that says how often the kind was done
	bodies     bodies

	running context.Context // ends when no client begins anything new
	stop    context.CancelCauseFunc
	begun   atomic.Int64
	jobs    atomic.Int64
}

// worker is one client of the load, as a factory where it claims.
type worker struct {
	*client.Client
	factory string
	held    []fleet.JobReport // what it has claimed and will report as shipped
}

// Run does one run. When ctx ends, the load does; what was made is cleaned up all the same. The result is nil if the load
// never started, and whole beside an error if it did.
func Run(ctx context.Context, c Config) (*Result, error) {
	b := &bench{Config: c, bodies: newBodies(c.Size)}
	b.running, b.stop = context.WithCancelCause(ctx)
	defer b.stop(nil)
	for i, cl := range c.Clients {
		b.workers = append(b.workers, &worker{Client: cl, factory: fmt.Sprintf("%s-%d", c.Name, i+1)})
	}
	if err := b.vacant(ctx); err != nil {
		return nil, err
	}
	result, err := b.run(ctx)
	if tidyErr := b.tidy(context.WithoutCancel(ctx)); tidyErr != nil {
		err = errors.Join(err, fmt.Errorf("cleaning up the product %s: %w", c.Clients[0].Product(), tidyErr))
	}
	return result, err
}

// vacant refuses a product in which somebody works: its jobs would be taken for the run's.
func (b *bench) vacant(ctx context.Context) error {
	stats, err := b.Clients[0].Stats(ctx)
	if err != nil {
		return err
	}
	var jobs int64
	for stage, n := range stats.Stages {
		if !stage.Terminal() {
			jobs += n
		}
	}
	if factories := stats.Factories[fleet.HealthOK] + stats.Factories[fleet.HealthDegraded]; jobs+factories > 0 {
		return fmt.Errorf("the product %s is in use: it has %d unfinished jobs and %d factories; give the load a product of its own",
			b.Clients[0].Product(), jobs, factories)
	}
	return nil
}

func (b *bench) run(ctx context.Context) (*Result, error) {
	_, before, lookErr := b.look(ctx)
	if lookErr != nil && !errors.Is(lookErr, fleet.Forbidden) {
		return nil, lookErr
	}
	if err := b.setUp(ctx); err != nil {
		return nil, err
	}
	load := map[Kind]func(context.Context, *worker) error{
		Cycle: b.cycle, Submit: b.submit, Claim: b.claim, Heartbeat: b.heartbeat, Batch: b.batch,
	}[b.Kind]
	var (
		began, ended time.Time
		err          error
	)
	if b.Kind == Feed {
		if began, ended, err = b.feed(ctx); err != nil {
			return nil, err
		}
	} else {
		began, ended = b.drive(ctx, b.workers, load)
	}
	r := b.result(began, ended)
	if cause := context.Cause(b.running); cause != nil && !errors.Is(cause, errDone) {
		err = cause
	}
	r.Interrupted = ctx.Err() != nil
	if lookErr == nil { // else the token may not see it
		if status, after, err := b.look(context.WithoutCancel(ctx)); err == nil {
			r.Cluster = shape(status, before, after)
		}
	}
	return r, err
}

// setUp registers the factories and queues the backlog.
func (b *bench) setUp(ctx context.Context) error {
	switch b.Kind {
	case Cycle, Claim, Heartbeat, Batch:
		err := each(b.workers, func(w *worker) error {
			_, err := w.Client.Heartbeat(ctx, alive(w.factory))
			return err
		})
		if err != nil {
			return err
		}
	}
	patient := b.Clients[0].Patient(setUpPatience)
	for queued := 0; queued < b.Backlog; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(b.Backlog-queued, PerCall(b.Size))
		// A call in flight is not given up: its jobs would come after the cleaning.
		if _, err := patient.SubmitBatch(context.WithoutCancel(ctx), b.submissions(n)); err != nil {
			return fmt.Errorf("queueing the backlog: %w", err)
		}
		queued += n
		b.say("queueing the backlog: %d of %d", queued, b.Backlog)
	}
	return nil
}

// measured names the operations of the kind; the last one is what is counted.
func (b *bench) measured(names ...string) []*operation {
	b.operations = nil
	for _, name := range names {
		b.operations = append(b.operations, &operation{name: name})
	}
	b.whole = b.operations[len(b.operations)-1]
	return b.operations
}

// drive lets every worker do a step over and over, until the run is over, and waits for the last one.
func (b *bench) drive(ctx context.Context, workers []*worker, step func(context.Context, *worker) error) (began, ended time.Time) {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	giveUp := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer giveUp()
	if b.whole == nil {
		b.measured(operationsOf[b.Kind]...)
	}
	began = time.Now()
	for _, o := range b.operations {
		o.start(began)
	}
	if b.Duration > 0 {
		over := time.AfterFunc(b.Duration, func() { b.stop(errDone) })
		defer over.Stop()
	}
	told := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(told)
		b.tell(began, over)
	}()
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for b.next() {
				if err := step(calls, w); errors.Is(err, errDone) {
					return
				} else if err != nil {
					pause(b.running, pauseOnError)
				}
			}
		})
	}
	wg.Wait()
	ended = time.Now()
	close(over)
	<-told
	return began, ended
}

// next reports whether there is another step to do.
func (b *bench) next() bool {
	return b.running.Err() == nil && (b.Count == 0 || b.begun.Add(1) <= b.Count)
}

// tell says now and then how far the load is.
func (b *bench) tell(began time.Time, over <-chan struct{}) {
	ticker := time.NewTicker(sayEvery)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return
		case now := <-ticker.C:
			n, _ := b.whole.done()
			var failed int64
			for _, o := range b.operations {
				_, f := o.done()
				failed += f
			}
			b.say("%s: %.1f s, %d %s, %.0f/s, %d errors", b.Kind, now.Sub(began).Seconds(), n, b.whole.name, rate(n, now.Sub(began)), failed)
		}
	}
}

func (b *bench) result(began, ended time.Time) *Result {
	r := &Result{
		Kind: b.Kind, Product: b.Clients[0].Product(), Clients: len(b.Clients), SizeBytes: b.Size, Backlog: b.Backlog,
		ElapsedSeconds: ended.Sub(began).Seconds(), Jobs: b.jobs.Load(), Operations: []Operation{},
	}
	if b.Kind == Batch {
		r.Batch = b.Batch
	}
	r.JobsPerSecond = rate(r.Jobs, ended.Sub(began))
	for _, o := range b.operations {
		one := o.result(began, ended)
		if one.Count+one.Errors == 0 && o != b.whole {
			continue // it was not needed
		}
		r.Errors += one.Errors
		r.Operations = append(r.Operations, one)
	}
	return r
}

func (b *bench) say(format string, args ...any) { b.Progress(fmt.Sprintf(format, args...)) }

// each does something with all at once and gives one of the errors.
func each[T any](all []T, do func(T) error) error {
	const atOnce = 64
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		slots = make(chan struct{}, atOnce)
	)
	for _, one := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(one); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}

// pause waits, or returns early when the run is over.
func pause(running context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-running.Done():
	}
}
