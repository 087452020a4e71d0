package main

// This file is a run: rounds in which one peer after the other is started, measured and ended.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// cellGrace is how long the last calls of a measurement may take.
const cellGrace = 30 * time.Second

// plan is what a run does.
type plan struct {
	peers            []peer
	dir              string
	clients          []int
	rounds           int
	warmUp, duration time.Duration
	backlog          int
	progress         func(string)
}

// figures is what one measurement came to.
type figures struct {
	perSecond float64 // jobs
	p50, p99  time.Duration
}

// place is where in a run something was measured.
type place struct {
	row            string
	clients, round int
}

// results is what a run came to.
type results struct {
	cells  map[place]figures
	fsyncs []time.Duration // the probe's medians
	busy   []float64       // how much of the machine was busy while nothing of this run was, from 0 to 1; empty if unknown
	failed []error
}

// run does all rounds. A peer that fails is left out for the rest of its round.
func (p plan) run(ctx context.Context) *results {
	r := &results{cells: map[place]figures{}}
	for round := range p.rounds {
		for i := range p.peers {
			if ctx.Err() != nil {
				return r
			}
			one := p.peers[(round+i)%len(p.peers)] // what drifts is not always the same peer's luck
			if err := p.measure(ctx, r, one, round); err != nil {
				err = fmt.Errorf("round %d: %s: %w", round+1, one.name(), err)
				r.failed = append(r.failed, err)
				p.progress(err.Error())
			}
		}
	}
	return r
}

// measure does one peer's part of a round.
func (p plan) measure(ctx context.Context, r *results, one peer, round int) (err error) {
	s, err := openSite(p.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := r.probe(s.dir); err != nil {
		return err
	}
	if err := one.start(ctx, s); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	if err := fill(ctx, one, p.backlog); err != nil {
		return fmt.Errorf("queueing the backlog: %w", err)
	}
	for _, n := range p.clients {
		clients, err := connectAll(ctx, one, n)
		if err != nil {
			return err
		}
		rows := []row{cycleRow}
		if _, ok := clients[0].(batcher); ok {
			rows = append(rows, batchRow)
		}
		for _, what := range rows {
			f, err := p.drive(ctx, clients, what)
			if err != nil {
				closeAll(clients)
				return fmt.Errorf("%d clients: %w", n, err)
			}
			name := one.name() + what.name
			r.cells[place{name, n, round}] = f
			p.progress(fmt.Sprintf("round %d of %d: %s, %d clients: %.0f jobs/s", round+1, p.rounds, name, n, f.perSecond))
		}
		closeAll(clients)
	}
	return nil
}

func connectAll(ctx context.Context, one peer, n int) ([]client, error) {
	var clients []client
	for i := range n {
		c, err := one.connect(ctx, i, n)
		if err != nil {
			closeAll(clients)
			return nil, fmt.Errorf("connecting client %d: %w", i+1, err)
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func closeAll(clients []client) {
	for _, c := range clients {
		c.close()
	}
}

// fill queues jobs.
func fill(ctx context.Context, one peer, jobs int) error {
	const atOnce = 32
	clients, err := connectAll(ctx, one, atOnce)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	return together(clients, func(i int, c client) error {
		for n := i; n < jobs; n += atOnce {
			if err := c.submit(ctx, newBody()); err != nil {
				return err
			}
		}
		return nil
	})
}

// drive lets every client do a step over and over. What ends between the warm-up and the end counts, in whole.
func (p plan) drive(ctx context.Context, clients []client, what row) (figures, error) {
	begin := time.Now().Add(p.warmUp)
	end := begin.Add(p.duration)
	ctx, cancel := context.WithDeadline(ctx, end.Add(cellGrace))
	defer cancel()
	var (
		mu   sync.Mutex // guards what follows
		jobs int
		took []time.Duration
	)
	err := together(clients, func(_ int, c client) error {
		var (
			mine      int
			latencies []time.Duration
		)
		for now := time.Now(); now.Before(end); {
			n, err := what.step(ctx, c)
			if err != nil {
				cancel() // the others need not go on
				return err
			}
			began := now
			if now = time.Now(); now.After(begin) && !now.After(end) {
				mine += n
				latencies = append(latencies, now.Sub(began))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		jobs, took = jobs+mine, append(took, latencies...)
		return nil
	})
	if err != nil {
		return figures{}, err
	}
	if jobs == 0 {
		return figures{}, fmt.Errorf("no job was done in %s", p.duration)
	}
	slices.Sort(took)
	return figures{float64(jobs) / p.duration.Seconds(), quantile(took, 0.5), quantile(took, 0.99)}, nil
}

// quantile is the smallest value that at least the share q of all sorted ones don't exceed.
func quantile[T any](sorted []T, q float64) T {
	return sorted[max(0, min(len(sorted)-1, int(q*float64(len(sorted))+0.999999)-1))]
}

// together does something with all clients at once and gives the first error.
func together(clients []client, do func(i int, c client) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for i, c := range clients {
		wg.Go(func() {
			if err := do(i, c); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
