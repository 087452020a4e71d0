package worker

// This file tests a factory's hours in virtual time: a real node, Go handlers, and a network that can be cut.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

// inVirtualTime runs a test in a bubble with a shop of its own.
func inVirtualTime(t *testing.T, test func(t *testing.T, s *shop, network *cluster.MemoryNetwork)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &shop{t: t, url: "http://n1:8400"}
		c := testcluster.Start(t, 1)
		network := cluster.NewMemoryNetwork()
		listener, err := network.Host("n1").Listen("n1:8400")
		if err != nil {
			t.Fatal(err)
		}
		s.api = rpc.New(rpc.Config{Node: c.Node(0), RootToken: []byte(rootToken)})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if door := s.door.Load(); door == nil || !(*door)(w, r) {
				s.api.ServeHTTP(w, r)
			}
		})}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		clientFor := func(host string) *client.Client {
			transport := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				return network.Host(host).Dial(ctx, addr)
			}}
			t.Cleanup(func() {
				network.Heal() // lets a dial end that nobody waits for
				synctest.Wait()
				transport.CloseIdleConnections()
			})
			cl, err := client.New(client.Config{
				Addresses: []string{s.url}, Token: rootToken, Product: testcluster.Product, HTTPClient: &http.Client{Transport: transport},
			})
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		s.client, s.worker = clientFor("test"), clientFor("worker")
		s.patience = time.Hour
		test(t, s, network)
	})
}

// handled is a factory that runs a handler.
func (s *shop) handled(h Handler) Config {
	c := s.config("")
	c.Client, c.Command, c.Handler, c.Once = s.worker, nil, h, false
	return c
}

// asLong works for a time, or until it must not.
func asLong(d time.Duration) Handler {
	return func(ctx context.Context, _ *Task) (Outcome, error) {
		select {
		case <-time.After(d):
			return Outcome{}, nil
		case <-ctx.Done():
			return Outcome{}, context.Cause(ctx)
		}
	}
}

// A job that takes many leases is kept by renewals at a third of one.
func TestRenewsEveryThird(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		id := s.submit().ID
		var beats []time.Time
		s.at(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/heartbeat") {
				beats = append(beats, time.Now())
			}
			return false
		})
		c := s.handled(asLong(10 * time.Minute))
		c.Once, c.Lease = true, 9*time.Second
		s.run(c)
		for i := 2; i < len(beats); i++ {
			if every := beats[i].Sub(beats[i-1]).Round(time.Millisecond); every != 3*time.Second {
				t.Fatalf("got %v between renewals, want 3 s", every)
			}
		}
		if job := s.job(id); job.Stage != fleet.Shipped || job.LeaseEpoch != 1 || len(beats) < 200 {
			t.Errorf("got %s at epoch %d after %d heartbeats, want shipped at 1 after 200", job.Stage, job.LeaseEpoch, len(beats))
		}
	})
}

// The lease of a job that was waited for begins when it is granted.
func TestWaitLongerThanTheLease(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		c := s.handled(asLong(time.Minute))
		c.Lease = 3 * time.Second
		r := s.start(c)
		time.Sleep(15 * time.Second)
		id := s.submit().ID
		time.Sleep(2 * time.Minute)
		if job := s.job(id); job.Stage != fleet.Shipped || job.Attempt != 1 {
			t.Errorf("got %s after %d attempts, want shipped by the first", job.Stage, job.Attempt)
		}
		r.signals <- syscall.SIGTERM
		r.ok()
	})
}

// Out of reach, work goes on until the lease's deadline less the grace, measured from before the renewal was sent, and no
// longer.
func TestUnreachableUntilTheDeadline(t *testing.T) {
	for _, c := range []struct{ lease, grace, before time.Duration }{
		{time.Minute, 30 * time.Second, 30 * time.Second}, // the defaults
		{time.Minute, 5 * time.Second, 5 * time.Second},
		{9 * time.Second, 30 * time.Second, 3 * time.Second}, // cut: two renewals must fit
	} {
		t.Run(fmt.Sprint(c.lease, c.grace), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *shop, network *cluster.MemoryNetwork) {
				id := s.submit().ID
				var ended time.Time
				var cause error
				config := s.handled(func(ctx context.Context, _ *Task) (Outcome, error) {
					<-ctx.Done()
					ended, cause = time.Now(), context.Cause(ctx)
					return Outcome{}, cause
				})
				config.Once, config.Lease, config.Grace = true, c.lease, c.grace
				r := s.start(config)
				time.Sleep(c.lease*5 + time.Second) // between two renewals: a node may grant the one that a cut leaves unanswered
				network.Cut("worker", "n1")
				r.ok()
				if !errors.Is(cause, client.ErrLeaseExpired) {
					t.Errorf("got %v, want the lease's end", cause)
				}
				lease, err := s.client.Lease(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if before := lease.ExpiresAt.Time().Sub(ended).Round(10 * time.Millisecond); before != c.before {
					t.Errorf("got the end %v before the lease's, want %v", before, c.before)
				}
				if run := s.last(id); run.Outcome != "" {
					t.Errorf("got %s reported, want nothing", run.Outcome)
				}
			})
		})
	}
}

