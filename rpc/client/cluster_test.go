package client_test

// This file is a real cluster in virtual time for the client's tests: nodes, their HTTP servers, and a network between
// them and the client that a test may break.

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

const rootToken = "flt_the_root_of_these_tests"

var names = []string{"n1", "n2", "n3"}

// web is a cluster with its HTTP servers.
type web struct {
	*testcluster.Cluster
	t         *testing.T
	network   *cluster.MemoryNetwork
	transport *http.Transport
	servers   []*http.Server
	door      atomic.Pointer[door] // in front of every node
}

// door reports true for a request that it has answered itself.
type door func(node string, api http.Handler, w http.ResponseWriter, r *http.Request) bool

func newWeb(t *testing.T, n int) *web {
	w := &web{Cluster: testcluster.Start(t, n), t: t, network: cluster.NewMemoryNetwork(), servers: make([]*http.Server, n)}
	w.transport = &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return w.network.Host("client").Dial(ctx, addr)
	}}
	for i := range n {
		w.serve(i)
	}
	t.Cleanup(func() {
		for i := range n {
			if w.Node(i) != nil {
				_ = w.servers[i].Close()
			}
		}
		w.transport.CloseIdleConnections()
	})
	return w
}

// serve serves a node's API.
func (w *web) serve(i int) {
	w.t.Helper()
	listener, err := w.network.Host(names[i]).Listen(names[i] + ":8400")
	if err != nil {
		w.t.Fatal(err)
	}
	api := rpc.New(rpc.Config{Node: w.Node(i), RootToken: []byte(rootToken)})
	w.servers[i] = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if d := w.door.Load(); d == nil || !(*d)(names[i], api, rw, r) {
			api.ServeHTTP(rw, r)
		}
	})}
	go func() { _ = w.servers[i].Serve(listener) }()
}

func (w *web) at(d door) { w.door.Store(&d) }

// kill is kill -9 of a node.
func (w *web) kill(i int) {
	_ = w.servers[i].Close()
	w.Kill(w.t, i)
}

func (w *web) restart(i int) {
	w.Restart(w.t, i)
	w.serve(i)
}

// client is a client of some nodes; none: all.
func (w *web) client(nodes ...string) *client.Client {
	w.t.Helper()
	if len(nodes) == 0 {
		nodes = names[:w.Size()]
	}
	var addresses []string
	for _, name := range nodes {
		addresses = append(addresses, name+":8400")
	}
	c, err := client.New(client.Config{Addresses: addresses, Token: rootToken, Product: testcluster.Product, HTTPClient: &http.Client{Transport: w.transport}})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func goWork() fleet.Submission { return fleet.Submission{BodyMd: "do", Capabilities: []string{"go"}} }

func goFactory(id string) fleet.HeartbeatRequest {
	return fleet.HeartbeatRequest{FactoryID: id, Capabilities: &fleet.Strings{"go"}, SeatLimit: new(int64(4))}
}

// A call whose answer is lost with the leader was made once.
func TestSubmitsAcrossLeaderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.client()
		const count = 30
		for i := range count {
			if i == 10 {
				leader := w.Leader(t)
				lost := 0
				w.at(func(_ string, api http.Handler, rw http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodPost || lost > 1 {
						return false
					}
					lost++
					api.ServeHTTP(discard{http.Header{}}, r.Clone(context.WithoutCancel(r.Context()))) // it is done, but nobody hears of it
					panic(http.ErrAbortHandler)
				})
				if _, err := c.Submit(t.Context(), goWork()); err != nil {
					t.Fatal(err)
				}
				w.kill(leader)
				continue
			}
			if _, err := c.Submit(t.Context(), goWork()); err != nil {
				t.Fatalf("submit %d: %v", i, err)
			}
		}
		var got int
		for _, err := range c.Jobs(t.Context(), client.JobFilter{Limit: 7}) {
			if err != nil {
				t.Fatal(err)
			}
			got++
		}
		if got != count {
			t.Errorf("got %d jobs of %d submits", got, count)
		}
	})
}

