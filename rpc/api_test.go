package rpc

// This file calls the API and looks at statuses, headers and bodies.

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func TestAnswersByKindOfResult(t *testing.T) {
	job := aJob()
	for _, c := range []struct {
		name, method, path, body string
		result                   fsm.Result
		status                   int
		header, value            string
		want                     string
	}{
		{"created", "POST", "/fleet/jobs", `{"bodyMd":"x"}`, &fleet.SubmitResult{Outcome: fleet.Created, Job: job}, 201, "Fleet-Outcome", "created", `"id":"j1"`},
		{"existing", "POST", "/fleet/jobs", `{"bodyMd":"x"}`, &fleet.SubmitResult{Outcome: fleet.Existing, Job: job}, 200, "Fleet-Outcome", "existing", `"id":"j1"`},
		{"patched", "PATCH", "/fleet/jobs/j1", `{"leaseEpoch":1}`, job, 200, "ETag", `"7"`, `"deps":[]`},
		{"batch", "POST", "/fleet/jobs/batch", `{"jobs":[{"bodyMd":"x"}]}`, &fleet.SubmitResults{}, 200, "Fleet-Index", "7", `{"results":[]}`},
		{"nothing claimed", "POST", "/fleet/claim", `{"factoryId":"f1"}`, &fleet.Claim{}, 204, "Fleet-Index", "7", ""},
		{"nothing in a batch", "POST", "/fleet/claim/batch", `{"factoryId":"f1","max":2}`, &fleet.Claims{}, 200, "Fleet-Leader", "n1", `{"claims":[]}`},
		{"commented", "POST", "/fleet/jobs/j1/events", `{"data":{}}`, &fleet.Event{Seq: 3}, 201, "Content-Type", "application/json", `"seq":3`},
		{"profile", "POST", "/fleet/profiles", `{"name":"a","snapshot":{}}`, &fleet.ProfileResult{Created: true, Profile: &fleet.Profile{Name: "a"}}, 201, "Content-Type", "application/json", `{"name":"a"`},
		{"same profile", "POST", "/fleet/profiles", `{"name":"a","snapshot":{}}`, &fleet.ProfileResult{Profile: &fleet.Profile{Name: "a"}}, 200, "Content-Type", "application/json", `{"name":"a"`},
		{"token", "POST", "/cluster/tokens", `{"roles":["admin"],"products":[]}`, &fleet.Token{ID: "t1"}, 201, "Cache-Control", "no-store", `"secret":"flt_`},
		{"token revoked", "DELETE", "/cluster/tokens/t1", "", &fsm.Done{}, 204, "Fleet-Index", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, node := newClient(t)
			answering(node, c.result)
			r := cl.call(c.method, c.path, c.body)
			if r.status != c.status || !strings.Contains(r.body, c.want) {
				t.Errorf("got %d %s, want %d with %s", r.status, r.body, c.status, c.want)
			}
			if got := r.header.Get(c.header); got != c.value {
				t.Errorf("%s: got %q, want %q", c.header, got, c.value)
			}
		})
	}
}

func TestRefusalsAreProblems(t *testing.T) {
	for code, status := range statuses {
		cl, node := newClient(t)
		node.canned = func(fsm.Proposal) (fsm.Answer, error) {
			return fsm.Answer{Err: &fleet.Error{Code: code, Detail: "because", CurrentEpoch: 4, Cycle: []string{"a", "a"}}, Index: 9}, nil
		}
		r := cl.call("POST", "/fleet/jobs/j1/requeue", "", "X-Request-Id", "mine")
		p := cl.problem(r, code)
		if p.CurrentEpoch == nil || *p.CurrentEpoch != 4 || len(p.Cycle) != 2 || p.RequestID != "mine" || r.header.Get("Fleet-Index") != "9" {
			t.Errorf("%s: got %s, want epoch, cycle, request id and index", code, r.body)
		}
		if wants := status == 429 || status == 503; (r.header.Get("Retry-After") == "1") != wants {
			t.Errorf("%s: Retry-After: got %q, want one: %t", code, r.header.Get("Retry-After"), wants)
		}
	}
	cl, node := newClient(t)
	node.canned = func(fsm.Proposal) (fsm.Answer, error) {
		return fsm.Answer{Err: fleet.Errorf(fleet.StaleEpoch, "it was never claimed")}, nil
	}
	if p := cl.problem(cl.call("POST", "/fleet/jobs/j1/requeue", ""), fleet.StaleEpoch); p.CurrentEpoch == nil || *p.CurrentEpoch != 0 {
		t.Errorf("currentEpoch of a job that was never claimed: got %v, want 0", p.CurrentEpoch)
	}
	node.canned = func(fsm.Proposal) (fsm.Answer, error) { return fsm.Answer{}, errBroken }
	if p := cl.problem(cl.call("POST", "/fleet/jobs/j1/requeue", ""), fleet.Internal); strings.Contains(p.Detail, "broken") {
		t.Errorf("detail: got %q, want nothing of what is inside", p.Detail)
	}
	node.canned = func(fsm.Proposal) (fsm.Answer, error) { panic("broken") }
	cl.problem(cl.call("POST", "/fleet/jobs/j1/requeue", ""), fleet.Internal)
}

