package worker

// This file is the API as far as a factory sees it: one job at a time, with a lease and a fence.

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// api is a cluster with at most one job.
type api struct {
	t      *testing.T
	server *httptest.Server

	mu       sync.Mutex
	job      *fleet.Job
	lease    fleet.Lease
	profile  fleet.JSON
	ttl      int64
	claimed  bool
	reports  []fleet.Report // accepted
	released []fleet.ReleaseRequest
	comments []string
	health   []fleet.Health
	files    []fleet.ArtifactRequest
	refuse   map[string]fleet.Code // by method and path: what is refused next
	changed  *sync.Cond
}

func newAPI(t *testing.T, job *fleet.Job) *api {
	a := &api{t: t, job: job, ttl: 60, refuse: map[string]fleet.Code{}}
	a.changed = sync.NewCond(&a.mu)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fleet/factories/heartbeat", a.heartbeat)
	mux.HandleFunc("POST /fleet/claim", a.claim)
	mux.HandleFunc("GET /fleet/jobs/{id}", a.read)
	mux.HandleFunc("GET /fleet/jobs", a.list)
	mux.HandleFunc("PATCH /fleet/jobs/{id}", a.patch)
	mux.HandleFunc("POST /fleet/jobs/{id}/lease/release", a.release)
	mux.HandleFunc("POST /fleet/jobs/{id}/events", a.comment)
	mux.HandleFunc("POST /fleet/jobs/{id}/artifacts", a.artifact)
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		mux.ServeHTTP(w, r)
		a.changed.Broadcast()
	}))
	t.Cleanup(a.server.Close)
	return a
}

// now is when all happened: a document of a real node is never without its times.
var now = fleet.TimeOf(time.Now())

func newJob() *fleet.Job {
	return &fleet.Job{
		ID: "01JABCDEFGHJKMNPQRSTVWXYZ7", ProductID: "p", Stage: fleet.Queued, CreatedAt: now, UpdatedAt: now,
		Submission: fleet.Submission{BodyMd: "Fix it.\r\n", ManifestSnapshot: "{}", Priority: fleet.High, Kind: fleet.Leaf},
	}
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Write(b)
}

func problem(w http.ResponseWriter, code fleet.Code) {
	w.WriteHeader(http.StatusConflict)
	answer(w, fleet.Errorf(code, "refused by the test"))
}

func (a *api) decode(r *http.Request, v any) {
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	}
	if err != nil {
		a.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
}

// fenced answers a worker's call that is not the holder's.
func (a *api) fenced(w http.ResponseWriter, epoch *uint64) bool {
	if epoch != nil && a.lease.Status == fleet.LeaseHeld && *epoch == a.job.LeaseEpoch {
		return false
	}
	problem(w, fleet.StaleEpoch)
	return true
}

func (a *api) heartbeat(w http.ResponseWriter, r *http.Request) {
	var in fleet.HeartbeatRequest
	a.decode(r, &in)
	a.health = append(a.health, in.Health)
	out := fleet.HeartbeatResult{Factory: &fleet.Factory{FactoryID: in.FactoryID, LastHeartbeatAt: now}, Leases: []fleet.LeaseResult{}}
	for _, l := range in.Leases {
		if a.lease.Status == fleet.LeaseHeld && l.LeaseEpoch == a.job.LeaseEpoch {
			lease := a.lease
			out.Leases = append(out.Leases, fleet.LeaseResult{JobID: l.JobID, OK: true, Lease: &lease})
		} else {
			out.Leases = append(out.Leases, fleet.LeaseResult{JobID: l.JobID, Code: fleet.StaleEpoch})
		}
	}
	answer(w, out)
}

func (a *api) claim(w http.ResponseWriter, r *http.Request) {
	var in fleet.ClaimRequest
	a.decode(r, &in)
	if a.job == nil || a.claimed {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	a.claimed = true
	a.job.Stage, a.job.LeaseEpoch, a.job.Attempt = fleet.Assigned, 3, a.job.Attempt+1
	a.lease = fleet.Lease{JobID: a.job.ID, Status: fleet.LeaseHeld, HolderFactoryID: in.FactoryID, LeaseEpoch: 3, TTLSeconds: a.ttl}
	lease, job := a.lease, *a.job
	answer(w, fleet.Claim{Job: &job, Lease: &lease, Run: &fleet.Run{
		ID: a.job.ID + "-1", Attempt: a.job.Attempt, ProfileSnapshot: a.profile, StartedAt: now,
	}})
}

func (a *api) read(w http.ResponseWriter, _ *http.Request) { answer(w, a.job) }

func (a *api) list(w http.ResponseWriter, _ *http.Request) { answer(w, client.JobPage{}) }

func (a *api) patch(w http.ResponseWriter, r *http.Request) {
	var in fleet.Report
	a.decode(r, &in)
	if a.fenced(w, in.LeaseEpoch) {
		return
	}
	if in.Insights != nil && in.Insights.Turns != nil && *in.Insights.Turns < 0 {
		problem(w, fleet.Invalid)
		return
	}
	a.reports = append(a.reports, in)
	if in.Stage != "" {
		a.job.Stage = in.Stage
	}
	if !a.job.Stage.Active() {
		a.lease.Status = fleet.LeaseReleased
	}
	answer(w, a.job)
}

func (a *api) release(w http.ResponseWriter, r *http.Request) {
	var in fleet.ReleaseRequest
	a.decode(r, &in)
	if !a.fenced(w, &in.LeaseEpoch) {
		a.released = append(a.released, in)
		a.lease.Status = fleet.LeaseReleased
		answer(w, a.lease)
	}
}

func (a *api) comment(w http.ResponseWriter, r *http.Request) {
	var in fleet.CommentRequest
	a.decode(r, &in)
	if !a.fenced(w, in.LeaseEpoch) {
		a.comments = append(a.comments, string(in.Data))
		w.WriteHeader(http.StatusCreated)
		answer(w, fleet.Event{At: now})
	}
}

func (a *api) artifact(w http.ResponseWriter, r *http.Request) {
	var in fleet.ArtifactRequest
	a.decode(r, &in)
	if !a.fenced(w, in.LeaseEpoch) {
		a.files = append(a.files, in)
		w.WriteHeader(http.StatusCreated)
		answer(w, fleet.Artifact{CreatedAt: now})
	}
}

// fence takes the job away, as a cancel or the reaper does.
func (a *api) fence(stage fleet.Stage, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.job.LeaseEpoch++
	a.job.Stage, a.job.Reason = stage, reason
	a.lease.Status = fleet.LeaseReleased
}

// await waits until something holds of the cluster.
func (a *api) await(what string, holds func() bool) {
	a.t.Helper()
	limit := time.AfterFunc(8*time.Second, func() { a.changed.Broadcast() })
	defer limit.Stop()
	began := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for !holds() {
		if time.Since(began) > 7*time.Second {
			a.t.Fatalf("waited in vain for %s", what)
		}
		a.changed.Wait()
	}
}

// final is the last report.
func (a *api) final() fleet.Report {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.reports) == 0 {
		a.t.Fatal("got no report")
	}
	return a.reports[len(a.reports)-1]
}

// config is a factory that runs a script.
func (a *api) config(script string) Config {
	a.t.Helper()
	c, err := client.New(client.Config{Addresses: []string{a.server.URL}, Token: "flt_hidden"})
	if err != nil {
		a.t.Fatal(err)
	}
	return Config{Client: c, FactoryID: "f1", Capabilities: []string{"sh"}, Once: true, Command: []string{"sh", "-c", strings.TrimSpace(script)}}
}
