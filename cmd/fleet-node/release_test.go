package main

// This file keeps data directories of each release, and reads them with this build: every document is what it was.
//
// Each file of testdata/releases is data directories n1, n2, … of one cluster, and dump.json: what the release itself answered.
// `make fixture` makes the next one.

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/release"
	"github.com/lysnrai/fleet/rpc"
)

// dump is what a release answered. Keyed is a call that it had answered before, under this Idempotency-Key.
type dump struct {
	At      time.Time                  `json:"at"`
	Answers map[string]json.RawMessage `json:"answers"` // by path
	Keyed   struct {
		Key, Body string
		Answer    json.RawMessage
	} `json:"keyed"`
}

// caller answers a GET, or a keyed POST.
type caller func(method, path, body, key string) (int, []byte)

// read reads all documents.
func read(t *testing.T, call caller) map[string]json.RawMessage {
	t.Helper()
	answers := map[string]json.RawMessage{}
	get := func(path string) []byte {
		t.Helper()
		status, b := call("GET", path, "", "")
		if status != http.StatusOK {
			t.Fatalf("GET %s: got %d %s", path, status, b)
		}
		answers[path] = b
		return b
	}
	var jobs struct{ Jobs []struct{ ID string } }
	if err := json.Unmarshal(get("/fleet/jobs?limit=1000"), &jobs); err != nil || len(jobs.Jobs) == 0 {
		t.Fatalf("listing jobs: got %d, %v", len(jobs.Jobs), err)
	}
	for _, job := range jobs.Jobs {
		for _, part := range []string{"", "/lease", "/runs", "/events", "/artifacts"} {
			get("/fleet/jobs/" + job.ID + part)
		}
	}
	for _, path := range []string{"/fleet/events?after=0&limit=1000", "/fleet/factories", "/fleet/factories/f1", "/fleet/profiles", "/fleet/profiles/prof/1", "/cluster/tokens"} {
		get(path)
	}
	return answers
}

// TestReleases starts this build on what each release left behind, lets the level rise, and starts it once more on what it has written
// itself. The clock is that of the day on which the release was there: leases and retention go on from it.
func TestReleases(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(fixtures(), "*.tar.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v, want some releases", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			if err := release.Unpack(file, dir); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(dir, "dump.json"))
			var want dump
			if err == nil {
				err = json.Unmarshal(b, &want)
			}
			if err != nil {
				t.Fatal(err)
			}
			names, err := filepath.Glob(filepath.Join(dir, "n[0-9]"))
			if err != nil || len(names) == 0 {
				t.Fatalf("got %q, %v, want data directories", names, err)
			}
			for _, level := range []int{1, fsm.MaxLevel, fsm.MaxLevel} {
				reopen(t, names, level, &want)
			}
		})
	}
}

// reopen runs this build on data directories at a level, and holds what every node answers against what it was.
func reopen(t *testing.T, dirs []string, level int, want *dump) {
	t.Helper()
	all, err := freePorts(0)
	if err != nil {
		t.Fatal(err)
	}
	var join []string
	for i := range dirs {
		join = append(join, local(all[i].gossip))
	}
	began := time.Now()
	clock := clockFunc(func() time.Time { return want.At.Add(time.Since(began)) })
	var nodes []*cluster.Node
	defer func() {
		for _, n := range nodes {
			n.Kill()
		}
	}()
	for i, dir := range dirs {
		n, err := cluster.Start(cluster.Config{
			Name: filepath.Base(dir), DataDir: dir, NodeAddr: local(all[i].node), GossipAddr: local(all[i].gossip), HTTPAddr: local(all[i].http),
			Join: join, Secret: []byte(rootToken), Timing: cluster.TimingLocal, Clock: clock, MaxLevel: level,
		})
		if err != nil {
			t.Fatalf("starting on %s at level %d: %v", dir, level, err)
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		reached := func() (at int) { n.View(func(v fsm.View) { at = v.Level() }); return at }
		for end := time.Now().Add(time.Minute); n.Ready() != nil || reached() != level; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s at level %d: %v, and it has reached level %d", n.Name(), level, n.Ready(), reached())
			}
		}
	}
	for _, n := range nodes {
		api := rpc.New(rpc.Config{Node: n, RootToken: []byte(rootToken)})
		call := func(method, path, body, key string) (int, []byte) {
			request := httptest.NewRequest(method, "http://"+local(all[0].http)+path, strings.NewReader(body))
			request.Header.Set("Authorization", "Bearer "+rootToken)
			request.Header.Set("Content-Type", "application/json")
			if strings.HasPrefix(path, "/fleet/") {
				request.Header.Set("X-Product-Id", "demo")
			}
			if key != "" {
				request.Header.Set("Idempotency-Key", key)
			}
			answer := httptest.NewRecorder()
			api.ServeHTTP(answer, request)
			return answer.Code, answer.Body.Bytes()
		}
		compare(t, fmt.Sprintf("%s at level %d", n.Name(), level), want.Answers, read(t, call))
		if status, got := call("POST", "/fleet/jobs", want.Keyed.Body, want.Keyed.Key); status/100 != 2 || !covers(decoded(t, want.Keyed.Answer), decoded(t, got)) {
			t.Errorf("%s at level %d: a call that was answered before: got %d %s, want %s", n.Name(), level, status, got, want.Keyed.Answer)
		}
	}
}

