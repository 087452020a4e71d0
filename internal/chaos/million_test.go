package chaos

// This file is a cluster with a great many jobs: what they take, how long calls are then, and how long a node needs to come back.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// backWait is how long a node may need to be ready with all of the jobs.
const backWait = 10 * time.Minute

// large is a cluster with many jobs, and the clients of it: one for each node.
type large struct {
	*Cluster
	t       *testing.T
	clients []*client.Client
	made    atomic.Int64 // jobs
	bodies  string
}

// FLEET_JOBS jobs of 1 KiB are queued on three nodes of 5 GiB each. Then they are claimed, listed and backed up under load, a node is killed, and one loses its
// disk. What it all took is in the report; the verdict is that every node has every job, in one place, at the end.
func TestMillion(t *testing.T) {
	jobs, err := strconv.Atoi(os.Getenv("FLEET_JOBS"))
	if err != nil {
		t.Skip("make million runs this; FLEET_JOBS is how many jobs")
	}
	l := &large{t: t, bodies: strings.Repeat("find out why the job fails when its test runs twice, and mend what is broken; ", 20)}
	l.Cluster = New(t, Config{Nodes: 3, Timing: "lan", SegmentBytes: 64 << 20, SnapshotBytes: 64 << 20, Direct: true, Env: []string{"GOMEMLIMIT=5GiB"}})
	l.Start(t)
	for i := range l.Nodes {
		l.clients = append(l.clients, l.client(i, (i+1)%3, (i+2)%3))
	}
	l.fill(20_000)
	few := l.claims()
	l.fill(jobs)
	l.weigh()
	many := l.claims()
	write(t, fmt.Sprintf("claims a second by 8 clients for 8 s, five times: with 20,000 jobs %.0f, with %d %.0f: median ÷ median %.2f",
		few, jobs, many, median(many)/median(few)))
	l.look()
	l.backUp()
	l.comeBack()
	l.weigh()
	l.count()
}

// client calls one of these nodes, the first of them as long as it answers. Each has a token of its own: a caller's keyed calls are remembered
// within bounds, and who fills them waits.
func (l *large) client(nodes ...int) *client.Client {
	l.t.Helper()
	root := l.dial(RootToken, nodes)
	token, err := root.CreateToken(l.t.Context(), fleet.TokenRequest{Name: "large", Roles: []fleet.Role{fleet.RoleOperator, fleet.RoleFactory, fleet.RoleAdmin}})
	if err != nil {
		l.t.Fatal(err)
	}
	return l.dial(token.Secret, nodes)
}

func (l *large) dial(token string, nodes []int) *client.Client {
	l.t.Helper()
	var addresses []string
	for _, i := range nodes {
		addresses = append(addresses, l.Nodes[i].HTTPAddr)
	}
	c, err := client.New(client.Config{
		Addresses: addresses, Token: token, Product: Product, Patience: time.Minute,
		HTTPClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// body is another one of 1 KiB.
func (l *large) body() string { return (fmt.Sprintf("%016d ", l.made.Add(1)) + l.bodies)[:1024] }

// fill queues jobs, 1,000 a call, by 6 clients. The calls have no key: the answers of so many would fill the room to remember them.
func (l *large) fill(jobs int) {
	began := time.Now()
	var left atomic.Int64
	left.Store(int64(jobs))
	l.together(6, func(_ *client.Client, i int) {
		for left.Add(-fleet.MaxBatch) >= 0 {
			batch := make([]string, fleet.MaxBatch)
			for i := range batch {
				batch[i] = fmt.Sprintf(`{"bodyMd":%q}`, l.body())
			}
			answer, err := l.Nodes[i%3].Do(l.t.Context(), http.MethodPost, "/fleet/jobs/batch", `{"jobs":[`+strings.Join(batch, ",")+`]}`)
			if err != nil {
				l.t.Errorf("submitting %d jobs: %v", len(batch), err)
				return
			}
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusCreated {
				l.t.Errorf("submitting %d jobs: %s", len(batch), answer.Status)
				return
			}
		}
	})
	write(l.t, fmt.Sprintf("%d jobs of 1 KiB submitted in %s, 1,000 a call", jobs, time.Since(began).Round(100*time.Millisecond)))
}

// together runs something at clients that are spread over the nodes.
func (l *large) together(n int, do func(c *client.Client, i int)) {
	l.t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(l.clients[i%len(l.clients)], i) })
	}
	all.Wait()
	if l.t.Failed() {
		l.t.FailNow()
	}
}

func median(of []float64) float64 { return slices.Sorted(slices.Values(of))[len(of)/2] }