// discard is where an answer is lost.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// Events come in order and each once while the nodes that they are read from die.
func TestEventsAcrossNodeLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.client()
		const count = 40
		submitted := make(chan struct{})
		go func() {
			defer close(submitted)
			for range count {
				if _, err := c.Submit(t.Context(), goWork()); err != nil {
					t.Error(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		var read atomic.Int64 // the node that is read from
		w.at(func(node string, _ http.Handler, _ http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Accept") == "text/event-stream" {
				read.Store(int64(slices.Index(names, node)))
			}
			return false
		})
		var got []uint64
		down := -1
		for e, err := range w.client().Events(t.Context(), 0) {
			if err != nil {
				t.Errorf("after event %d: %v", len(got), err)
				break
			}
			if got = append(got, e.Index); len(got) == count {
				break
			}
			if len(got)%10 != 5 {
				continue
			}
			if down >= 0 {
				w.restart(down)
				w.Until(t, "the node is back", func() bool { return w.Node(down).Ready() == nil })
			}
			down = int(read.Load())
			w.kill(down)
		}
		<-submitted
		var want []uint64
		events, err := c.EventPage(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			want = append(want, e.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
	})
}

// A node that takes connections and never answers costs no lease while another one is there.
func TestHungNodeCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.client()
		submitted, err := c.Submit(t.Context(), goWork())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for held, err := range c.Claims(ctx, client.ClaimOptions{Factory: goFactory("f1"), Lease: 6 * time.Second}) {
			if err != nil {
				t.Fatal(err)
			}
			w.at(func(node string, _ http.Handler, _ http.ResponseWriter, r *http.Request) bool {
				if node != "n1" {
					return false
				}
				_, _ = io.Copy(io.Discard, r.Body) // or the server would not see the client go
				<-r.Context().Done()
				return true
			})
			select {
			case <-held.Context().Done():
				t.Errorf("lost the job: %v", context.Cause(held.Context()))
			case <-time.After(5 * time.Minute):
			}
			if _, err := held.Report(ctx, fleet.Report{Stage: fleet.Shipped}); err != nil {
				t.Error(err)
			}
			break
		}
		if job, err := c.Job(t.Context(), submitted.Job.ID); err != nil || job.Stage != fleet.Shipped || job.LeaseEpoch != 1 {
			t.Errorf("got %+v, %v, want it shipped at epoch 1", job, err)
		}
	})
}

// A lease outlives an outage that is shorter than what is left of it, and no longer one.
func TestOutageAndLease(t *testing.T) {
	for _, c := range []struct {
		outage time.Duration
		lost   bool
	}{{35 * time.Second, false}, {61 * time.Second, true}} {
		t.Run(c.outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWeb(t, 1)
				cl := w.client()
				if _, err := cl.Submit(t.Context(), goWork()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for held, err := range cl.Claims(ctx, client.ClaimOptions{Factory: goFactory("f1")}) {
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(19 * time.Second) // the first renewal is due
					w.network.Cut("client", "n1")
					time.Sleep(c.outage)
					w.network.Heal()
					time.Sleep(time.Minute)
					if cause := context.Cause(held.Context()); c.lost != errors.Is(cause, client.ErrLeaseExpired) || !c.lost && cause != nil {
						t.Errorf("got %v after an outage of %v, want lost: %v", cause, c.outage, c.lost)
					}
					break
				}
			})
		})
	}
}

// A job that is granted after a wait longer than its lease is held for the whole lease all the same.
func TestLeaseShorterThanTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.client()
		go func() {
			time.Sleep(15 * time.Second)
			if _, err := c.Submit(t.Context(), goWork()); err != nil {
				t.Error(err)
			}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for held, err := range c.Claims(ctx, client.ClaimOptions{Factory: goFactory("f1"), Lease: 3 * time.Second}) {
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(held.Deadline()); left < 2*time.Second || left > 3*time.Second {
				t.Errorf("got %v of the lease left, want almost 3 s", left)
			}
			time.Sleep(time.Minute)
			if err := context.Cause(held.Context()); err != nil {
				t.Errorf("lost the job: %v", err)
			}
			held.Close()
			break
		}
	})
}