func TestBodiesThatAreNotRead(t *testing.T) {
	cl, _ := newClient(t)
	big := `{"bodyMd":"` + strings.Repeat("x", fleet.MaxBody) + `"}`
	cl.problem(cl.call("POST", "/fleet/jobs", big), fleet.TooLarge)
	cl.problem(cl.call("POST", "/fleet/jobs", "{}", "Content-Encoding", "gzip"), fleet.UnsupportedMediaType)
	for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "nonsense/"} {
		cl.problem(cl.call("POST", "/fleet/jobs", "{}", "Content-Type", media), fleet.UnsupportedMediaType)
	}
	r := httptest.NewRequest("POST", "/fleet/jobs", &endless{})
	r.ContentLength = -1
	r.Header.Set("Authorization", "Bearer "+rootToken)
	r.Header.Set("X-Product-Id", "p1")
	w := httptest.NewRecorder()
	cl.api.ServeHTTP(w, r)
	cl.problem(reply{w.Code, w.Header(), w.Body.String()}, fleet.TooLarge)
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, bytes.Repeat([]byte(" "), len(b))), nil }

func TestQueriesAreStrict(t *testing.T) {
	cl, _ := newClient(t)
	for path, field := range map[string]string{
		"/fleet/jobs?x=1":                          "x",
		"/fleet/jobs?stage=quued":                  "stage",
		"/fleet/jobs?stage=":                       "stage",
		"/fleet/jobs?stage=queued&stage=blocked":   "stage",
		"/fleet/jobs?limit=0":                      "limit",
		"/fleet/jobs?limit=1001":                   "limit",
		"/fleet/jobs?limit=-1":                     "limit",
		"/fleet/jobs?parked=yes":                   "parked",
		"/fleet/jobs?label=a":                      "label",
		"/fleet/jobs?label=a:b:c":                  "label",
		"/fleet/jobs?cursor=abc":                   "cursor",
		"/fleet/jobs?factoryId=%00":                "factoryId",
		"/fleet/jobs?consistency=eventual":         "consistency",
		"/fleet/jobs?a=%zz":                        "query",
		"/fleet/jobs/j1?limit=1":                   "limit",
		"/fleet/jobs/j1/events?after=-1":           "after",
		"/fleet/events?after=18446744073709551616": "after",
	} {
		if p := cl.problem(cl.call("GET", path, ""), fleet.Invalid); len(p.Fields) != 1 || p.Fields[0].Field != field {
			t.Errorf("%s: got %v, want field %s", path, p.Fields, field)
		}
	}
	for header, value := range map[string]string{
		"Fleet-Min-Index": "18446744073709551616", "If-None-Match": "7", "X-Product-Id": strings.Repeat("p", 257),
	} {
		if p := cl.problem(cl.call("GET", "/fleet/jobs/j1", "", header, value), fleet.Invalid); p.Fields[0].Field != header {
			t.Errorf("%s: got %v, want it named", header, p.Fields)
		}
	}
	cl.problem(cl.call("GET", "/fleet/jobs/j1", "", "Fleet-Min-Index", "99"), fleet.Behind)
	cl.problem(cl.call("POST", "/fleet/jobs?dryRun=true", "{}"), fleet.Invalid)
}

