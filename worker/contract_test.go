package worker

// This file tests what a command is given, and what it says by files: environment, files, output, hooks.

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
)

// environment runs `env` for a job and returns what it printed, by name.
func environment(t *testing.T, s *shop, c Config) map[string]string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "env")
	c.Command = []string{"sh", "-c", "env -0 > " + out}
	s.run(c)
	variables := map[string]string{}
	for _, pair := range strings.Split(content(t, out), "\x00") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			variables[name] = value
		}
	}
	return variables
}

func TestEnvironment(t *testing.T) {
	s := newShop(t)
	if _, err := s.client.PutProfile(t.Context(), fleet.ProfileRequest{Name: "coder", Snapshot: `{"model":"m"}`}); err != nil {
		t.Fatal(err)
	}
	parent := s.submit(func(j *fleet.Submission) { j.Kind, j.Capabilities = fleet.Composite, nil })
	job := s.submit(func(j *fleet.Submission) {
		j.ManifestSnapshot = `{"cwd":"./x y","yolo":true,"maxTurns":12,"deep":{"no":1},"n":null,"list":[1],"kebab-case":"k","empty":"","pi":3.10}`
		j.EngineClass, j.Profile, j.IdempotencyKey, j.TrackerItemID, j.ParentID = "codex", "coder", "k", "T-1", parent.ID
		j.Labels = fleet.LabelsOf(map[string]string{"traceparent": "00-1"})
		wall := int64(60)
		j.Budget = &fleet.Budget{Wall: &wall}
	})
	c := s.config("")
	c.Engines = []string{"codex"}
	got := environment(t, s, c)
	run := s.last(job.ID)
	for name, want := range map[string]string{
		"FLEET": "1", "FLEET_ADDR": s.url, "FLEET_PRODUCT": s.client.Product(),
		"FLEET_JOB_ID": job.ID, "FLEET_RUN_ID": run.ID, "FLEET_ATTEMPT": "1", "FLEET_LEASE_EPOCH": "1", "FLEET_FACTORY_ID": "f1", "FLEET_SEAT": "0",
		"FLEET_PRIORITY": "high", "FLEET_ENGINE": "codex", "FLEET_PROFILE": "coder", "FLEET_IDEMPOTENCY_KEY": "k",
		"FLEET_TRACKER_ITEM_ID": "T-1", "FLEET_PARENT_ID": parent.ID, "TRACEPARENT": "00-1",
		"FLEET_META_CWD": "./x y", "FLEET_META_YOLO": "true", "FLEET_META_MAX_TURNS": "12", "FLEET_META_KEBAB_CASE": "k", "FLEET_META_PI": "3.10",
		"FLEET_DEADLINE": run.StartedAt.Add(60).Time().Format(time.RFC3339),
		"PLAIN":          "passed on", "MY_TOKEN": "hunter2-hunter2",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	for _, never := range []string{"FLEET_TOKEN", "FLEET_META_DEEP", "FLEET_META_N", "FLEET_META_LIST", "FLEET_META_EMPTY"} {
		if value, there := got[never]; there {
			t.Errorf("got %s=%s, want none", never, value)
		}
	}
	for name, value := range got {
		if strings.Contains(value, rootToken) {
			t.Errorf("got the factory's token in %s", name)
		}
		if strings.HasSuffix(name, "_FILE") && strings.HasPrefix(name, "FLEET_") && !filepath.IsAbs(value) {
			t.Errorf("%s: got %q, want an absolute path", name, value)
		}
	}
}

func TestEnvironmentHasNothingWithoutAValue(t *testing.T) {
	s := newShop(t)
	s.submit()
	got := environment(t, s, s.config(""))
	for _, name := range []string{
		"FLEET_TOKEN", "FLEET_ENGINE", "FLEET_PROFILE", "FLEET_PROFILE_FILE", "FLEET_IDEMPOTENCY_KEY", "FLEET_TRACKER_ITEM_ID",
		"FLEET_PARENT_ID", "TRACEPARENT", "FLEET_DEADLINE",
	} {
		if value, there := got[name]; there {
			t.Errorf("got %s=%q, want none", name, value)
		}
	}
}

func TestPassToken(t *testing.T) {
	s := newShop(t)
	s.submit()
	c := s.config("")
	c.PassToken = "flt_given"
	if got := environment(t, s, c)["FLEET_TOKEN"]; got != "flt_given" {
		t.Errorf("got FLEET_TOKEN=%q, want the token", got)
	}
}

// A manifest that is too large for an environment is no reason not to run.
func TestHugeManifest(t *testing.T) {
	s := newShop(t)
	id := s.submit(func(j *fleet.Submission) {
		j.ManifestSnapshot = fleet.JSON(`{"small":"s","prompt":"` + strings.Repeat("x", 300_000) + `"}`)
	}).ID
	s.run(s.config(`[ "$FLEET_META_SMALL" = s ] && [ -z "$FLEET_META_PROMPT" ] && grep -q xxxxx $FLEET_JOB_FILE`))
	if job := s.job(id); job.Stage != fleet.Shipped {
		t.Errorf("got %s, reason %s, want shipped", job.Stage, job.Reason)
	}
}

func TestSeats(t *testing.T) {
	s := newShop(t)
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	for range 3 {
		s.submit()
	}
	c := s.config(`touch ` + dir + `/seat-$FLEET_SEAT; while [ ! -e ` + gate + ` ]; do sleep 0.01; done`)
	c.Once, c.Seats = false, 3
	s.start(c)
	s.await("a job in each seat", func() bool {
		seats, _ := filepath.Glob(dir + "/seat-[012]")
		return len(seats) == 3
	})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	s := newShop(t)
	if _, err := s.client.PutProfile(t.Context(), fleet.ProfileRequest{Name: "coder", Snapshot: `{"model":"m"}`}); err != nil {
		t.Fatal(err)
	}
	id := s.submit(func(j *fleet.Submission) { j.Profile, j.Checkpoint = "coder", &fleet.Checkpoint{WipBranch: "b"} }).ID
	out := t.TempDir()
	c := s.config(`cat > ` + out + `/stdin
cp $FLEET_BODY_FILE ` + out + `/body; cp $FLEET_PROFILE_FILE ` + out + `/profile; cp $FLEET_CHECKPOINT_FILE ` + out + `/checkpoint
cp $FLEET_JOB_FILE ` + out + `/job; stat -c %a $(dirname $FLEET_JOB_FILE) > ` + out + `/mode
dirname $FLEET_JOB_FILE > ` + out + `/where; ls $(dirname $FLEET_JOB_FILE) > ` + out + `/list; echo said; cp $FLEET_LOG_FILE ` + out + `/log`)
	c.StdinBody = true
	s.run(c)
	for name, want := range map[string]string{
		"profile": `{"model":"m"}`, "checkpoint": `{"wipBranch":"b"}`, "mode": "700", "log": "said",
		"list": "body.md\ncheckpoint.json\njob.json\nlog\nprofile.json",
	} {
		if got := content(t, filepath.Join(out, name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"body", "stdin"} {
		if b, err := os.ReadFile(filepath.Join(out, name)); string(b) != "Fix it.\r\n" {
			t.Errorf("%s: got %q (%v), want the body's bytes", name, b, err)
		}
	}
	for _, want := range []string{`"id": "` + id + `"`, `"stage": "assigned"`, `"bodyMd": "Fix it.\r\n"`} {
		if got := content(t, filepath.Join(out, "job")); !strings.Contains(got, want) {
			t.Errorf("got the job file %s, want %s in it", got, want)
		}
	}
	if _, err := os.Stat(content(t, filepath.Join(out, "where"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for the run's directory, want it gone", err)
	}
}

func TestNoCheckpointNoFile(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`[ -n "$FLEET_CHECKPOINT_FILE" ] && [ ! -e "$FLEET_CHECKPOINT_FILE" ] && [ ! -e "$FLEET_STOP_FILE" ]`))
	if job := s.job(id); job.Stage != fleet.Shipped {
		t.Errorf("got %s, want shipped: no file without a checkpoint", job.Stage)
	}
}

func TestKeepKeepsTheDirectory(t *testing.T) {
	s := newShop(t)
	s.submit()
	where := filepath.Join(t.TempDir(), "where")
	c := s.config(`dirname $FLEET_JOB_FILE > ` + where + `; echo said`)
	c.Keep = true
	s.run(c)
	dir := content(t, where)
	defer os.RemoveAll(dir)
	if got := content(t, filepath.Join(dir, "log")); got != "said" {
		t.Errorf("got the log %q in the kept directory, want what was said", got)
	}
}

// The directory is there until the report is made, and then it goes.
func TestDirectoryOutlivesTheReport(t *testing.T) {
	s := newShop(t)
	s.submit()
	where := filepath.Join(t.TempDir(), "where")
	reported := make(chan error, 10)
	s.at(watchReports(func() {
		_, err := os.Stat(content(t, where))
		reported <- err
	}))
	s.run(s.config(`dirname $FLEET_JOB_FILE > ` + where))
	if err := <-reported; err != nil {
		t.Errorf("at the report: got %v, want the directory", err)
	}
	if _, err := os.Stat(content(t, where)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after it: got %v, want it gone", err)
	}
}

func TestCheckpointAndStatusWhileRunning(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	gate, open := fifo(t)
	r := s.start(s.config(`echo '{"wipCommit":"c1"}' > $FLEET_CHECKPOINT_FILE
echo '{"stage":"building"}' >> $FLEET_STATUS_FILE; echo '{"insights":{"turns":3}}' >> $FLEET_STATUS_FILE
echo nonsense >> $FLEET_STATUS_FILE; echo '{"stage":"shipped"}' >> $FLEET_STATUS_FILE; echo '{"coment":"typo"}' >> $FLEET_STATUS_FILE
echo '{"stage":"review"}' >> $FLEET_STATUS_FILE; printf '{"comment":"last ' >> $FLEET_STATUS_FILE
cat ` + gate + `; echo '{"wipCommit":"c2"}' > $FLEET_CHECKPOINT_FILE; printf 'words"}' >> $FLEET_STATUS_FILE`))
	s.await("the first checkpoint", func() bool { c := s.job(id).Checkpoint; return c != nil && c.WipCommit == "c1" })
	s.await("the stages", func() bool { return s.job(id).Stage == fleet.Review })
	if got := s.data(id, fleet.EventStageChanged); len(got) != 2 {
		t.Errorf("got stage changes %s, want building and review", got)
	}
	if turns := s.last(id).Insights.Turns; turns == nil || *turns != 3 {
		t.Errorf("got %v turns, want 3", turns)
	}
	if got := s.data(id, fleet.EventComment); len(got) != 0 {
		t.Errorf("got comments %s from half a line, want none", got)
	}
	open()
	r.ok()
	job := s.job(id)
	if job.Stage != fleet.Shipped || job.Checkpoint.WipCommit != "c2" {
		t.Errorf("got %s with checkpoint %v, want shipped with c2", job.Stage, job.Checkpoint)
	}
	if got := s.data(id, fleet.EventCheckpointSaved); len(got) != 2 {
		t.Errorf("got %d checkpoint_saved, want 2", len(got))
	}
	if got := s.data(id, fleet.EventComment); len(got) != 1 || !strings.Contains(got[0], `"text":"last words"`) {
		t.Errorf("got comments %s, want the last words", got)
	}
}

// A status file that is written anew, not appended to, is heard too.
func TestStatusFileBegunAnew(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	gate, open := fifo(t)
	r := s.start(s.config(`echo '{"comment":"a long first comment"}' > $FLEET_STATUS_FILE; cat ` + gate + `; echo '{"comment":"2"}' > $FLEET_STATUS_FILE`))
	s.up(id)
	open()
	r.ok()
	if got := s.data(id, fleet.EventComment); len(got) != 2 {
		t.Errorf("got comments %s, want 2", got)
	}
}

func TestResultFile(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`cat > $FLEET_RESULT_FILE <<'END'
{"result":{"n":1.50},"verifyResult":["ok"],"insights":{"turns":4,"costUsd":0.25},
 "artifacts":[{"name":"patch","kind":"diff","uri":"file:///tmp/patch","sizeBytes":3}]}
END`))
	run := s.last(id)
	if run.Result != `{"n":1.50}` || run.VerifyResult != `["ok"]` || *run.Insights.Turns != 4 || run.Insights.CostUSD.String() != "0.25" {
		t.Errorf("got %+v, want what the file says", run)
	}
	artifacts, err := s.client.Artifacts(t.Context(), id)
	if err != nil || len(artifacts) != 1 || artifacts[0].Name != "patch" || artifacts[0].RunID != run.ID {
		t.Errorf("got the artifacts %v, %v, want patch", artifacts, err)
	}
}

// A slip of the pen in the result file is said where people look.
func TestUnknownResultMemberIsSaid(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	var out lines
	c := s.config(`echo '{"stagee":"review"}' > $FLEET_RESULT_FILE`)
	c.Output = &out
	s.run(c)
	if !strings.Contains(out.String(), `"stagee"`) || s.job(id).Stage != fleet.Shipped {
		t.Errorf("got %s and %q, want shipped with a word about stagee", s.job(id).Stage, out.String())
	}
}

func TestTailIsMasked(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`i=0; while [ $i -lt 2000 ]; do echo "line $i $MY_TOKEN"; i=$((i+1)); done
echo "{\"comment\":\"see $MY_TOKEN\"}" > $FLEET_STATUS_FILE
echo '{"result":{"a":1}}' > $FLEET_RESULT_FILE; echo end >&2; exit 1`))
	result := string(s.last(id).Result)
	if strings.Contains(result, "hunter2") || !strings.Contains(result, "[masked]") || !strings.Contains(result, `end\n"`) ||
		!strings.Contains(result, `"a":1`) || !strings.Contains(result, `"tail":"`) || len(result) > 2*tailBytes {
		t.Errorf("got the result %s", result)
	}
	if got := s.data(id, fleet.EventComment); len(got) != 1 || !strings.Contains(got[0], `see [masked]`) {
		t.Errorf("got comments %q, want it masked", got)
	}
}

