package worker

// This file tests the table of exit statuses, row by row.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
)

func TestExitTable(t *testing.T) {
	for _, c := range []struct {
		script string
		stage  fleet.Stage
		reason string
		exit   int64
	}{
		{`exit 0`, fleet.Shipped, "", 0},
		{`echo '{"result":{"n":1}}' > $FLEET_RESULT_FILE`, fleet.Shipped, "", 0},
		{`: > $FLEET_RESULT_FILE`, fleet.Shipped, "", 0},
		{`echo '{"stage":"shipped"}' > $FLEET_RESULT_FILE`, fleet.Shipped, "", 0},
		{`exit 1`, fleet.Failed, "exit_1", 1},
		{`exit 123`, fleet.Failed, "exit_123", 123},
		{`echo '{"reason":"tests_red"}' > $FLEET_RESULT_FILE; exit 3`, fleet.Failed, "tests_red", 3},
		{`echo '{"stage":"shipped"}' > $FLEET_RESULT_FILE; exit 3`, fleet.Failed, "exit_3", 3},
		{`exit 78`, fleet.Failed, "bad_config", 78},
		{`echo '{"reason":"mine"}' > $FLEET_RESULT_FILE; exit 78`, fleet.Failed, "bad_config", 78},
		{`exit 124`, fleet.Failed, "timeout", 124},
		{`exit 126`, fleet.Failed, "command_not_runnable", 126},
		{`exit 127`, fleet.Failed, "command_not_found", 127},
		{`exit 137`, fleet.Failed, "signal_KILL", 137},
		{`kill -9 $$`, fleet.Failed, "signal_KILL", 137},
		{`kill -TERM $$`, fleet.Failed, "signal_TERM", 143},
		{`kill -SEGV $$`, fleet.Failed, "signal_SEGV", 139},
		{`echo '{"stage":' > $FLEET_RESULT_FILE; kill -9 $$`, fleet.Failed, "signal_KILL", 137},
		{`exit 255`, fleet.Failed, "exit_255", 255},
		{`echo '{"stage":' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"stage":' > $FLEET_RESULT_FILE; exit 3`, fleet.Failed, "bad_result", 3},
		{`echo '{"stage":"assigned"}' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"insights":{"turns":-1}}' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`mkfifo $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"stage":"failed","reason":"no"}' > $FLEET_RESULT_FILE`, fleet.Failed, "no", 0},
	} {
		t.Run(c.script, func(t *testing.T) {
			s := newShop(t)
			id := s.submit().ID
			s.run(s.config(c.script))
			job, run := s.job(id), s.last(id)
			if job.Stage != c.stage || job.Reason != c.reason || run.Exit == nil || *run.Exit != c.exit {
				t.Errorf("got %s %q exit %v, want %s %q exit %d", job.Stage, job.Reason, run.Exit, c.stage, c.reason, c.exit)
			}
			if s.happened(id, fleet.EventReleased) {
				t.Errorf("got a release, want none")
			}
		})
	}
}

func TestBadResultSaysWhatIsWrong(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`echo '{"stage":}' > $FLEET_RESULT_FILE`))
	if got := string(s.last(id).Result); !strings.Contains(got, `"error":`) || !strings.Contains(got, "offset") {
		t.Errorf("got the result %s, want the parse error", got)
	}
}

func TestGateParks(t *testing.T) {
	for _, stage := range []fleet.Stage{fleet.Review, fleet.Testing} {
		t.Run(string(stage), func(t *testing.T) {
			s := newShop(t)
			id := s.submit().ID
			s.run(s.config(`echo '{"stage":"` + string(stage) + `"}' > $FLEET_RESULT_FILE`))
			lease, err := s.client.Lease(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if job, run := s.job(id), s.last(id); job.Stage != stage || lease.Status != fleet.LeaseReleased || run.Outcome != fleet.OutcomeParked {
				t.Errorf("got %s, lease %s, run %s, want it parked in %s", job.Stage, lease.Status, run.Outcome, stage)
			}
		})
	}
}

func TestTempFailReleasesWithDelay(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`exit 1`)) // registers; the job fails
	if _, err := s.client.Requeue(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	claim, err := s.client.Claim(t.Context(), fleet.ClaimRequest{FactoryID: "f1"})
	if err != nil || claim == nil {
		t.Fatalf("claiming: got %v, %v", claim, err)
	}
	if _, err := s.client.Release(t.Context(), id, fleet.ReleaseRequest{LeaseEpoch: claim.Lease.LeaseEpoch}); err != nil {
		t.Fatal(err)
	}
	s.run(s.config(`echo '{"wipCommit":"c1"}' > $FLEET_CHECKPOINT_FILE
echo '{"insights":{"turns":7}}' > $FLEET_RESULT_FILE; exit 75`))
	job, run := s.job(id), s.last(id)
	if delay := job.NotBefore.Sub(job.UpdatedAt); job.Stage != fleet.Queued || run.Outcome != fleet.OutcomeReleased || delay != 20*time.Second {
		t.Errorf("got %s, run %s, delay %v, want it released for 20 s: the third attempt", job.Stage, run.Outcome, delay)
	}
	if job.Checkpoint == nil || job.Checkpoint.WipCommit != "c1" {
		t.Errorf("got the checkpoint %v, want c1 kept", job.Checkpoint)
	}
	if run.Insights.Turns == nil || *run.Insights.Turns != 7 {
		t.Errorf("got the insights %+v, want what the attempt cost", run.Insights)
	}
	if job.Failures != 0 {
		t.Errorf("got %d failures, want none since the requeue", job.Failures)
	}
	for attempt, want := range map[int64]time.Duration{1: 5, 2: 10, 6: 160, 7: 300, 90: 300} {
		if got := retryDelay(attempt); got != want*time.Second {
			t.Errorf("retryDelay(%d): got %v, want %v s", attempt, got, int64(want))
		}
	}
}

