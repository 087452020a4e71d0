package worker

// This file tests how work ends before it is done: cancel, budget, lost leases, a cluster out of reach, and the factory's
// own stop.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// stubborn is a parent that ends on TERM, and its child that ignores TERM and holds the output.
type stubborn struct {
	t             *testing.T
	pid, stopped  string
	quiet, script string // without and with a word that it is up
}

func newStubborn(t *testing.T) *stubborn {
	dir := t.TempDir()
	s := &stubborn{t: t, pid: filepath.Join(dir, "pid"), stopped: filepath.Join(dir, "stopped")}
	s.quiet = `(trap '' TERM; echo $(exec sh -c 'echo $PPID') > ` + s.pid + `; exec sleep 1000) &
while [ ! -s ` + s.pid + ` ]; do sleep 0.01; done
trap 'cat $FLEET_STOP_FILE > ` + s.stopped + `; exit 0' TERM
`
	s.script = s.quiet + `echo '{"comment":"up"}' > $FLEET_STATUS_FILE
wait`
	return s
}

// dead checks that nothing of it is left, and which word it was stopped with.
func (s *stubborn) dead(word string) {
	s.t.Helper()
	for late := time.Now().Add(10 * time.Second); alive(s.t, s.pid); { // the kernel takes a moment to kill
		if time.Now().After(late) {
			s.t.Fatal("the grandchild that ignores TERM still runs")
		}
	}
	if got := content(s.t, s.stopped); got != word {
		s.t.Errorf("got the stop file %q, want %q", got, word)
	}
}

func (s *shop) cancel(id string) {
	s.t.Helper()
	if _, err := s.client.Cancel(s.t.Context(), id, "no more"); err != nil {
		s.t.Error(err)
	}
}

func TestLostLeaseStopsAndReportsNothing(t *testing.T) {
	for _, c := range []struct {
		name, word string
		status     string // what the command says when it is up
		budget     fleet.Budget
		take       func(s *shop, id string)
		stage      fleet.Stage
	}{
		{name: "cancel", word: "cancelled", take: (*shop).cancel, stage: fleet.Failed},
		{name: "lost to another", word: "lease_lost", stage: fleet.Queued, take: func(s *shop, id string) {
			s.at(func(w http.ResponseWriter, r *http.Request) bool { // no heartbeat sees it cancelled
				return strings.HasSuffix(r.URL.Path, "/heartbeat") && hangUp(w, r)
			})
			s.cancel(id)
			if _, err := s.client.Requeue(s.t.Context(), id); err != nil {
				s.t.Error(err)
			}
			s.mend()
		}},
		{
			name: "budget", word: "budget_exceeded", stage: fleet.Failed, budget: fleet.Budget{Tokens: new(int64(10))},
			status: `{"insights":{"tokensIn":11}}`, take: func(*shop, string) {},
		},
		{name: "timeout", word: "timeout", stage: fleet.Failed, budget: fleet.Budget{Wall: new(int64(1))}, take: func(*shop, string) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, command := newShop(t), newStubborn(t)
			id := s.submit(func(j *fleet.Submission) {
				if c.budget != (fleet.Budget{}) {
					j.Budget = &c.budget
				}
			}).ID
			config := s.config(command.quiet + `echo '{"comment":"up"}' > $FLEET_STATUS_FILE
echo '` + c.status + `' >> $FLEET_STATUS_FILE; wait`)
			config.Lease = time.Second
			r := s.start(config)
			s.up(id)
			c.take(s, id)
			r.ok()
			command.dead(c.word)
			job, run := s.job(id), s.last(id)
			if job.Stage != c.stage || run.Exit != nil || s.happened(id, fleet.EventReleased) || run.Outcome == fleet.OutcomeShipped {
				t.Errorf("got the job %s, run %+v, want %s and nothing reported", job.Stage, run, c.stage)
			}
		})
	}
}