func TestNoTailOfASuccess(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	s.run(s.config(`echo said`))
	if got := s.last(id).Result; got != "" {
		t.Errorf("got the result %s, want none", got)
	}
}

func TestOutputHasThePrefix(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	var out lines
	c := s.config(`echo one; echo two >&2; printf three`)
	c.Output = &out
	s.run(c)
	prefix := id[:4] + "…" + id[len(id)-2:] + "│ "
	if want := prefix + "one\n" + prefix + "two\n" + prefix + "three\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestLogArtifact(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	c := s.config(`exit 1`)
	c.LogURITemplate = "s3://logs/{factoryId}/{jobId}/{runId}.log"
	s.run(c)
	artifacts, err := s.client.Artifacts(t.Context(), id)
	if want := "s3://logs/f1/" + id + "/" + id + "-1.log"; err != nil || len(artifacts) != 1 || artifacts[0].Name != "log" || artifacts[0].URI != want {
		t.Errorf("got %+v, %v, want the artifact log at %s", artifacts, err, want)
	}
}

func TestCwd(t *testing.T) {
	s := newShop(t)
	id := s.submit().ID
	c := s.config(`[ "$PWD" = / ] && [ -e "$FLEET_JOB_FILE" ]`)
	c.Cwd = "/"
	s.run(c)
	if job := s.job(id); job.Stage != fleet.Shipped {
		t.Errorf("got %s, want shipped from /", job.Stage)
	}
}

