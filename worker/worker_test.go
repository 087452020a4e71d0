package worker

// This file tests a factory with real processes against an API of its own.

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

func run(t *testing.T, c Config) {
	t.Helper()
	if err := Run(t.Context(), c); err != nil {
		t.Fatalf("Run: got %v, want no error", err)
	}
}

func TestExitTable(t *testing.T) {
	for _, c := range []struct {
		script string
		stage  fleet.Stage
		reason string
		exit   int64
	}{
		{`exit 0`, fleet.Shipped, "", 0},
		{`echo '{"result":{"n":1}}' > $FLEET_RESULT_FILE`, fleet.Shipped, "", 0},
		{`exit 1`, fleet.Failed, "exit_1", 1},
		{`echo '{"reason":"tests_red"}' > $FLEET_RESULT_FILE; exit 3`, fleet.Failed, "tests_red", 3},
		{`exit 78`, fleet.Failed, "bad_config", 78},
		{`exit 124`, fleet.Failed, "timeout", 124},
		{`exit 126`, fleet.Failed, "command_not_runnable", 126},
		{`exit 127`, fleet.Failed, "command_not_found", 127},
		{`exit 137`, fleet.Failed, "signal_KILL", 137},
		{`kill -9 $$`, fleet.Failed, "signal_KILL", 137},
		{`kill -TERM $$`, fleet.Failed, "signal_TERM", 143},
		{`exit 255`, fleet.Failed, "exit_255", 255},
		{`echo '{"stage":' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"stage":"assigned"}' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"insights":{"turns":-1}}' > $FLEET_RESULT_FILE`, fleet.Failed, "bad_result", 0},
		{`echo '{"stage":"failed","reason":"no"}' > $FLEET_RESULT_FILE`, fleet.Failed, "no", 0},
	} {
		t.Run(c.script, func(t *testing.T) {
			a := newAPI(t, newJob())
			run(t, a.config(c.script))
			got := a.final()
			if got.Stage != c.stage || got.Reason != c.reason || got.Exit == nil || *got.Exit != c.exit {
				t.Errorf("got %s %q exit %v, want %s %q exit %d", got.Stage, got.Reason, got.Exit, c.stage, c.reason, c.exit)
			}
			if len(a.released) != 0 {
				t.Errorf("got a release, want none")
			}
		})
	}
}

func TestGateParks(t *testing.T) {
	a := newAPI(t, newJob())
	run(t, a.config(`echo '{"stage":"review"}' > $FLEET_RESULT_FILE`))
	if got := a.final(); got.Stage != fleet.Review || len(a.released) != 1 {
		t.Errorf("got %s and %d releases, want review and one", got.Stage, len(a.released))
	}
}

func TestTempFailReleasesWithDelay(t *testing.T) {
	job := newJob()
	job.Attempt = 2
	a := newAPI(t, job)
	run(t, a.config(`exit 75`))
	if len(a.reports) != 0 || len(a.released) != 1 || a.released[0].DelaySeconds != 20 {
		t.Errorf("got reports %v, releases %+v, want one release with 20 s: the third attempt", a.reports, a.released)
	}
	for attempt, want := range map[int64]time.Duration{1: 5, 6: 160, 7: 300, 90: 300} {
		if got := retryDelay(attempt); got != want*time.Second {
			t.Errorf("retryDelay(%d): got %v, want %v s", attempt, got, int64(want))
		}
	}
}

func TestNothing(t *testing.T) {
	a := newAPI(t, nil)
	if err := Run(t.Context(), a.config(`exit 1`)); !errors.Is(err, ErrNothing) {
		t.Errorf("got %v, want %v", err, ErrNothing)
	}
}