// A command hears that it was cancelled also when it is its own report that finds out.
func TestCancelFoundByAReport(t *testing.T) {
	s, command := newShop(t), newStubborn(t)
	id := s.submit().ID
	gate, open := fifo(t)
	config := s.config(command.quiet + `echo '{"comment":"up"}' > $FLEET_STATUS_FILE; cat ` + gate + `
echo '{"comment":"still here"}' >> $FLEET_STATUS_FILE; wait`)
	r := s.start(config) // the next heartbeat is due in 15 s
	s.up(id)
	s.cancel(id)
	open()
	r.ok()
	command.dead("cancelled")
}

func TestUnreachableClusterStopsTheCommandInTime(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	dir := t.TempDir()
	// It ignores TERM, and writes down how long it lived.
	config := s.config(`trap 'date +%s%N > ` + dir + `/term; cat $FLEET_STOP_FILE > ` + dir + `/word' TERM
echo '{"comment":"up"}' > $FLEET_STATUS_FILE
while :; do date +%s%N > ` + dir + `/now && mv ` + dir + `/now ` + dir + `/last; sleep 0.01; done`)
	config.Lease, config.Grace = 3*time.Second, 30*time.Second // cut to what the lease allows
	r := s.start(config)
	s.up(id)
	s.cut()
	r.ok()
	s.mend()
	lease, err := s.client.Lease(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) time.Time {
		ns, err := strconv.ParseInt(content(t, filepath.Join(dir, name)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Unix(0, ns)
	}
	expires := lease.ExpiresAt.Time()
	if lease.Status != fleet.LeaseHeld {
		t.Fatalf("got the lease %s, want it held: the command ended before it did", lease.Status)
	}
	if last := at("last"); !last.Before(expires) {
		t.Errorf("the command lived until %v, its lease until %v", last, expires)
	}
	if term := at("term"); term.After(expires.Add(-800*time.Millisecond)) || term.Before(expires.Add(-2*time.Second)) {
		t.Errorf("got TERM at %v, want it about 1 s before the lease's end at %v", term, expires)
	}
	if got := content(t, filepath.Join(dir, "word")); got != "lease_lost" {
		t.Errorf("got the stop file %q, want lease_lost", got)
	}
}

// A cluster that is away for less than a lease is not noticed.
func TestShortOutage(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	gate, open := fifo(t)
	config := s.config(`echo '{"comment":"up"}' > $FLEET_STATUS_FILE; cat ` + gate)
	config.Lease = 3 * time.Second
	r := s.start(config)
	s.up(id)
	missed := make(chan struct{}, 100)
	s.at(func(w http.ResponseWriter, r *http.Request) bool {
		missed <- struct{}{}
		return hangUp(w, r)
	})
	<-missed
	<-missed
	s.mend()
	lease, err := s.client.Lease(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	s.await("a renewal", func() bool {
		l, err := s.client.Lease(t.Context(), id)
		return err == nil && l.Renewals > lease.Renewals
	})
	open()
	r.ok()
	if job := s.job(id); job.Stage != fleet.Shipped || job.LeaseEpoch != 1 {
		t.Errorf("got %s at epoch %d, want shipped at 1", job.Stage, job.LeaseEpoch)
	}
}

func TestDrainWaits(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	gate, open := fifo(t)
	c := s.config(`echo '{"comment":"up"}' > $FLEET_STATUS_FILE; cat ` + gate)
	c.Once, c.Seats = false, 2
	claims := make(chan struct{}, 10)
	s.at(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/fleet/claim") {
			claims <- struct{}{}
		}
		return false
	})
	r := s.start(c)
	s.up(id)
	<-claims // the one that was granted the job
	<-claims // for the other seat: it waits
	r.signals <- syscall.SIGTERM
	<-claims // it was broken off, and is asked after
	waiting := s.submit().ID
	open()
	r.ok()
	if got := s.job(id).Stage; got != fleet.Shipped {
		t.Errorf("got %s, want shipped", got)
	}
	if got := s.job(waiting).Stage; got != fleet.Queued {
		t.Errorf("got %s for a job that came later, want queued: no new claims", got)
	}
}

// stopper stops a factory in the moment in which the answer to its claim is there.
type stopper struct{ signals chan os.Signal }

func (s stopper) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || r.URL.Path != "/fleet/claim" {
		return answer, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body = io.NopCloser(bytes.NewReader(body))
	s.signals <- syscall.SIGTERM
	<-r.Context().Done() // it stops
	return answer, err
}

// What is granted in the moment in which a factory is told to stop is given back, not begun.
func TestGrantAtTheStopIsGivenBack(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	ran := filepath.Join(t.TempDir(), "ran")
	c := s.config(`touch ` + ran)
	c.Once = false
	signals := make(chan os.Signal)
	c.Signals = signals
	var err error
	c.Client, err = client.New(client.Config{
		Addresses: []string{s.url}, Token: rootToken, Product: s.client.Product(), HTTPClient: &http.Client{Transport: stopper{signals}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), c); err != nil {
		t.Fatalf("Run: got %v, want no error", err)
	}
	if job := s.job(id); job.Stage != fleet.Queued || job.Attempt != 1 {
		t.Errorf("got %s after %d attempts, want queued after 1", job.Stage, job.Attempt)
	}
	if _, err := os.Stat(ran); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the command ran: %v", err)
	}
}

func TestStopsRelease(t *testing.T) {
	for _, c := range []struct {
		name    string
		drain   Drain
		signals int
	}{{"drain release", DrainRelease, 1}, {"second signal", DrainWait, 2}} {
		t.Run(c.name, func(t *testing.T) {
			s, command := newShop(t), newStubborn(t)
			id := s.submit().ID
			config := s.config(`echo '{"wipCommit":"c1"}' > $FLEET_CHECKPOINT_FILE; ` + command.script)
			config.Once, config.Drain = false, c.drain
			r := s.start(config)
			s.up(id)
			for range c.signals {
				r.signals <- syscall.SIGTERM
			}
			r.ok()
			command.dead("released")
			job, run := s.job(id), s.last(id)
			if job.Stage != fleet.Queued || run.Outcome != fleet.OutcomeReleased || job.Failures != 0 || job.NotBefore != 0 {
				t.Errorf("got %s, run %s, want it released at once", job.Stage, run.Outcome)
			}
			if job.Checkpoint == nil || job.Checkpoint.WipCommit != "c1" {
				t.Errorf("got the checkpoint %v, want c1", job.Checkpoint)
			}
		})
	}
}

// The end of Run's context is a stop like the second signal.
func TestContextReleases(t *testing.T) {
	s, command := newShop(t), newStubborn(t)
	id := s.submit().ID
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, s.config(command.script)) }()
	s.up(id)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want no error", err)
	}
	command.dead("released")
	if run := s.last(id); run.Outcome != fleet.OutcomeReleased {
		t.Errorf("got %s, want released", run.Outcome)
	}
}

