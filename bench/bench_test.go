package main

// This file tests that every peer keeps the promise that the comparison rests on, and that a run measures and reports what it should.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The test binary is the servers of the peers, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == memberArg {
		if err := member(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Whoever claims a job has it alone, whoever lost it can't complete it, and nothing is answered that is not on two nodes of three.
func TestPeers(t *testing.T) {
	for _, name := range []string{"fleet", "etcd", "nats", "postgres"} {
		t.Run(name, func(t *testing.T) {
			binary := ""
			if name == "fleet" {
				binary = buildNode(t)
			}
			peers, err := choose([]string{name}, binary)
			if name == "postgres" && err != nil {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, clients := startPeer(t, peers[0], 2)
			one, other := clients[0], clients[1]

			for range 3 {
				body := newBody()
				if err := one.submit(t.Context(), body); err != nil {
					t.Fatal("submit:", err)
				}
				j := claimOne(t, other)
				if j.body != body {
					t.Fatalf("claim: got the body %q, want %q", j.body, body)
				}
				if again, err := one.claim(t.Context()); again != nil || err != nil {
					t.Fatalf("claim: got %+v, %v, want nothing: another has the job", again, err)
				}
				if err := other.complete(t.Context(), j); err != nil {
					t.Fatal("complete:", err)
				}
				if err := other.complete(t.Context(), j); err == nil && name != "nats" { // which ignores it
					t.Error("complete: got no error for a job that was complete already")
				}
				if again, err := other.claim(t.Context()); again != nil || err != nil {
					t.Fatalf("claim: got %+v, %v, want nothing: the job is complete", again, err)
				}
			}
			for _, c := range clients {
				if n, err := cycle(t.Context(), c); n != 1 || err != nil {
					t.Errorf("cycle: got %d, %v, want 1", n, err)
				}
				if b, ok := c.(batcher); ok {
					if n, err := cycles(t.Context(), b); n != batchSize || err != nil {
						t.Errorf("cycles: got %d, %v, want %d", n, err, batchSize)
					}
				}
			}

			s.servers[1].stop()
			s.servers[2].stop()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := one.submit(ctx, newBody()); err == nil {
				t.Error("submit: got an answer from one node of three")
			}
		})
	}
}

// claimOne claims the job that was submitted by way of another node: this one may be a little behind.
func claimOne(t *testing.T, c client) *job {
	t.Helper()
	for {
		if j, err := c.claim(t.Context()); j != nil || err != nil {
			if err != nil {
				t.Fatal("claim:", err)
			}
			return j
		}
	}
}

// buildNode builds the product's node.
func buildNode(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "fleet-node")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/fleet-node")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// startPeer starts a peer and connects clients.
func startPeer(t *testing.T, p peer, n int) (*site, []client) {
	t.Helper()
	s, err := openSite(os.TempDir()) // t.TempDir is for this account only, and Postgres may have another
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	clients, err := connectAll(t.Context(), p, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(clients) })
	return s, clients
}

// fakePeer answers after a time that is known.
type fakePeer struct {
	label string
	slow  time.Duration // each of the three calls
	calls []string      // that were made of it; of clients one after the other only
	fails error
}

func (p *fakePeer) name() string  { return p.label }
func (p *fakePeer) about() string { return "a test's" }

func (p *fakePeer) start(context.Context, *site) error { return p.fails }

func (p *fakePeer) connect(context.Context, int, int) (client, error) {
	return &fakeClient{peer: p}, nil
}

type fakeClient struct {
	peer *fakePeer
	body string
}

func (c *fakeClient) do(call string) {
	time.Sleep(c.peer.slow)
	c.peer.calls = append(c.peer.calls, call)
}

func (c *fakeClient) submit(_ context.Context, body string) error {
	c.do("submit")
	c.body = body
	return nil
}

func (c *fakeClient) claim(context.Context) (*job, error) {
	c.do("claim")
	return &job{body: c.body}, nil
}

func (c *fakeClient) complete(context.Context, *job) error {
	c.do("complete")
	return nil
}

func (c *fakeClient) close() {}

// What was begun in the warm-up and ended after it counts, what ended after the end does not, so that a rate is exact.
func TestDrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePeer{slow: 10 * time.Millisecond}
		clients, err := connectAll(t.Context(), p, 1)
		if err != nil {
			t.Fatal(err)
		}
		run := plan{warmUp: 100 * time.Millisecond, duration: 3 * time.Second}
		got, err := run.drive(t.Context(), clients, cycleRow)
		want := figures{perSecond: 100.0 / 3, p50: 30 * time.Millisecond, p99: 30 * time.Millisecond}
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if want := []string{"submit", "claim", "complete"}; !slices.Equal(p.calls[:3], want) || len(p.calls)%3 != 0 {
			t.Errorf("got %d calls, first %q, want cycles of %q", len(p.calls), p.calls[:3], want)
		}
	})
}