// What was finished while the cluster was away is reported when it is back: the work was paid for, and nobody else has it.
func TestFinishedInAnOutage(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, network *cluster.MemoryNetwork) {
		id := s.submit().ID
		c := s.handled(asLong(20 * time.Second))
		c.Once = true
		r := s.start(c)
		time.Sleep(16 * time.Second)
		network.Cut("worker", "n1")
		time.Sleep(45 * time.Second) // beyond what the factory knows of its lease, which still holds
		network.Heal()
		r.ok()
		if job := s.job(id); job.Stage != fleet.Shipped || job.Attempt != 1 {
			t.Errorf("got %s after %d attempts, want shipped by the first", job.Stage, job.Attempt)
		}
	})
}

// A factory with nothing to do polls by long requests only, and ends when it was idle long enough.
func TestIdleExit(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		var claims atomic.Int64
		s.at(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/fleet/claim" {
				claims.Add(1)
			}
			return false
		})
		id := s.submit().ID
		c := s.handled(asLong(time.Minute)) // working is not idling
		c.IdleExit = 5 * time.Minute
		began := time.Now()
		s.run(c)
		if took := time.Since(began); took < 6*time.Minute || took > 6*time.Minute+25*time.Second {
			t.Errorf("got the end after %v, want it 5 min after the one job's", took)
		}
		if n := claims.Load(); n > 20 {
			t.Errorf("got %d claims, want about one in 20 s", n)
		}
		if job := s.job(id); job.Stage != fleet.Shipped {
			t.Errorf("got %s, want shipped", job.Stage)
		}
	})
}

// An idle factory ends at once when it is told to, and takes nothing of another process that has its name.
func TestDrainLeavesANamesakeAlone(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		busy := s.handled(asLong(2 * time.Minute))
		busy.Seats = 2
		first := s.start(busy)
		id := s.submit().ID
		time.Sleep(time.Second)
		idle := s.start(busy)
		time.Sleep(10 * time.Second)
		began := time.Now()
		idle.signals <- syscall.SIGTERM
		idle.ok()
		if took := time.Since(began); took > time.Second {
			t.Errorf("got the end after %v, want it at once", took)
		}
		time.Sleep(3 * time.Minute)
		if job := s.job(id); job.Stage != fleet.Shipped || job.Attempt != 1 {
			t.Errorf("got %s after %d attempts, want shipped by the first", job.Stage, job.Attempt)
		}
		first.signals <- syscall.SIGTERM
		first.ok()
	})
}

// Two seats may have one job after another in a moment; the end of the first attempt does not let go of the second.
func TestNextAttemptInAnotherSeat(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
		id := s.submit(func(j *fleet.Submission) { j.Retry = &fleet.Retry{Max: 1} }).ID
		var late atomic.Bool
		s.at(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPatch || !late.CompareAndSwap(false, true) {
				return false
			}
			// The answer to the report of the failure comes when the other seat has the job already.
			answer := httptest.NewRecorder()
			s.api.ServeHTTP(answer, r)
			time.Sleep(2 * time.Second)
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
			return true
		})
		c := s.handled(func(ctx context.Context, task *Task) (Outcome, error) {
			if task.Run.Attempt == 1 {
				return Outcome{}, errors.New("try again")
			}
			return asLong(2*time.Minute)(ctx, task)
		})
		c.Seats, c.Lease = 2, 9*time.Second
		r := s.start(c)
		time.Sleep(4 * time.Minute)
		if job := s.job(id); job.Stage != fleet.Shipped || job.Attempt != 2 {
			t.Errorf("got %s after %d attempts, want shipped by the second", job.Stage, job.Attempt)
		}
		r.signals <- syscall.SIGTERM
		r.ok()
	})
}