func TestNotFoundDegrades(t *testing.T) {
	a := newAPI(t, newJob())
	c := a.config("")
	c.Once, c.Command = false, []string{"no-such-program-here"}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, c) }()
	a.await("a degraded heartbeat", func() bool { return slices.Contains(a.health, fleet.HealthDegraded) })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := a.final(); got.Reason != "command_not_found" || *got.Exit != 127 {
		t.Errorf("got %q exit %d, want command_not_found 127", got.Reason, *got.Exit)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("FLEET_TOKEN", "flt_hidden")
	job := newJob()
	job.ManifestSnapshot = `{"cwd":"./x y","yolo":true,"maxTurns":12,"deep":{"no":1},"n":null}`
	job.EngineClass, job.Profile, job.IdempotencyKey = "codex", "coder@3", "k"
	job.Checkpoint = &fleet.Checkpoint{WipBranch: "b"}
	job.Labels = fleet.LabelsOf(map[string]string{"traceparent": "00-1"})
	wall := int64(60)
	job.Budget = &fleet.Budget{Wall: &wall}
	a := newAPI(t, job)
	a.profile = `{"model":"m"}`
	var out bytes.Buffer
	c := a.config(`env; cat $FLEET_BODY_FILE $FLEET_PROFILE_FILE $FLEET_CHECKPOINT_FILE; grep -c bodyMd $FLEET_JOB_FILE; cat; exit 1`)
	c.Output, c.StdinBody = &out, true
	run(t, c)
	text := out.String()
	for _, want := range []string{
		"FLEET=1", "FLEET_ADDR=" + a.server.URL, "FLEET_PRODUCT=p", "FLEET_JOB_ID=" + job.ID, "FLEET_RUN_ID=" + job.ID + "-1",
		"FLEET_ATTEMPT=1", "FLEET_LEASE_EPOCH=3", "FLEET_FACTORY_ID=f1", "FLEET_SEAT=0", "FLEET_PRIORITY=high",
		"FLEET_ENGINE=codex", "FLEET_PROFILE=coder@3", "FLEET_IDEMPOTENCY_KEY=k", "TRACEPARENT=00-1",
		"FLEET_META_CWD=./x y", "FLEET_META_YOLO=true", "FLEET_META_MAX_TURNS=12", `{"model":"m"}{"wipBranch":"b"}1`,
	} {
		if !strings.Contains(text, "01JA…Z7│ "+want+"\n") {
			t.Errorf("got no line %q in\n%s", want, text)
		}
	}
	if strings.Count(text, "Fix it.") != 2 {
		t.Errorf("want the body from the file and from standard input in\n%s", text)
	}
	for _, never := range []string{"FLEET_TOKEN", "flt_hidden", "FLEET_PARENT_ID", "FLEET_META_DEEP", "FLEET_META_N="} {
		if strings.Contains(text, never) {
			t.Errorf("got %s in the output", never)
		}
	}
	if !strings.Contains(text, "FLEET_DEADLINE=20") {
		t.Error("got no FLEET_DEADLINE")
	}
}

func TestTailIsMaskedAndTheDirectoryGone(t *testing.T) {
	t.Setenv("MY_TOKEN", "hunter2-hunter2")
	a := newAPI(t, newJob())
	where := filepath.Join(t.TempDir(), "where")
	t.Setenv("WHERE", where)
	c := a.config(`dirname $FLEET_LOG_FILE > $WHERE
i=0; while [ $i -lt 2000 ]; do echo "line $i $MY_TOKEN"; i=$((i+1)); done
echo "{\"comment\":\"see $MY_TOKEN\"}" > $FLEET_STATUS_FILE
echo '{"result":{"a":1}}' > $FLEET_RESULT_FILE; echo end >&2; exit 1`)
	run(t, c)
	result := string(a.final().Result)
	if strings.Contains(result, "hunter2") || !strings.Contains(result, "[masked]") || !strings.Contains(result, `end\n"`) ||
		!strings.Contains(result, `"a":1`) || len(result) > 2*tailBytes {
		t.Errorf("got the result %s", result)
	}
	if want := []string{`{"text":"see [masked]"}`}; !slices.Equal(a.comments, want) {
		t.Errorf("got comments %q, want %q", a.comments, want)
	}
	dir, err := os.ReadFile(where)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(strings.TrimSpace(string(dir))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for the run's directory, want it gone", err)
	}
}