// Rounds are interleaved, each begins with another peer, and one that fails is said and left out.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("it is down")
		var said []string
		run := plan{
			peers: []peer{&fakePeer{label: "fleet", slow: time.Millisecond}, &fakePeer{label: "a", slow: 2 * time.Millisecond}, &fakePeer{label: "b", fails: down}},
			dir:   t.TempDir(), clients: []int{1}, rounds: 2, duration: 3 * time.Second,
			progress: func(text string) { said = append(said, text) },
		}
		r := run.run(t.Context())
		want := []string{
			"round 1 of 2: fleet, 1 clients: 333 jobs/s", "round 1 of 2: a, 1 clients: 167 jobs/s", "round 1: b: starting: it is down",
			"round 2 of 2: a, 1 clients: 167 jobs/s", "round 2: b: starting: it is down", "round 2 of 2: fleet, 1 clients: 333 jobs/s",
		}
		if !slices.Equal(said, want) {
			t.Errorf("got %q, want %q", said, want)
		}
		var report strings.Builder
		if err := r.report(&report, run); !errors.Is(err, down) {
			t.Errorf("got %v, want %v", err, down)
		}
		if want := "| 1 | 333 (333–333) | 2.00 (2.00–2.00) |"; !strings.Contains(report.String(), want) {
			t.Errorf("got %s\nwant it to have %q", report.String(), want)
		}
		if left, err := os.ReadDir(run.dir); len(left) > 0 || err != nil {
			t.Errorf("got %v, %v left behind, want nothing", left, err)
		}
	})
}

// A ratio is the median of the rounds' ratios, and batches are compared with fleet alone.
func TestReport(t *testing.T) {
	r := &results{fsyncs: []time.Duration{time.Millisecond}, busy: []float64{0, 0.45, 0.75}, cells: map[place]figures{}}
	for round, rates := range [][3]float64{{100, 50, 400}, {300, 100, 600}, {50, 50, 300}} {
		for i, name := range []string{"fleet", "etcd", "fleet, batch of 16"} {
			r.cells[place{name, 16, round}] = figures{rates[i], time.Millisecond, time.Duration(round+2) * time.Millisecond}
		}
	}
	var report strings.Builder
	if err := r.report(&report, plan{clients: []int{16}, rounds: 3}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"its fsync took 1.00 ms; when none of this ran others kept 40 % of it busy, at most 75 %.\nOthers worked on the machine meanwhile",
		"| clients | fleet, cycles/s | fleet, batch of 16 ÷ fleet | fleet ÷ etcd |",
		"| 16 | 100 (50–300) | 4.00 (2.00–6.00) | 2.00 (1.00–3.00) |",
		"| 16 | etcd | 50 (50–100) | 1.00 (1.00–1.00) | 3.00 (2.00–4.00) |",
	} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("got %s\nwant it to have %q", report.String(), want)
		}
	}
}