// Own stops have the whole grace, for the lease is renewed meanwhile; then comes SIGKILL.
func TestGrace(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	dir := t.TempDir()
	config := s.config(`trap 'date +%s%N > ` + dir + `/term' TERM; echo '{"comment":"up"}' > $FLEET_STATUS_FILE
while :; do date +%s%N > ` + dir + `/now && mv ` + dir + `/now ` + dir + `/last; sleep 0.01; done`)
	config.Drain, config.Lease, config.Grace = DrainRelease, time.Second, 1500*time.Millisecond
	r := s.start(config)
	s.up(id)
	r.signals <- syscall.SIGTERM
	r.ok()
	term, err := strconv.ParseInt(content(t, filepath.Join(dir, "term")), 10, 64)
	last, err2 := strconv.ParseInt(content(t, filepath.Join(dir, "last")), 10, 64)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if lived := time.Duration(last - term); lived < time.Second {
		t.Errorf("got %v between TERM and KILL, want about 1.5 s", lived)
	}
	if run := s.last(id); run.Outcome != fleet.OutcomeReleased {
		t.Errorf("got %s, want released: the lease was kept until the end", run.Outcome)
	}
}

func TestThirdSignalKills(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	pid := filepath.Join(t.TempDir(), "pid")
	r := s.start(s.config(`trap '' TERM; echo $$ > ` + pid + `; echo '{"comment":"up"}' > $FLEET_STATUS_FILE; while :; do sleep 1000; done`))
	s.up(id)
	for range 3 {
		r.signals <- syscall.SIGINT
	}
	if err := r.end(); !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want %v", err, ErrKilled)
	}
	s.await("its death", func() bool { return !alive(t, pid) })
}