func TestKeyedCallsCarryWhatTheyAsked(t *testing.T) {
	cl, node := newClient(t)
	node.canned = func(fsm.Proposal) (fsm.Answer, error) {
		return fsm.Answer{Result: &fleet.Token{ID: "t1"}, Replayed: true}, nil
	}
	r := cl.call("POST", "/cluster/tokens", `{"roles":["admin"],"products":[]}`, "Idempotency-Key", "k")
	if strings.Contains(r.body, "secret") {
		t.Errorf("got %s, want no secret in a replay", r.body)
	}
	answering(node, aJob())
	node.proposed = nil
	calls := [][]string{
		{"/fleet/jobs/j1/cancel", `{}`, `"k"`, ""},
		{"/fleet/jobs/j1/cancel", `{}`, `k`, ""},
		{"/fleet/jobs/j1/cancel", `{ }`, `k`, ""},
		{"/fleet/jobs/j2/cancel", `{}`, `k`, ""},
		{"/fleet/jobs/j1/cancel", `{}`, `k`, `"7"`},
	}
	for _, c := range calls {
		as[fleet.Job](t, cl.call("POST", c[0], c[1], "Idempotency-Key", c[2], "If-Match", c[3]), http.StatusOK)
	}
	seen := map[string]bool{}
	for i, p := range node.proposed {
		if p.Key != "k" || p.Caller.Actor != fsm.ActorRoot || len(p.Request) != 32 {
			t.Errorf("call %d: got %q by %q, want key k by root with a digest", i, p.Key, p.Caller.Actor)
		}
		seen[p.Request] = true
	}
	if len(seen) != len(calls)-1 {
		t.Errorf("got %d different digests, want %d: only the first two are the same request", len(seen), len(calls)-1)
	}
	node.canned = func(fsm.Proposal) (fsm.Answer, error) {
		return fsm.Answer{Result: aJob(), Replayed: true, Index: 3}, nil
	}
	if r := cl.call("POST", "/fleet/jobs/j1/cancel", `{}`, "Idempotency-Key", "k"); r.header.Get("Fleet-Replayed") != "true" {
		t.Errorf("got no Fleet-Replayed in %v", r.header)
	}
}

func TestPatchIsTheWorkersOrTheOperators(t *testing.T) {
	cl, node := newClient(t)
	answering(node, aJob())
	cl.call("PATCH", "/fleet/jobs/j%2F1", `{"leaseEpoch":3,"stage":"building"}`)
	cl.call("PATCH", "/fleet/jobs/j1", `{"stage":"shipped"}`, "If-Match", `"7"`)
	cl.call("PATCH", "/fleet/jobs/j1", `{"stage":"shipped"}`)
	if p, ok := node.proposed[0].Command.(*fsm.Patch); !ok || *p.Report.LeaseEpoch != 3 || p.JobID != "j/1" || p.ProductID != "p1" {
		t.Errorf("with leaseEpoch: got %+v, want a patch of j/1 at epoch 3", node.proposed[0].Command)
	}
	if p, ok := node.proposed[1].Command.(*fsm.OperatorPatch); !ok || len(p.IfMatch.Versions) != 1 {
		t.Errorf("without: got %+v, want an operator's patch with If-Match", node.proposed[1].Command)
	}
	if p, ok := node.proposed[2].Command.(*fsm.OperatorPatch); !ok || p.IfMatch.Any || p.IfMatch.Versions != nil {
		t.Errorf("without both: got %+v, want an operator's patch without If-Match", node.proposed[2].Command)
	}
}

// A checkpoint without members says nothing: what was saved before stays.
func TestEmptyCheckpointIsNone(t *testing.T) {
	cl, node := newClient(t)
	answering(node, aJob())
	cl.call("PATCH", "/fleet/jobs/j1", `{"leaseEpoch":3,"checkpoint":{}}`)
	cl.call("PATCH", "/fleet/jobs/j1", `{"checkpoint":{"wipBranch":""}}`, "If-Match", `"7"`)
	cl.call("POST", "/fleet/reports", `{"reports":[{"jobId":"a","leaseEpoch":1,"checkpoint":{}}]}`)
	for i, got := range []*fleet.Checkpoint{
		node.proposed[0].Command.(*fsm.Patch).Report.Checkpoint, node.proposed[1].Command.(*fsm.OperatorPatch).Report.Checkpoint,
		node.proposed[2].Command.(*fsm.Report).Reports[0].Checkpoint,
	} {
		if got != nil {
			t.Errorf("call %d: got %+v, want none", i+1, got)
		}
	}
}