// What was granted to a claim that was broken off is given back, and nothing else is.
func TestClaimBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.client()
		if _, err := c.Heartbeat(t.Context(), goFactory("f1")); err != nil {
			t.Fatal(err)
		}
		submit := func() string {
			result, err := c.Submit(t.Context(), goWork())
			if err != nil {
				t.Fatal(err)
			}
			return result.Job.ID
		}
		other := submit()
		if claim, err := c.Claim(t.Context(), fleet.ClaimRequest{FactoryID: "f1"}); err != nil || claim == nil {
			t.Fatalf("got %v, %v", claim, err)
		}
		id := submit()
		ctx, cancel := context.WithCancel(t.Context())
		broken := false
		w.at(func(_ string, api http.Handler, rw http.ResponseWriter, r *http.Request) bool {
			if broken || r.URL.Path != "/fleet/claim" {
				return false
			}
			broken = true
			api.ServeHTTP(discard{http.Header{}}, r.WithContext(context.WithoutCancel(r.Context())))
			cancel()
			<-r.Context().Done()
			return true
		})
		if claim, err := c.Claim(ctx, fleet.ClaimRequest{FactoryID: "f1", WaitSeconds: 20}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v, want it canceled", claim, err)
		}
		if job, err := c.Job(t.Context(), id); err != nil || job.Stage != fleet.Queued || job.LeaseEpoch != 1 {
			t.Errorf("got %+v, %v, want the granted job queued again", job, err)
		}
		if job, err := c.Job(t.Context(), other); err != nil || job.Stage != fleet.Assigned {
			t.Errorf("got %+v, %v, want the factory's other job untouched", job, err)
		}
	})
}

// A wait that a stopping node ends early goes on at the next, and not as a busy loop.
func TestWaitGoesOnElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.client()
		if _, err := c.Heartbeat(t.Context(), goFactory("f1")); err != nil {
			t.Fatal(err)
		}
		claims := 0
		w.at(func(node string, _ http.Handler, rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/fleet/claim" {
				return false
			}
			claims++
			if node == "n3" {
				return false
			}
			rw.WriteHeader(http.StatusNoContent)
			return true
		})
		go func() {
			time.Sleep(10 * time.Second)
			if _, err := w.client("n2").Submit(t.Context(), goWork()); err != nil {
				t.Error(err)
			}
		}()
		claim, err := c.Claim(t.Context(), fleet.ClaimRequest{FactoryID: "f1", WaitSeconds: 20})
		if err != nil || claim == nil || claims > 3 {
			t.Errorf("got %v, %v after %d calls, want the job after at most one a node", claim, err, claims)
		}
		began := time.Now()
		claims = 0
		claim, err = w.client("n1", "n2").Claim(t.Context(), fleet.ClaimRequest{FactoryID: "f1", WaitSeconds: 20})
		if took := time.Since(began); err != nil || claim != nil || took < 17*time.Second || took > 21*time.Second || claims > 20 {
			t.Errorf("got %v, %v after %v and %d calls, want nothing after about 20 s and few calls", claim, err, took, claims)
		}
	})
}

// Claims waits for a factory's seats, and its contexts say why a job is lost.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 3)
		c := w.client()
		const count = 9
		for range count {
			if _, err := c.Submit(t.Context(), goWork()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan string)
		var cancelled error
		go func() {
			for held, err := range c.Claims(ctx, client.ClaimOptions{Factory: goFactory("f1"), Lease: 5 * time.Second}) {
				if err != nil {
					t.Error(err)
					continue
				}
				go func() {
					if held.Run.ID[len(held.Run.ID)-2:] != "-1" {
						t.Errorf("got the run %s, want each job's first", held.Run.ID)
					}
					select {
					case <-time.After(20 * time.Second): // four leases
						if _, err := held.Report(ctx, fleet.Report{Stage: fleet.Shipped}); err != nil {
							t.Error(err)
						}
					case <-held.Context().Done():
						cancelled = context.Cause(held.Context())
					}
					done <- held.Job.ID
				}()
			}
		}()
		time.Sleep(2 * time.Second)
		page, err := c.JobPage(t.Context(), client.JobFilter{FactoryID: "f1"})
		if err != nil || len(page.Jobs) != 4 {
			t.Fatalf("got %v, %v, want as many jobs as there are seats", page, err)
		}
		if _, err := c.Cancel(t.Context(), page.Jobs[0].ID, ""); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range count {
			id := <-done
			if seen[id] {
				t.Errorf("got %s twice", id)
			}
			seen[id] = true
		}
		var lost *client.Lost
		if !errors.As(cancelled, &lost) || !errors.Is(cancelled, fleet.StaleEpoch) || lost.Job.Reason != "cancelled" {
			t.Errorf("got %v, want stale_epoch with a job that was cancelled", cancelled)
		}
		stats, err := c.Stats(t.Context())
		if err != nil || stats.Stages[fleet.Shipped] != count-1 || stats.Stages[fleet.Failed] != 1 {
			t.Errorf("got %v, %v, want %d shipped", stats, err, count-1)
		}
	})
}