func TestCheckpointAndStatusWhileRunning(t *testing.T) {
	a := newAPI(t, newJob())
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	c := a.config(`echo '{"wipCommit":"c1"}' > $FLEET_CHECKPOINT_FILE
echo '{"stage":"building"}' >> $FLEET_STATUS_FILE; echo '{"insights":{"turns":3}}' >> $FLEET_STATUS_FILE
echo nonsense >> $FLEET_STATUS_FILE; cat ` + gate + `; echo '{"wipCommit":"c2"}' > $FLEET_CHECKPOINT_FILE`)
	done := make(chan error)
	go func() { done <- Run(t.Context(), c) }()
	saved := func(commit string) func() bool {
		return func() bool {
			return slices.ContainsFunc(a.reports, func(r fleet.Report) bool { return r.Checkpoint != nil && r.Checkpoint.WipCommit == commit })
		}
	}
	a.await("the first checkpoint", saved("c1"))
	a.await("the stage", func() bool { return a.job.Stage == fleet.Building })
	a.await("the insights", func() bool {
		return slices.ContainsFunc(a.reports, func(r fleet.Report) bool { return r.Insights != nil && *r.Insights.Turns == 3 })
	})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.await("the last checkpoint", saved("c2"))
	if got := a.final(); got.Stage != fleet.Shipped {
		t.Errorf("got %s, want shipped", got.Stage)
	}
}

// A parent that ends on TERM, and its child that ignores TERM and holds the output.
const stubborn = `(trap '' TERM; echo $(exec sh -c 'echo $PPID') > $PIDS; exec sleep 1000) &
while [ ! -s $PIDS ]; do :; done
echo '{"comment":"up"}' > $FLEET_STATUS_FILE
trap 'cat $FLEET_STOP_FILE > $STOPPED; exit 0' TERM
wait`

func stubbornConfig(t *testing.T, a *api) (c Config, pids, stopped string) {
	t.Helper()
	pids, stopped = filepath.Join(t.TempDir(), "pids"), filepath.Join(t.TempDir(), "stopped")
	t.Setenv("PIDS", pids)
	t.Setenv("STOPPED", stopped)
	c = a.config(stubborn)
	c.Lease, c.Grace = 3*time.Second, time.Second
	a.ttl = 3
	return c, pids, stopped
}

func dead(t *testing.T, pids string) {
	t.Helper()
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Fatalf("process %d still runs: %s", pid, stat)
		}
	}
}

func TestLostLeaseKillsAndReportsNothing(t *testing.T) {
	for _, c := range []struct{ reason, word string }{{"cancelled", "cancelled"}, {"lease_expired", "lease_lost"}} {
		t.Run(c.reason, func(t *testing.T) {
			a := newAPI(t, newJob())
			config, pids, stopped := stubbornConfig(t, a)
			done := make(chan error)
			go func() { done <- Run(t.Context(), config) }()
			a.await("the command", func() bool { return len(a.comments) > 0 })
			stage := fleet.Failed
			if c.reason == "lease_expired" {
				stage = fleet.Queued
			}
			a.fence(stage, c.reason)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			dead(t, pids)
			if word, err := os.ReadFile(stopped); string(word) != c.word {
				t.Errorf("got the stop file %q (%v), want %q", word, err, c.word)
			}
			if len(a.reports)+len(a.released) != 0 {
				t.Errorf("got reports %v and releases %v, want none", a.reports, a.released)
			}
		})
	}
}

func TestUnreachableClusterStopsTheCommand(t *testing.T) {
	a := newAPI(t, newJob())
	config, pids, stopped := stubbornConfig(t, a)
	done := make(chan error)
	go func() { done <- Run(t.Context(), config) }()
	a.await("the command", func() bool { return len(a.comments) > 0 })
	a.server.CloseClientConnections()
	a.server.Listener.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	dead(t, pids)
	if word, _ := os.ReadFile(stopped); string(word) != "lease_lost" {
		t.Errorf("got the stop file %q, want lease_lost", word)
	}
}

func TestDrainWaits(t *testing.T) {
	a := newAPI(t, newJob())
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	c := a.config(`echo '{"comment":"up"}' > $FLEET_STATUS_FILE; cat ` + gate)
	signals := make(chan os.Signal)
	c.Once, c.Signals = false, signals
	done := make(chan error)
	go func() { done <- Run(t.Context(), c) }()
	a.await("the command", func() bool { return len(a.comments) > 0 })
	signals <- syscall.SIGTERM
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := a.final(); got.Stage != fleet.Shipped {
		t.Errorf("got %s, want shipped", got.Stage)
	}
}