// A job that was called into review, and is then not done, goes back into the line and not to a human.
func TestTempFailOutOfReview(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`echo '{"stage":"review"}' > $FLEET_STATUS_FILE; exit 75`))
	if job := s.job(id); job.Stage != fleet.Queued {
		t.Errorf("got %s, want queued", job.Stage)
	}
}

func TestNotFoundDegrades(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command string
		cwd     string
		reason  string
		exit    int64
	}{
		{"not found", "no-such-program-here", "", "command_not_found", 127},
		{"not found by path", "./no-such-program-here", "", "command_not_found", 127},
		{"not runnable", plain, "", "command_not_runnable", 126},
		{"no such directory", "true", filepath.Join(dir, "missing"), "command_not_runnable", 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			id := s.submit().ID
			config := s.config("")
			config.Once, config.Command, config.Cwd = false, []string{c.command}, c.cwd
			ctx := s.start(config)
			s.await("a degraded factory", func() bool {
				f, err := s.client.Factory(t.Context(), "f1")
				return err == nil && f.Health == fleet.HealthDegraded
			})
			ctx.signals <- os.Interrupt
			ctx.ok()
			if job, run := s.job(id), s.last(id); job.Reason != c.reason || run.Exit == nil || *run.Exit != c.exit {
				t.Errorf("got %q exit %v, want %s %d", job.Reason, run.Exit, c.reason, c.exit)
			}
		})
	}
}

// A factory that can run commands again is ok again.
func TestHealthComesBack(t *testing.T) {
	s := newShop(t)
	s.submit()
	config := s.config("")
	config.Once = false
	program := filepath.Join(t.TempDir(), "program")
	config.Command = []string{program}
	s.start(config)
	health := func(want fleet.Health) func() bool {
		return func() bool {
			f, err := s.client.Factory(t.Context(), "f1")
			return err == nil && f.Health == want
		}
	}
	s.await("a degraded factory", health(fleet.HealthDegraded))
	if err := os.Symlink("/bin/true", program); err != nil {
		t.Fatal(err)
	}
	s.submit()
	s.await("an ok factory", health(fleet.HealthOK))
}

func TestNothing(t *testing.T) {
	s := newShop(t)
	if err := s.start(s.config(`exit 1`)).end(); !errors.Is(err, ErrNothing) {
		t.Errorf("got %v, want %v", err, ErrNothing)
	}
}

func TestOOMKills(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := oomKills(root); got != 0 {
		t.Errorf("without cgroups: got %d, want 0", got)
	}
	write("proc/self/cgroup", "12:memory:/old\n0::/a.slice/b.service\n")
	write("sys/fs/cgroup/a.slice/b.service/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n")
	if got := oomKills(root); got != 2 {
		t.Errorf("got %d, want 2", got)
	}
	for _, c := range []struct {
		outcome       Outcome
		before, after int
		want          string
	}{
		{Outcome{Reason: "signal_KILL"}, 2, 3, "oom_killed"},
		{Outcome{Reason: "signal_KILL"}, 2, 2, "signal_KILL"},
		{Outcome{Reason: "exit_1"}, 2, 3, "exit_1"}, // it lost a child, and lived to say so
	} {
		if got := blameMemory(c.outcome, c.before, c.after).Reason; got != c.want {
			t.Errorf("%s with %d kills before and %d after: got %s, want %s", c.outcome.Reason, c.before, c.after, got, c.want)
		}
	}
}