// A factory that was silent for too long, as on a suspended machine, comes back by itself.
func TestClaimsComeBackFromSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.client()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		shipped := make(chan struct{})
		go func() {
			for held, err := range c.Claims(ctx, client.ClaimOptions{Factory: goFactory("f1")}) {
				if err != nil {
					continue // the node can't be reached
				}
				if _, err := held.Report(ctx, fleet.Report{Stage: fleet.Shipped}); err != nil {
					t.Error(err)
				}
				close(shipped)
			}
		}()
		time.Sleep(time.Second)
		w.network.Cut("client", "n1")
		time.Sleep(5 * time.Minute)
		w.network.Heal()
		submission := goWork()
		submission.Normalize()
		w.Submit(t, submission)
		began := time.Now()
		<-shipped
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("got the job shipped after %v, want soon", took)
		}
	})
}

// What the cluster refuses is told by its code, with all that goes with it.
func TestTypedErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.client()
		refused := func(err error, code fleet.Code) *fleet.Error {
			t.Helper()
			var e *fleet.Error
			if !errors.Is(err, code) || !errors.As(err, &e) || e.Detail == "" {
				t.Fatalf("got %v, want %s with a detail", err, code)
			}
			return e
		}
		_, err := c.Submit(t.Context(), fleet.Submission{BodyMd: "do", Priority: "urgent", Budget: &fleet.Budget{Wall: new(int64(-1))}})
		e := refused(err, fleet.Invalid)
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Field)
		}
		slices.Sort(fields)
		if want := []string{"budget.wall", "priority"}; !slices.Equal(fields, want) {
			t.Errorf("got the fields %v, want %v", fields, want)
		}
		job, err := c.Submit(t.Context(), goWork())
		if err != nil {
			t.Fatal(err)
		}
		id := job.Job.ID
		_, err = c.Job(t.Context(), "nobody")
		refused(err, fleet.NotFound)
		_, err = c.Claim(t.Context(), fleet.ClaimRequest{FactoryID: "nobody"})
		refused(err, fleet.UnknownFactory)
		if _, err := c.Heartbeat(t.Context(), goFactory("f1")); err != nil {
			t.Fatal(err)
		}
		claim, err := c.Claim(t.Context(), fleet.ClaimRequest{FactoryID: "f1"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Renew(t.Context(), id, fleet.RenewRequest{LeaseEpoch: 7})
		if e := refused(err, fleet.StaleEpoch); e.CurrentEpoch != claim.Lease.LeaseEpoch {
			t.Errorf("got the current epoch %d, want %d", e.CurrentEpoch, claim.Lease.LeaseEpoch)
		}
		_, err = c.Decide(t.Context(), id, 99, fleet.Report{Stage: fleet.Shipped})
		refused(err, fleet.VersionMismatch)
		_, err = c.Requeue(t.Context(), id)
		refused(err, fleet.IllegalTransition)
		_, err = c.SubmitBatch(t.Context(), []fleet.Submission{
			{BodyMd: "a", IdempotencyKey: "a", Deps: []string{"key:b"}}, {BodyMd: "b", IdempotencyKey: "b", Deps: []string{"key:a"}},
		})
		if e := refused(err, fleet.DependencyCycle); len(e.Cycle) < 3 || e.Cycle[0] != e.Cycle[len(e.Cycle)-1] {
			t.Errorf("got the cycle %v, want first = last", e.Cycle)
		}
	})
}

// The caller's time and going are told from what the nodes did.
func TestContextOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, 1)
		c := w.client()
		w.at(func(_ string, _ http.Handler, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusServiceUnavailable)
			_, _ = rw.Write([]byte(`{"code":"no_leader","detail":"an election"}`))
			return true
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := c.Stats(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, fleet.NoLeader) || time.Since(began) > 2500*time.Millisecond {
			t.Errorf("got %v after %v, want the deadline and no_leader", err, time.Since(began))
		}
	})
}