// Work that was done when the stop came is reported: only what the stop interrupts is released.
func TestStopAfterTheEndStillReports(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	stop := make(chan struct{})
	config := s.config(`echo '{"result":{"n":1}}' > $FLEET_RESULT_FILE`)
	r := s.start(config)
	s.at(watchReports(func() { // it has ended: now the stops come, before its report arrives
		select {
		case <-stop:
		default:
			close(stop)
			r.signals <- syscall.SIGTERM
			r.signals <- syscall.SIGTERM
		}
	}))
	r.ok()
	if job := s.job(id); job.Stage != fleet.Shipped || job.Result != `{"n":1}` {
		t.Errorf("got %s with %s, want shipped with its result", job.Stage, job.Result)
	}
}

// A process that has ended is not stopped, even if something that it started holds its output.
func TestStopWhileTheOutputIsHeld(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "post-job"), []byte("#!/bin/sh\necho $FLEET_OUTCOME > "+dir+"/outcome"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := s.config(`echo $$ > ` + dir + `/pid; sleep 1000 & exit 3`)
	config.Hooks, config.Drain = dir, DrainRelease
	r := s.start(config)
	s.await("the end of the command", func() bool {
		b, err := os.ReadFile(dir + "/pid")
		return err == nil && len(b) > 0 && !alive(t, dir+"/pid")
	})
	r.signals <- syscall.SIGTERM
	r.ok()
	if run := s.last(id); run.Reason != "exit_3" || content(t, dir+"/outcome") != "failed" {
		t.Errorf("got %s, reason %q, want failed with exit_3", run.Outcome, run.Reason)
	}
}

func TestPostJobRunsAfterAStop(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "post-job"), []byte("#!/bin/sh\necho $FLEET_EXIT $FLEET_OUTCOME > "+dir+"/outcome"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := s.config(`echo '{"comment":"up"}' > $FLEET_STATUS_FILE; exec sleep 1000`)
	config.Hooks, config.Drain = dir, DrainRelease
	r := s.start(config)
	s.up(id)
	r.signals <- syscall.SIGTERM
	r.ok()
	if got := content(t, dir+"/outcome"); got != "143 released" {
		t.Errorf("got %q, want the hook to see 143 released", got)
	}
}

// B31: output without end, children that live on, TERM ignored; the factory stays small and nothing is left.
func TestRunawayCommand(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	dir := t.TempDir()
	config := s.config(`trap '' TERM; (trap '' TERM; echo $(exec sh -c 'echo $PPID') > ` + dir + `/child; exec yes) &
echo '{"comment":"up"}' > $FLEET_STATUS_FILE; exec yes runaway`)
	config.Lease, config.Grace = time.Second, -1
	r := s.start(config)
	s.up(id)
	s.cancel(id)
	r.ok()
	s.await("its child's death", func() bool { return !alive(t, dir+"/child") })
	if job := s.job(id); job.Reason != "cancelled" {
		t.Errorf("got %q, want cancelled", job.Reason)
	}
}

// A server that answers with garbage costs neither the job nor the factory.
func TestGarbageAnswers(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	garbage := 3
	s.at(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || garbage == 0 {
			return false
		}
		garbage--
		_, _ = w.Write([]byte("<html>a proxy's page"))
		return true
	})
	s.run(s.config(`exit 0`))
	if job := s.job(id); job.Stage != fleet.Shipped || garbage != 0 {
		t.Errorf("got %s with %d bad answers left, want shipped", job.Stage, garbage)
	}
	s.submit()
	claims := 0
	s.at(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fleet/claim" {
			return false
		}
		claims++
		_, _ = w.Write([]byte(`{"job":{"id":"j1"}}`))
		return true
	})
	if err := s.start(s.config(`exit 0`)).end(); err == nil || claims != 1 {
		t.Errorf("got %v after %d claims, want an error for a claim without a lease", err, claims)
	}
}
