package bench

// This file measures the feed: how long after a submit was sent each of its readers hears of the job.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
)

// feedWait is how long readers have to connect before the load, and to hear the last of it after.
const feedWait = 30 * time.Second

// feed lets one client submit, one job after another, while all read.
func (b *bench) feed(ctx context.Context) (began, ended time.Time, err error) {
	o := b.measured(operationsOf[Feed]...)
	submit, event := o[0], o[1]
	b.whole = submit
	reading, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()

	first, err := b.Clients[0].Submit(ctx, b.submission())
	if err != nil {
		return began, ended, err
	}
	events, err := b.Clients[0].JobEvents(ctx, first.Job.ID, 0, 1)
	if err != nil {
		return began, ended, err
	}
	if len(events) == 0 {
		return began, ended, fmt.Errorf("the job %s has no event", first.Job.ID)
	}
	p := newPosts()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer hangUp()
	for _, w := range b.workers {
		wg.Go(func() {
			for e, err := range w.Events(reading, events[0].Index-1) {
				now := time.Now()
				switch {
				case err != nil:
					event.record(reading, now, now, err)
				case e.JobID == first.Job.ID && e.Type == fleet.EventSubmitted:
					p.connect()
				case e.Type == fleet.EventSubmitted:
					if sent, ok := p.heard(e.JobID); ok {
						event.record(reading, sent, now, nil)
					}
				}
			}
		})
	}
	if !p.wait(ctx, func() bool { return p.connected == len(b.workers) }) {
		if ctx.Err() != nil {
			return began, ended, context.Cause(ctx)
		}
		why := "none said why"
		if first := event.result(began, ended).FirstError; first != "" {
			why = first
		}
		return began, ended, fmt.Errorf("%d of %d readers of the feed did not connect in %s: %s", len(b.workers)-p.readers(), len(b.workers), feedWait, why)
	}
	began, ended = b.drive(ctx, b.workers[:1], func(ctx context.Context, w *worker) error {
		sent := time.Now()
		p.begin()
		result, err := w.Client.Submit(ctx, b.submission())
		submit.record(ctx, sent, time.Now(), err)
		if err != nil {
			p.failed()
			return err
		}
		p.sent(result.Job.ID, sent)
		b.jobs.Add(1)
		return nil
	})
	want := len(b.workers) * int(b.jobs.Load())
	if !p.wait(ctx, func() bool { return p.count == want }) {
		for range want - p.times() {
			event.record(reading, ended, ended, errors.New("a reader did not hear of a job in time"))
		}
	}
	return began, ended, nil
}

// posts knows when each job was sent. One is on its way at a time, and may be heard of before its id is answered.
type posts struct {
	mu        sync.Mutex // guards what follows
	changed   *sync.Cond
	when      map[string]time.Time
	onItsWay  bool
	connected int // readers
	count     int // of times that a job was heard of
}

func newPosts() *posts {
	p := &posts{when: map[string]time.Time{}}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// change changes something and wakes whoever waits for it.
func (p *posts) change(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
	p.changed.Broadcast()
}

func (p *posts) connect() { p.change(func() { p.connected++ }) }
func (p *posts) begin()   { p.change(func() { p.onItsWay = true }) }
func (p *posts) failed()  { p.change(func() { p.onItsWay = false }) }

func (p *posts) sent(id string, at time.Time) {
	p.change(func() { p.when[id], p.onItsWay = at, false })
}

func (p *posts) readers() (n int) { p.change(func() { n = p.connected }); return n }
func (p *posts) times() (n int)   { p.change(func() { n = p.count }); return n }

// heard is when a job was sent that a reader has heard of, false if that is not known: its submit failed.
func (p *posts) heard(id string) (at time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if at, ok = p.when[id]; ok {
			p.count++
			p.changed.Broadcast()
			return at, true
		}
		if !p.onItsWay {
			return at, false
		}
		p.changed.Wait()
	}
}

// wait reports whether something came true before ctx ended or it took too long.
func (p *posts) wait(ctx context.Context, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, feedWait)
	defer cancel()
	wake := context.AfterFunc(ctx, func() { p.change(func() {}) })
	defer wake()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !holds() {
		if ctx.Err() != nil {
			return false
		}
		p.changed.Wait()
	}
	return true
}