func TestReportsAreJudgedOneByOne(t *testing.T) {
	cl, node := newClient(t)
	answering(node, &fleet.ReportResults{Results: []fleet.ReportResult{{JobID: "b", OK: true}}})
	r := cl.call("POST", "/fleet/reports", `{"reports":[{"jobId":"a"},{"jobId":"b","leaseEpoch":1},{"jobId":"c","leaseEpoch":1,"stage":"failed"}]}`)
	got := as[fleet.ReportResults](t, r, http.StatusOK).Results
	if len(got) != 3 || got[0].Code != fleet.Invalid || !got[1].OK || got[1].JobID != "b" || got[2].Code != fleet.Invalid {
		t.Errorf("got %s, want a and c invalid, b ok", r.body)
	}
	if c := node.proposed[0].Command.(*fsm.Report); len(c.Reports) != 1 {
		t.Errorf("got %d reports proposed, want the one that is well-formed", len(c.Reports))
	}
}

func TestConditionalGet(t *testing.T) {
	cl, _ := newClient(t)
	job := submitted(t, cl, "a")
	r := cl.call("GET", "/fleet/jobs/"+job.ID, "")
	as[fleet.Job](t, r, http.StatusOK)
	tag := r.header.Get("ETag")
	for match, status := range map[string]int{tag: 304, "W/" + tag: 304, "*": 304, `"0", ` + tag: 304, `"999"`: 200} {
		r := cl.call("GET", "/fleet/jobs/"+job.ID, "", "If-None-Match", match)
		if r.status != status || r.header.Get("ETag") != tag || status == 304 && r.body != "" {
			t.Errorf("%s: got %d, ETag %s, want %d", match, r.status, r.header.Get("ETag"), status)
		}
	}
	cl.problem(cl.call("GET", "/fleet/jobs/nothing", ""), fleet.NotFound)
	cl.problem(cl.call("GET", "/fleet/jobs/"+job.ID, "", "X-Product-Id", "p2"), fleet.NotFound)
}

func aJob() *fleet.Job { return &fleet.Job{ID: "j1", Version: 7, CreatedAt: 1, UpdatedAt: 1} }

// submitted submits a job with a key.
func submitted(t *testing.T, cl client, key string) fleet.Job {
	t.Helper()
	return as[fleet.Job](t, cl.call("POST", "/fleet/jobs", `{"bodyMd":"do it","idempotencyKey":"`+key+`"}`), http.StatusCreated)
}

func TestWithoutAuthOnlyLocalCallers(t *testing.T) {
	api := New(Config{Node: newSingleNode(), NoAuth: true})
	cl := client{t, api}
	as[fleet.ClusterStatus](t, cl.call("GET", "http://127.0.0.1:8400/cluster/status", "", "Authorization", ""), http.StatusOK)
	cl.problem(cl.call("GET", "http://rebound.example/cluster/status", ""), fleet.Forbidden)
	cl.problem(cl.call("POST", "http://localhost/cluster/leader/transfer", "", "Sec-Fetch-Site", "cross-site"), fleet.Forbidden)
	as[none](t, cl.call("POST", "http://localhost/cluster/leader/transfer", ""), http.StatusOK)
}

func TestTwoHeadersAreRefused(t *testing.T) {
	cl, _ := newClient(t)
	for header, code := range map[string]fleet.Code{"Authorization": fleet.Unauthenticated, "X-Product-Id": fleet.Invalid} {
		r := httptest.NewRequest("GET", "/fleet/jobs/j1", nil)
		r.Header.Set("Authorization", "Bearer "+rootToken)
		r.Header.Set("X-Product-Id", "p1")
		r.Header.Add(header, r.Header.Get(header))
		w := httptest.NewRecorder()
		cl.api.ServeHTTP(w, r)
		cl.problem(reply{w.Code, w.Header(), w.Body.String()}, code)
	}
}