func TestHandler(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler Handler
		stage   fleet.Stage
		reason  string
		result  fleet.JSON
	}{
		{"zero outcome", func(context.Context, *Task) (Outcome, error) { return Outcome{}, nil }, fleet.Shipped, "", ""},
		{"outcome", func(context.Context, *Task) (Outcome, error) {
			return Outcome{Stage: fleet.Failed, Reason: "tests_red", Result: `{"n":1}`}, nil
		}, fleet.Failed, "tests_red", `{"n":1}`},
		{"error", func(ctx context.Context, task *Task) (Outcome, error) {
			if err := task.Progress(ctx, fleet.Building); err != nil {
				return Outcome{}, err
			}
			return Outcome{}, errors.New("out of luck, hunter2-hunter2")
		}, fleet.Failed, "error", `{"error":"out of luck, [masked]"}`},
		{"panic", func(context.Context, *Task) (Outcome, error) { panic("oh no") }, fleet.Failed, "panic", `{"error":"panic: oh no"}`},
		{"gate", func(context.Context, *Task) (Outcome, error) { return Outcome{Stage: fleet.Review}, nil }, fleet.Review, "", ""},
		{"released", func(context.Context, *Task) (Outcome, error) { return Outcome{Released: true, Delay: time.Minute}, nil }, fleet.Queued, "", ""},
		{"reported by itself", func(ctx context.Context, task *Task) (Outcome, error) {
			_, err := task.Report(ctx, fleet.Report{Stage: fleet.Shipped, Result: `"mine"`})
			return Outcome{Stage: fleet.Failed, Reason: "late"}, err
		}, fleet.Shipped, "", `"mine"`},
		{"what the cluster does not take", func(context.Context, *Task) (Outcome, error) {
			return Outcome{Result: fleet.JSON(`"` + strings.Repeat("x", fleet.MaxBody) + `"`)}, nil
		}, fleet.Failed, "bad_result", "*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
				id := s.submit().ID
				config := s.handled(c.handler)
				config.Once = true
				s.run(config)
				job, run := s.job(id), s.last(id)
				if job.Stage != c.stage || job.Reason != c.reason || c.result != "*" && run.Result != c.result {
					t.Errorf("got %s %q %s, want %s %q %s", job.Stage, job.Reason, run.Result, c.stage, c.reason, c.result)
				}
			})
		})
	}
}

// A handler that finishes although the factory stops has finished; one that breaks off has not.
func TestHandlerAndStop(t *testing.T) {
	for _, c := range []struct {
		name   string
		finish bool
		want   fleet.Stage
	}{{"finishes", true, fleet.Shipped}, {"breaks off", false, fleet.Queued}} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *shop, _ *cluster.MemoryNetwork) {
				id := s.submit().ID
				config := s.handled(func(ctx context.Context, _ *Task) (Outcome, error) {
					<-ctx.Done()
					if c.finish {
						return Outcome{}, nil
					}
					return Outcome{Stage: fleet.Failed, Reason: "half"}, ctx.Err()
				})
				config.Drain = DrainRelease
				r := s.start(config)
				time.Sleep(time.Second)
				r.signals <- os.Interrupt
				r.ok()
				if job := s.job(id); job.Stage != c.want || job.Failures != 0 {
					t.Errorf("got %s with %d failures, want %s", job.Stage, job.Failures, c.want)
				}
			})
		})
	}
}

// A token that is refused ends the factory; a cluster that can't be reached does not, except once.
func TestRunErrors(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, s *shop, network *cluster.MemoryNetwork) {
		s.at(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"code":"unauthenticated","detail":"no"}`))
			return true
		})
		if err := s.start(s.handled(asLong(0))).end(); !errors.Is(err, fleet.Unauthenticated) {
			t.Errorf("got %v, want unauthenticated", err)
		}
		s.mend()
		network.Cut("worker", "n1")
		once := s.handled(asLong(0))
		once.Once = true
		began := time.Now()
		if err := s.start(once).end(); err == nil || time.Since(began) > 30*time.Second {
			t.Errorf("got %v after %v, want an error soon", err, time.Since(began))
		}
		id := s.submit().ID
		r := s.start(s.handled(asLong(0)))
		time.Sleep(5 * time.Minute)
		network.Heal()
		time.Sleep(time.Minute)
		if job := s.job(id); job.Stage != fleet.Shipped {
			t.Errorf("got %s, want shipped when the cluster was back", job.Stage)
		}
		r.signals <- syscall.SIGTERM
		r.ok()
	})
}

// The files of a command are looked at every second.
func TestLooksEverySecond(t *testing.T) {
	c := Config{Client: new(client.Client), FactoryID: "f1", Command: []string{"true"}}
	if c, err := c.withDefaults(); err != nil || c.look != time.Second || c.Grace != 30*time.Second || c.Lease != time.Minute || c.Drain != DrainWait || c.Seats != 1 {
		t.Errorf("got %+v, %v, want the defaults of docs/work.md", c, err)
	}
}

// A factory that can't make a directory gives the job back, for another one to do.
func TestNoRoomForTheDirectory(t *testing.T) {
	t.Setenv("TMPDIR", "/no/such/directory")
	s := openShop(t)
	id := s.submit().ID
	s.run(s.config(`exit 0`))
	if job, run := s.job(id), s.last(id); job.Stage != fleet.Queued || run.Outcome != fleet.OutcomeReleased || job.NotBefore == 0 {
		t.Errorf("got %s, run %s, want it released for a while", job.Stage, run.Outcome)
	}
}