func TestHooks(t *testing.T) {
	for _, c := range []struct {
		name, pre, script string
		post              string
		outcome           fleet.Outcome
		reason            string
	}{
		{"both", "exit 0", "exit 0", "post 0 shipped", fleet.OutcomeShipped, ""},
		{"pre-job refuses", "exit 4", "echo never", "post 4 failed", fleet.OutcomeFailed, "pre_job_hook"},
		{"pre-job not now", "exit 75", "echo never", "post 75 released", fleet.OutcomeReleased, ""},
		{"command fails", "exit 0", "exit 3", "post 3 failed", fleet.OutcomeFailed, "exit_3"},
		{"gate", "exit 0", `echo '{"stage":"review"}' > $FLEET_RESULT_FILE`, "post 0 parked", fleet.OutcomeParked, ""},
		{"none but post-job", "", "exit 0", "post 0 shipped", fleet.OutcomeShipped, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			id := s.submit().ID
			dir := t.TempDir()
			write := func(name, script string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if c.pre != "" {
				write("pre-job", c.pre)
			}
			write("post-job", `echo "post $FLEET_EXIT $FLEET_OUTCOME"; exit 9`)
			var out lines
			config := s.config(c.script)
			config.Hooks, config.Output = dir, &out
			s.run(config)
			if run := s.last(id); run.Outcome != c.outcome || run.Reason != c.reason {
				t.Errorf("got %s %q, want %s %q", run.Outcome, run.Reason, c.outcome, c.reason)
			}
			if got := out.String(); !strings.Contains(got, "│ "+c.post+"\n") || strings.Contains(got, "never") {
				t.Errorf("got %q, want %q", got, c.post)
			}
		})
	}
}

