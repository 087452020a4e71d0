package chaos

// This file is one run: a cluster under load, and faults one after the other.

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

var root = fsm.Caller{Actor: fsm.ActorRoot}

// Run is a cluster under load. Its methods are for the test's goroutine.
type Run struct {
	*Cluster
	t       testing.TB
	name    string
	seed    uint64
	rnd     *rand.Rand
	product string
	rate    float64 // calls a second, of all clients together
	history *check.History
	load    *check.Load
	feeds   []*feed
	log     *check.Log
	logged  *logged
	began   time.Time

	faults *counts
	codes  *counts // tries by what they came to

	stop    context.CancelFunc
	workers sync.WaitGroup
	numbers atomic.Int64 // of clients; one whose call stayed unknown goes on under another

	mu        sync.Mutex // guards what follows
	lastWrite time.Time
	longest   time.Duration        // without a write
	window    time.Duration        // the same, since the last call of gap
	flying    map[*flight]struct{} // tries under way
	failed    map[string]int       // calls that were given up, by what they came to
}

// flight is a try under way.
type flight struct {
	node  int
	began time.Time
	write bool
	code  string // once it is over
	done  chan struct{}
}

// clients is how many there are.
const clients = 8

// Begin starts a cluster and its load.
func Begin(t testing.TB, name string, seed uint64, config Config, rate float64) *Run {
	t.Helper()
	r := &Run{
		Cluster: New(t, config), t: t, name: name, seed: seed, rate: rate,
		faults: newCounts(), codes: newCounts(),
		flying: map[*flight]struct{}{}, failed: map[string]int{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("FLEET_SEED=%d, %s: faults %s", seed, name, r.faults)
		}
	})
	r.rnd = r.draws(0)
	r.Start(t)
	r.renew(Product)
	r.goOn()
	return r
}

// renew begins a history of its own, in a product of its own.
func (r *Run) renew(product string) {
	r.product, r.history, r.load, r.feeds = product, check.NewHistory(), newLoad(product), nil
	r.logged = &logged{submits: map[string]fsm.Command{}}
	r.log = &check.Log{EntryOf: r.logged.entryOf}
}

// draws are those of the run itself, or of a client. Runs of other names draw otherwise.
func (r *Run) draws(who uint64) *rand.Rand {
	h := fnv.New64()
	_, _ = h.Write([]byte(r.name))
	return rand.New(rand.NewPCG(r.seed, h.Sum64()+who))
}

// goOn starts the load and the readers.
func (r *Run) goOn() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.began, r.lastWrite = stop, time.Now(), time.Now()
	r.numbers.Store(clients)
	r.t.Cleanup(r.halt)
	for _, n := range r.Nodes {
		f := &feed{product: r.product}
		r.feeds = append(r.feeds, f)
		r.workers.Go(func() { f.follow(ctx, n, r.history) })
	}
	for i := range clients {
		r.workers.Go(func() { r.client(ctx, i, r.draws(uint64(i)+1)) })
	}
}

// halt ends the load.
func (r *Run) halt() {
	r.stop()
	r.workers.Wait()
}

// client calls until the run stops.
func (r *Run) client(ctx context.Context, i int, rnd *rand.Rand) {
	number, client := i, newClient()
	defer client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(rnd.ExpFloat64() * clients / r.rate * float64(time.Second))):
		}
		a := r.call(client, number, rnd, r.callOf(r.load.Next(rnd, i)))
		r.load.Learn(a)
		if a.Err == nil && a.Result == nil {
			number = int(r.numbers.Add(1))
		}
	}
}

// newLoad is a load over HTTP, whose texts are long enough to fill a segment of 64 KiB every second or so.
func newLoad(product string) *check.Load {
	l := check.NewLoad(product)
	l.Remote = true
	l.Text = func(r *rand.Rand) string {
		return strings.Repeat([]string{"lorem ", "ipsum ", "dolor "}[r.IntN(3)], 100+r.IntN(1400))
	}
	return l
}

// call makes one call, with its retries at other nodes. The answer is empty if it was given up.
func (r *Run) call(client *http.Client, number int, rnd *rand.Rand, c call) fsm.Answer {
	var o *check.Operation
	if c.command == nil {
		o = r.history.Read(number, c.query)
	} else {
		o = r.history.Propose(number, fsm.Proposal{Caller: root, Key: c.key, Command: c.command})
	}
	at := rnd.IntN(len(r.Nodes))
	began := time.Now()
	for {
		a, err := r.try(client, at, &c)
		if err != nil && time.Since(began) < patience(err) && (!c.once() || errors.Is(err, fleet.NoLeader)) {
			o.Retry(err)
			time.Sleep(rand.N(300 * time.Millisecond))
			at = (at + 1) % len(r.Nodes)
			continue
		}
		o.Done(a, err)
		switch {
		case err != nil:
			r.mu.Lock()
			r.failed[code(a, err)]++
			r.mu.Unlock()
		case a.Err == nil && c.command != nil && !c.once() && c.wrote(a, err) && rnd.IntN(20) == 0:
			if again, err := r.try(client, rnd.IntN(len(r.Nodes)), &c); err == nil {
				o.Repeated(again)
			}
		}
		return a
	}
}

// patience is how long a client goes on with one call. Where new work is turned away it soon does something else: if all waited for
// room, nobody would be left to do what needs less of it.
func patience(err error) time.Duration {
	if errors.Is(err, fleet.DiskFull) {
		return time.Second
	}
	return 20 * time.Second
}

// try sends a call to one node. It is not cut short when the run ends: its answer is judged.
func (r *Run) try(client *http.Client, node int, c *call) (fsm.Answer, error) {
	f := &flight{node: node, began: time.Now(), write: c.command != nil, done: make(chan struct{})}
	r.mu.Lock()
	r.flying[f] = struct{}{}
	r.mu.Unlock()
	a, err := c.send(context.Background(), client, r.Nodes[node].Front.Addr)
	word := code(a, err)
	r.codes.add(word)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flying, f)
	f.code = word
	close(f.done)
	if c.wrote(a, err) {
		now := time.Now()
		r.longest = max(r.longest, now.Sub(r.lastWrite))
		r.window = max(r.window, now.Sub(r.lastWrite))
		r.lastWrite = now
	}
	return a, err
}

// inFlight is the writes that are under way.
func (r *Run) inFlight() (all []*flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.flying {
		if f.write {
			all = append(all, f)
		}
	}
	return all
}

// writeAfter waits until a write succeeded that was answered after a moment, and returns how much later.
func (r *Run) writeAfter(moment time.Time) time.Duration {
	r.t.Helper()
	var at time.Time
	if why := within(leaderWait, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		if at = r.lastWrite; at.After(moment) {
			return ""
		}
		return "no write succeeds"
	}); why != "" {
		r.t.Fatalf("I15: waited %s in vain: %s", leaderWait, why)
	}
	return at.Sub(moment)
}

// gap is the longest time without a write since the last call of gap.
func (r *Run) gap() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := max(r.window, time.Since(r.lastWrite))
	r.window = 0
	r.lastWrite = time.Now()
	return w
}

// fault counts one.
func (r *Run) fault(kind string) { r.faults.add(kind) }

// sleep lets time pass under load.
func (r *Run) sleep(least, most time.Duration) {
	time.Sleep(least + time.Duration(r.rnd.Int64N(int64(most-least)+1)))
}