func TestStopsRelease(t *testing.T) {
	for name, signalCount := range map[string]int{"drain release": 1, "second signal": 2} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t, newJob())
			config, pids, stopped := stubbornConfig(t, a)
			signals := make(chan os.Signal)
			config.Once, config.Signals = false, signals
			if signalCount == 1 {
				config.Drain = DrainRelease
			}
			done := make(chan error)
			go func() { done <- Run(t.Context(), config) }()
			a.await("the command", func() bool { return len(a.comments) > 0 })
			for range signalCount {
				signals <- syscall.SIGTERM
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			dead(t, pids)
			if word, _ := os.ReadFile(stopped); string(word) != "released" || len(a.released) != 1 || len(a.reports) != 0 {
				t.Errorf("got the stop file %q, releases %v, reports %v, want one release", word, a.released, a.reports)
			}
		})
	}
}

func TestThirdSignalKills(t *testing.T) {
	a := newAPI(t, newJob())
	c := a.config(`trap '' TERM; echo '{"comment":"up"}' > $FLEET_STATUS_FILE; while :; do sleep 1000; done`)
	signals := make(chan os.Signal)
	c.Signals = signals
	done := make(chan error)
	go func() { done <- Run(t.Context(), c) }()
	a.await("the command", func() bool { return len(a.comments) > 0 })
	for range 3 {
		signals <- syscall.SIGINT
	}
	if err := <-done; !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want %v", err, ErrKilled)
	}
}

func TestHooks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, script string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write("post-job", `echo "post $FLEET_EXIT $FLEET_OUTCOME"; exit 9`)
	for _, c := range []struct {
		pre, post, reason string
		released          int
	}{
		{"exit 0", "post 0 shipped", "", 0},
		{"exit 4", "post 4 failed", "pre_job_hook", 0},
		{"exit 75", "post 75 released", "", 1},
	} {
		write("pre-job", c.pre)
		a := newAPI(t, newJob())
		config := a.config(`exit 0`)
		var out bytes.Buffer
		config.Hooks, config.Output = dir, &out
		run(t, config)
		if !strings.Contains(out.String(), c.post) || len(a.released) != c.released {
			t.Errorf("%s: got %q, %d releases, want %q, %d", c.pre, out.String(), len(a.released), c.post, c.released)
		}
		if c.released == 0 && a.final().Reason != c.reason {
			t.Errorf("%s: got reason %q, want %q", c.pre, a.final().Reason, c.reason)
		}
	}
}

func TestHandler(t *testing.T) {
	a := newAPI(t, newJob())
	c := a.config("")
	c.Command = nil
	c.Handler = func(ctx context.Context, task *Task) (Outcome, error) {
		if err := task.Progress(ctx, fleet.Building); err != nil {
			return Outcome{}, err
		}
		return Outcome{}, errors.New("out of luck")
	}
	run(t, c)
	if got := a.final(); got.Stage != fleet.Failed || got.Reason != "error" || got.Result != `{"error":"out of luck"}` {
		t.Errorf("got %+v, want failed with the error", got)
	}
}

func TestCaptureDropsTheMiddle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := newCapture(path, &terminal{out: &bytes.Buffer{}}, "job")
	if err != nil {
		t.Fatal(err)
	}
	c.limit = 400
	for i := range 100 {
		_, _ = c.Write([]byte(strconv.Itoa(1000+i) + "=====\n"))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, "1000=") || !strings.HasSuffix(text, "1099=====\n") || !strings.Contains(text, "bytes were dropped here") || strings.Contains(text, "1050") {
		t.Errorf("got %s", text)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := newAPI(t, nil).config("x")
	for name, spoil := range map[string]func(*Config){
		"client": func(c *Config) { c.Client = (*client.Client)(nil) }, "id": func(c *Config) { c.FactoryID = "" },
		"command": func(c *Config) { c.Command = nil }, "drain": func(c *Config) { c.Drain = "x" },
		"lease": func(c *Config) { c.Lease = time.Millisecond }, "seats": func(c *Config) { c.Seats = -1 },
	} {
		bad := good
		spoil(&bad)
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