func TestOpenRoutes(t *testing.T) {
	cl, node := newClient(t)
	for _, path := range []string{"/livez", "/readyz", "/openapi.json", "/"} {
		if r := cl.call("GET", path, "", "Authorization", "", "X-Product-Id", ""); r.status != http.StatusOK {
			t.Errorf("%s: got %d, want 200", path, r.status)
		}
	}
	node.ready = fleet.Errorf("no_leader", "")
	if r := cl.call("GET", "/readyz", ""); r.status != 503 || !strings.Contains(r.body, `"reason":"no_leader"`) {
		t.Errorf("got %d %s, want 503 with reason no_leader", r.status, r.body)
	}
	if r := cl.call("GET", "/readyz?verbose", ""); !strings.Contains(r.body, "[+]voter ok\n[-]leader failed: no_leader\n") {
		t.Errorf("got %s, want the checks up to the one that failed", r.body)
	}
	if r := cl.call("GET", "/cluster/snapshot", ""); r.body != "snapshot" || r.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %d %q, want the snapshot", r.status, r.body)
	}
}

// A backup has no limit but what the disk takes, and no media type that anybody would have to know.
func TestRestoreTakesAFile(t *testing.T) {
	cl, _ := newClient(t)
	if r := cl.call("POST", "/cluster/restore?raise=2", "snapshot"); r.status != http.StatusOK || r.body != `{"tokens":[],"index":7,"generation":3}` {
		t.Errorf("got %d %s", r.status, r.body)
	}
	for _, bad := range []string{"", "damaged", strings.Repeat("x", fleet.MaxBatchBody+1)} {
		cl.problem(cl.call("POST", "/cluster/restore", bad), fleet.InvalidSnapshot)
	}
	for _, bad := range []string{"raise=-1", "raise=x", "raise=1001", "raise=", "lower=1"} {
		cl.problem(cl.call("POST", "/cluster/restore?"+bad, "snapshot"), fleet.Invalid)
	}
	cl.problem(cl.call("POST", "/cluster/restore", "snapshot", "Idempotency-Key", strings.Repeat("k", 257)), fleet.Invalid)
}

func TestMetricsNameNeitherProductsNorIDs(t *testing.T) {
	cl, _ := newClient(t)
	submitted(t, cl, "secret-key")
	cl.call("GET", "/fleet/jobs/some-job-id", "", "X-Product-Id", "secret-product")
	r := cl.call("GET", "/metrics", "")
	for _, want := range []string{
		`fleet_http_requests_total{code="404",method="GET",route="/fleet/jobs/{id}"} 1`, `fleet_jobs{stage="queued"} 1`,
		`fleet_queue_oldest_age_seconds`, `fleet_sse_clients 0`, `fleet_factory_seats{state="free"} 0`,
		`fleet_run_duration_seconds_count{outcome="shipped"} 0`, `fleet_run_cost_usd_total 0`, `fleet_run_tokens_total{kind="in"} 0`,
		`fleet_job_events_total{type="dead_lettered"} 0`,
	} {
		if !strings.Contains(r.body, want) {
			t.Errorf("got no %s in:\n%s", want, r.body)
		}
	}
	for _, leak := range []string{"secret", "some-job-id", "p1"} {
		if strings.Contains(r.body, leak) {
			t.Errorf("got %q in the metrics", leak)
		}
	}
}

func TestServerEndsInOrder(t *testing.T) {
	var log bytes.Buffer
	api := New(Config{Node: newSingleNode(), RootToken: []byte(rootToken), Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug})})
	s, err := Listen(ServerConfig{Addr: "127.0.0.1:0", Handler: api})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	r, err := http.NewRequest("GET", "http://"+s.Addr().String()+"/cluster/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+rootToken)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 200 || response.Header.Get("Server") != "" {
		t.Errorf("got %d from %q, want 200 from nobody", response.StatusCode, response.Header.Get("Server"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil after Shutdown", err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("got a connection after Shutdown")
	}
	if !strings.Contains(log.String(), "route=/cluster/status") || strings.Contains(log.String(), rootToken) {
		t.Errorf("got %s, want a line for the call, without the token", log.String())
	}
}