// claims is how many a second there are, five times. Each job is given back, so that they stay as many, and is in line again after a while, so
// that the next claim is for another one. Right after a load a snapshot is written and garbage collected: the first of them say what
// that costs.
func (l *large) claims() []float64 {
	const lasts = 8 * time.Second
	var rates []float64
	for range 5 {
		var done atomic.Int64
		end := time.Now().Add(lasts)
		l.together(8, func(c *client.Client, i int) {
			factory, seats, hour := fmt.Sprintf("f%d", i), int64(fleet.MaxSeats), int64(fleet.MaxHeartbeatSeconds)
			if _, err := c.Heartbeat(l.t.Context(), fleet.HeartbeatRequest{FactoryID: factory, SeatLimit: &seats, HeartbeatSeconds: &hour}); err != nil {
				l.t.Error(err)
				return
			}
			lease, later := int64(fleet.MaxLeaseSeconds), int64(10)
			for time.Now().Before(end) {
				claim, err := c.Claim(l.t.Context(), fleet.ClaimRequest{FactoryID: factory, LeaseSeconds: &lease})
				if err != nil {
					l.t.Errorf("claiming: %v", err)
					return
				}
				if claim == nil {
					l.t.Error("nothing to claim, and most jobs are queued")
					return
				}
				epoch := claim.Lease.LeaseEpoch
				if _, err := c.Release(l.t.Context(), claim.Job.ID, fleet.ReleaseRequest{LeaseEpoch: epoch, DelaySeconds: later}); err != nil {
					l.t.Errorf("releasing: %v", err)
					return
				}
				done.Add(1)
			}
		})
		rates = append(rates, float64(done.Load())/lasts.Seconds())
	}
	return rates
}

// weigh reports what the nodes take.
func (l *large) weigh() {
	var sizes []string
	for _, n := range l.Nodes {
		f, err := n.footprint()
		if err != nil {
			l.t.Fatal(err)
		}
		heap, err := n.Gauge("go_memstats_heap_alloc_bytes")
		if err != nil {
			l.t.Fatal(err)
		}
		sizes = append(sizes, fmt.Sprintf("%d MiB (heap %d)", f.memory>>20, int64(heap)>>20))
	}
	write(l.t, fmt.Sprintf("memory of the nodes with %d jobs: %s", l.made.Load(), strings.Join(sizes, ", ")))
}

// look reports how long single reads take.
func (l *large) look() {
	ctx, c := l.t.Context(), l.clients[0]
	var last *fleet.Job
	reads := []struct {
		what string
		do   func() error
	}{
		{"a page of 100 queued jobs", func() error {
			n := 0
			for j, err := range c.Jobs(ctx, client.JobFilter{Stage: fleet.Queued, Limit: 100}) {
				if last = j; err != nil {
					return err
				}
				if n++; n == 100 {
					break
				}
			}
			return nil
		}},
		{"why", func() error { _, err := c.Why(ctx, last.ID); return err }},
		{"stats", func() error { _, err := c.Stats(ctx); return err }},
	}
	for _, read := range reads {
		var took times
		for range 100 {
			began := time.Now()
			if err := read.do(); err != nil {
				l.t.Fatalf("%s: %v", read.what, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		write(l.t, fmt.Sprintf("%s: p50 %s, max %s", read.what, took[50].Round(10*time.Microsecond), took[99].Round(10*time.Microsecond)))
	}
}

// submits lets four clients submit until something is done, and reports how long each submit took.
func (l *large) submits(while string, do func()) {
	ctx, stop := context.WithCancel(l.t.Context())
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		took times
	)
	for i := range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, err := l.clients[i%len(l.clients)].Submit(l.t.Context(), fleet.Submission{BodyMd: l.body()})
				if err != nil {
					l.t.Errorf("submitting while %s: %v", while, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	do()
	stop()
	all.Wait()
	slices.Sort(took)
	round := func(share int) time.Duration { return took[(len(took)-1)*share/100].Round(100 * time.Microsecond) }
	write(l.t, fmt.Sprintf("submits by 4 clients while %s: p50 %s, p99 %s, max %s, n %d", while, round(50), round(99), round(100), len(took)))
}

func (l *large) backUp() {
	l.submits("nothing else happens", func() { time.Sleep(5 * time.Second) })
	l.submits("a backup is read", func() {
		began := time.Now()
		body, err := l.clients[1].Snapshot(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		defer body.Close()
		n, err := io.Copy(io.Discard, body)
		if err != nil {
			l.t.Fatal(err)
		}
		write(l.t, fmt.Sprintf("a backup of %d MB took %s", n/1_000_000, time.Since(began).Round(100*time.Millisecond)))
	})
}

// comeBack kills a follower and starts it again, and then once more without what it had on its disk.
func (l *large) comeBack() {
	n := l.Nodes[(l.AwaitLeader(l.t, leaderWait)+1)%3]
	back := func(what string) {
		began := time.Now()
		if err := n.Start(); err != nil {
			l.t.Fatal(err)
		}
		l.Ready(l.t, backWait)
		write(l.t, fmt.Sprintf("%s was ready after %s", what, time.Since(began).Round(100*time.Millisecond)))
	}
	n.Kill()
	back("a node that was killed")
	l.submits("a follower has lost its disk and comes back", func() {
		n.Kill()
		if err := os.RemoveAll(n.Dir); err != nil {
			l.t.Fatal(err)
		}
		back("a node that lost its disk")
	})
}

// count sees that each node has every job, in one stage.
func (l *large) count() {
	for i, n := range l.Nodes {
		stats, err := l.client(i).Stats(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		var sum int64
		for _, jobs := range stats.Stages {
			sum += jobs
		}
		if made := l.made.Load(); sum != made {
			l.t.Errorf("%s: %d jobs in %v, want all %d", n.Name, sum, stats.Stages, made)
		}
	}
}
