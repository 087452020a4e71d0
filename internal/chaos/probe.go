package chaos

// This file measures how long nothing can be written: clients that write one thing after the other, as fast as they are answered.

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// probes write heartbeats in a product of their own, which no verdict is about.
type probes struct {
	run     *Run
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu      sync.Mutex // guards what follows
	last    time.Time  // when a write was last answered
	longest time.Duration
	after   time.Time // the first write that began after this …
	first   time.Time // … was answered then
}

// probe starts n of them.
func (r *Run) probe(n int) *probes {
	ctx, stop := context.WithCancel(context.Background())
	p := &probes{run: r, stop: stop, last: time.Now()}
	r.t.Cleanup(p.halt)
	for i := range n {
		p.workers.Go(func() { p.write(ctx, i) })
	}
	return p
}

func (p *probes) halt() {
	p.stop()
	p.workers.Wait()
}

func (p *probes) write(ctx context.Context, i int) {
	client := newClient()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if !p.one(client, i) {
			i++ // the next node
			time.Sleep(2 * time.Millisecond)
		}
	}
}

func (p *probes) one(client *http.Client, i int) bool {
	beat := int64(3600)
	began := time.Now()
	a, err := p.run.try(client, i%len(p.run.Nodes), &call{product: "probe", command: &fsm.Heartbeat{
		ProductID: "probe", Heartbeat: fleet.HeartbeatRequest{FactoryID: "probe", HeartbeatSeconds: &beat},
	}})
	now := time.Now()
	if err != nil || a.Err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = max(p.longest, now.Sub(p.last))
	p.last = now
	if p.first.IsZero() && began.After(p.after) {
		p.first = now
	}
	return true
}

// gap is the longest time between two writes since the last call of gap.
func (p *probes) gap() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := max(p.longest, time.Since(p.last))
	p.longest = 0
	return g
}

// mark begins to wait for the first write that begins from now on.
func (p *probes) mark() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after, p.first = time.Now(), time.Time{}
	return p.after
}

// firstWrite waits for it, and returns how long after the mark it was answered.
func (p *probes) firstWrite(limit time.Duration) time.Duration {
	p.run.t.Helper()
	var took time.Duration
	if why := within(limit, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.first.IsZero() {
			return "no write succeeds"
		}
		took = p.first.Sub(p.after)
		return ""
	}); why != "" {
		p.run.t.Fatalf("I15: waited %s in vain: %s", limit, why)
	}
	return took
}