func TestCaptureDropsTheMiddle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := newCapture(path, &terminal{out: &lines{}}, "job")
	if err != nil {
		t.Fatal(err)
	}
	if c.limit != 100<<20 {
		t.Errorf("got a limit of %d, want 100 MiB", c.limit)
	}
	c.limit = 400
	for i := range 100 {
		_, _ = c.Write([]byte(strconv.Itoa(1000+i) + "=====\n"))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	text := content(t, path)
	if !strings.HasPrefix(text, "1000=") || !strings.HasSuffix(text, "1099=====") || strings.Contains(text, "1050") {
		t.Errorf("got %s", text)
	}
	marker := regexp.MustCompile(`\n--- fleet: (\d+) bytes were dropped here ---\n`).FindStringSubmatch(text)
	if marker == nil {
		t.Fatalf("got no marker in %s", text)
	}
	dropped, _ := strconv.Atoi(marker[1])
	if kept := len(text) + 1 - len(marker[0]); kept+dropped != 1000 || kept > 400 {
		t.Errorf("got %d bytes kept and %d dropped of 1000, want at most 400 kept", kept, dropped)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := newShop(t).config("x")
	if _, err := good.withDefaults(); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	for name, spoil := range map[string]func(*Config){
		"client": func(c *Config) { c.Client = nil }, "id": func(c *Config) { c.FactoryID = "" },
		"command": func(c *Config) { c.Command = nil }, "drain": func(c *Config) { c.Drain = "x" },
		"lease": func(c *Config) { c.Lease = time.Millisecond }, "seats": func(c *Config) { c.Seats = -1 },
		"half seconds": func(c *Config) { c.Lease = 1500 * time.Millisecond }, "wait": func(c *Config) { c.Wait = -1 },
		"idle exit": func(c *Config) { c.IdleExit = -1 }, "hooks": func(c *Config) { c.Hooks = "/no/such/directory" },
	} {
		bad := good
		spoil(&bad)
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestUpperSnake(t *testing.T) {
	for key, want := range map[string]string{
		"cwd": "CWD", "maxTurns": "MAX_TURNS", "max-turns": "MAX_TURNS", "a.b c": "A_B_C", "URL": "URL", "v2Beta": "V2_BETA", "é": "_",
	} {
		if got := upperSnake(key); got != want {
			t.Errorf("upperSnake(%q): got %q, want %q", key, got, want)
		}
	}
}

func TestMask(t *testing.T) {
	m := maskerOf([]string{"A_TOKEN=abcdef", "A_SECRET=abcdefgh", "A_PASSWORD=p4ss", "api_key=lower-case", "A_KEY=no", "PATH=/usr/bin"}, "given-secret")
	got := m.mask("abcdef abcdefgh p4ss lower-case no /usr/bin given-secret")
	if want := "[masked] [masked] [masked] [masked] no /usr/bin [masked]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := m.maskCut("cdefgh and on"); got != " and on" { // the cut went through a secret
		t.Errorf("got %q, want %q", got, " and on")
	}
	if got := slices.Contains(m.secrets, "no"); got {
		t.Error("got a secret of two letters, want none: it is a word")
	}
}