type clockFunc func() time.Time

func (f clockFunc) Now() time.Time { return f() }

func compare(t *testing.T, who string, want, got map[string]json.RawMessage) {
	t.Helper()
	for path, b := range want {
		if !covers(decoded(t, b), decoded(t, got[path])) {
			t.Errorf("%s: %s\n got %s\nwant %s", who, path, got[path], b)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d documents, want %d", who, len(got), len(want))
	}
}

func decoded(t *testing.T, b []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Errorf("%s: %v", b, err)
	}
	return v
}

// covers reports whether got is want, or want with fields that came later.
func covers(want, got any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		for key, v := range want {
			now, there := got[key]
			ok = ok && there && covers(v, now)
		}
		return ok
	case []any:
		got, ok := got.([]any)
		ok = ok && len(got) == len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = covers(want[i], got[i])
		}
		return ok
	}
	return reflect.DeepEqual(want, got)
}

func pack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir || e.Name() == "LOCK" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o700})
		}
		b, err := os.ReadFile(path)
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(b))})
		}
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
	if err := errors.Join(err, w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestMakeFixture makes the files of a release, from its binary (make fixture).
func TestMakeFixture(t *testing.T) {
	binary, name := os.Getenv("FLEET_FIXTURE_BINARY"), os.Getenv("FLEET_FIXTURE_NAME")
	if binary == "" || name == "" {
		t.Skip("FLEET_FIXTURE_BINARY and FLEET_FIXTURE_NAME name no release")
	}
	for n, size := range map[int]string{1: "one", 3: "three"} {
		dir := t.TempDir()
		a := newAgents(t, dir, n)
		for i := range n {
			a.start(i, binary)
		}
		for i := range n {
			a.ready(i)
		}
		h := &history{t: t, a: a}
		h.live("first")
		if n == 1 {
			h.fill(filepath.Join(dir, "n1"))
		} else {
			h.restore()
		}
		h.live("second")
		var d dump
		d.Keyed.Key, d.Keyed.Body = "remembered", `{"bodyMd":"keyed","idempotencyKey":"keyed"}`
		d.Keyed.Answer = h.must("POST", "/fleet/jobs", d.Keyed.Body, d.Keyed.Key)
		d.Answers = read(t, func(method, path, body, key string) (int, []byte) { return a.call(0, method, path, body, key) })
		d.At = time.Now().UTC()
		b, err := json.MarshalIndent(d, "", " ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "dump.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			a.stop(i)
		}
		pack(t, filepath.Join(fixtures(), name+"-"+size+".tar.gz"), dir)
	}
}

// history is what a cluster lives through before it is kept.
type history struct {
	t *testing.T
	a *agents
	n int
}

func (h *history) must(method, path, body, key string) []byte {
	h.t.Helper()
	h.n++
	status, b := h.a.call(h.n%h.a.n, method, path, body, key)
	if status/100 != 2 {
		h.t.Fatalf("%s %s %s: got %d %s", method, path, body, status, b)
	}
	return b
}

// live has something of every kind happen.
func (h *history) live(round string) {
	h.t.Helper()
	post := func(path, format string, args ...any) []byte {
		h.t.Helper()
		return h.must("POST", path, fmt.Sprintf(format, args...), "")
	}
	id := func(b []byte) (found string) {
		h.t.Helper()
		var doc struct{ ID string }
		if err := json.Unmarshal(b, &doc); err != nil || doc.ID == "" {
			h.t.Fatalf("%s has no id: %v", b, err)
		}
		return doc.ID
	}
	post("/fleet/profiles", `{"name":"prof","snapshot":{"round":%q,"n":1.50}}`, round)
	post("/cluster/tokens", `{"name":"kept-%s","roles":["submitter","factory"],"products":["demo"]}`, round)
	gone := id(post("/cluster/tokens", `{"name":"gone-%s","roles":["reader"],"products":[]}`, round))
	h.must("DELETE", "/cluster/tokens/"+gone, "", "")
	post("/fleet/factories/heartbeat", `{"factoryId":"f1","capabilities":["go","linux"],"engines":["e1"],"seatLimit":50,"heartbeatSeconds":3600,"load":3,"descriptor":{"round":%q}}`, round)
	post("/fleet/factories/heartbeat", `{"factoryId":"f2","heartbeatSeconds":3600,"health":"degraded"}`)

	dep := id(post("/fleet/jobs", `{"bodyMd":"first","capabilities":["go"],"priority":"high","labels":{"round":%q},"profile":"prof"}`, round))
	post("/fleet/jobs", `{"bodyMd":"waits","deps":[%q],"engineClass":"e1"}`, dep)
	post("/fleet/jobs", `{"bodyMd":"not now","notBefore":"2199-01-01T00:00:00Z"}`)
	group := id(post("/fleet/jobs", `{"bodyMd":"all of it","kind":"composite"}`))
	post("/fleet/jobs/batch", `{"jobs":[{"bodyMd":"part 1","parentId":%q},{"bodyMd":"part 2","parentId":%q,"retry":{"max":2,"backoff":3600,"on":[]}}]}`, group, group)
	for i := range 6 {
		h.must("POST", "/fleet/jobs", fmt.Sprintf(`{"bodyMd":"job %d","budget":{"usd":12.25,"tokens":100000},"manifestSnapshot":{"deep":[1,{"a":1e3}]}}`, i), fmt.Sprintf("key-%s-%d", round, i))
	}
	for i := range 9 {
		var claim struct {
			Job   struct{ ID string }
			Lease struct{ LeaseEpoch uint64 }
		}
		if err := json.Unmarshal(post("/fleet/claim", `{"factoryId":"f1","leaseSeconds":86400}`), &claim); err != nil || claim.Job.ID == "" {
			h.t.Fatalf("claiming: %v", err)
		}
		job, epoch := "/fleet/jobs/"+claim.Job.ID, claim.Lease.LeaseEpoch
		patch := func(format string, args ...any) {
			h.t.Helper()
			h.must("PATCH", job, fmt.Sprintf(`{"leaseEpoch":%d,`, epoch)+fmt.Sprintf(format, args...)+"}", "")
		}
		post(job+"/events", `{"leaseEpoch":%d,"data":{"says":"hello"}}`, epoch)
		post(job+"/artifacts", `{"leaseEpoch":%d,"name":"log","kind":"log","uri":"https://example.com/log","sizeBytes":7}`, epoch)
		patch(`"stage":"building","checkpoint":{"wipBranch":"b","wipCommit":"c%d"}`, i)
		switch i % 5 {
		case 0:
			patch(`"stage":"review"`)
			patch(`"stage":"testing"`)
			patch(`"stage":"shipped","exit":0,"result":{"ok":true},"insights":{"costUsd":0.5,"tokensIn":10,"tokensOut":20}`)
		case 1:
			patch(`"stage":"failed","reason":"broken","exit":1`)
		case 2:
			post(job+"/lease/release", `{"leaseEpoch":%d,"delaySeconds":3600}`, epoch)
		case 3:
			patch(`"stage":"review"`)
			post(job+"/lease/release", `{"leaseEpoch":%d}`, epoch)
		case 4:
			post(job+"/lease/renew", `{"leaseEpoch":%d}`, epoch)
		}
	}
	cancelled := id(post("/fleet/jobs", `{"bodyMd":"never"}`))
	post("/fleet/jobs/"+cancelled+"/cancel", `{"reason":"no"}`)
	again := id(post("/fleet/jobs", `{"bodyMd":"again"}`))
	post("/fleet/jobs/"+again+"/cancel", `{}`)
	post("/fleet/jobs/"+again+"/requeue", `{}`)
}

// fill writes log until there is a snapshot of the node's own.
func (h *history) fill(dir string) {
	h.t.Helper()
	long := strings.Repeat("x", 1<<20-1<<10)
	taken := func() bool {
		all, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*", "meta.json"))
		return len(all) > 0 && !strings.HasSuffix(filepath.Dir(all[0]), ".tmp")
	}
	for i := 0; i < 70; i++ {
		h.must("POST", "/fleet/factories/heartbeat", fmt.Sprintf(`{"factoryId":"f3","heartbeatSeconds":3600,"descriptor":{"x":%q}}`, long), "")
	}
	h.must("POST", "/fleet/factories/heartbeat", `{"factoryId":"f3","descriptor":{}}`, "")
	h.a.until("there is a snapshot", taken)
}

// restore takes a backup and puts it back, which leaves a snapshot on every node.
func (h *history) restore() {
	h.t.Helper()
	backup := h.must("GET", "/cluster/snapshot", "", "")
	h.must("POST", "/cluster/restore", string(backup), "")
	for i := range h.a.n {
		h.a.ready(i)
	}
}
