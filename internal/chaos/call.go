package chaos

// This file makes one call over HTTP: a command or a read of package check, and the answer as the node's own Go API gives it.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

// Product is that of every call for which nothing else is said.
const Product = "chaos"

// tryWait is how long a client waits for one node.
const tryWait = 10 * time.Second

// call is what a client does next: a command, or a read.
type call struct {
	command fsm.Command // nil for a read
	query   check.Query
	wait    int64 // of a claim, in seconds
	key     string
	product string // empty: Product
}

// callOf is a move of the load.
func (r *Run) callOf(m check.Move) call {
	product := cmp.Or(m.Query.Product, r.product)
	return call{command: m.Proposal.Command, query: m.Query, wait: m.Wait, key: m.Proposal.Key, product: product}
}

// once reports whether a repeat would happen again: it is not remembered under its key.
func (c *call) once() bool {
	switch c.command.(type) {
	case *fsm.Renew, *fsm.Heartbeat:
		return true
	}
	return false
}

// wire is the call on its way.
type wire struct {
	method, path string
	body         any
	ifMatch      string
	result       fsm.Result // an empty one of the kind that is answered
}

// wire says how a call is written.
func (c *call) wire() wire {
	job := func(id, rest string) string { return "/fleet/jobs/" + id + rest }
	post := func(path string, body any, result fsm.Result) wire { return wire{"POST", path, body, "", result} }
	switch d := c.command.(type) {
	case nil:
		switch c.query.Subject {
		case check.Jobs:
			return wire{"GET", job(c.query.ID, ""), nil, "", &fleet.Job{}}
		case check.Leases:
			return wire{"GET", job(c.query.ID, "/lease"), nil, "", &fleet.Lease{}}
		default:
			return wire{"GET", "/fleet/factories/" + c.query.ID, nil, "", &fleet.Factory{}}
		}
	case *fsm.Submit:
		return post("/fleet/jobs", d.Submission, &fleet.SubmitResult{})
	case *fsm.SubmitBatch:
		return post("/fleet/jobs/batch", map[string]any{"jobs": d.Submissions}, &fleet.SubmitResults{})
	case *fsm.Claim:
		return post("/fleet/claim", fleet.ClaimRequest{FactoryID: d.FactoryID, LeaseSeconds: &d.LeaseSeconds, WaitSeconds: c.wait}, &fleet.Claim{})
	case *fsm.ClaimBatch:
		return post("/fleet/claim/batch", fleet.ClaimRequest{
			FactoryID: d.FactoryID, LeaseSeconds: &d.LeaseSeconds, WaitSeconds: c.wait, Max: &d.Max,
		}, &fleet.Claims{})
	case *fsm.Patch:
		return wire{"PATCH", job(d.JobID, ""), d.Report, "", &fleet.Job{}}
	case *fsm.OperatorPatch:
		w := wire{"PATCH", job(d.JobID, ""), d.Report, "", &fleet.Job{}}
		if d.IfMatch.Any {
			w.ifMatch = "*"
		} else if len(d.IfMatch.Versions) > 0 {
			w.ifMatch = strconv.Quote(strconv.FormatUint(d.IfMatch.Versions[0], 10))
		}
		return w
	case *fsm.Report:
		return post("/fleet/reports", map[string]any{"reports": d.Reports}, &fleet.ReportResults{})
	case *fsm.Renew:
		r := fleet.RenewRequest{LeaseEpoch: d.LeaseEpoch}
		if d.LeaseSeconds > 0 {
			r.LeaseSeconds = &d.LeaseSeconds
		}
		return post(job(d.JobID, "/lease/renew"), r, &fleet.Lease{})
	case *fsm.Release:
		return post(job(d.JobID, "/lease/release"), fleet.ReleaseRequest{LeaseEpoch: d.LeaseEpoch, DelaySeconds: d.DelaySeconds}, &fleet.Lease{})
	case *fsm.Cancel:
		return post(job(d.JobID, "/cancel"), map[string]any{"reason": d.Reason}, &fleet.Job{})
	case *fsm.Requeue:
		return post(job(d.JobID, "/requeue"), map[string]any{}, &fleet.Job{})
	case *fsm.Heartbeat:
		return post("/fleet/factories/heartbeat", d.Heartbeat, &fleet.HeartbeatResult{})
	case *fsm.Comment:
		return post(job(d.JobID, "/events"), fleet.CommentRequest{LeaseEpoch: d.LeaseEpoch, Data: d.Data}, &fleet.Event{})
	case *fsm.AddArtifact:
		return post(job(d.JobID, "/artifacts"), d.Request, &fleet.Artifact{})
	case *fsm.PutProfile:
		return post("/fleet/profiles", fleet.ProfileRequest{Name: d.Name, Snapshot: d.Snapshot}, &fleet.ProfileResult{})
	}
	panic(fmt.Sprintf("there is no route for a %T", c.command))
}

// send makes one try at a node. The error is as check.AnswerOf has it.
func (c *call) send(ctx context.Context, client *http.Client, addr string) (fsm.Answer, error) {
	w := c.wire()
	ctx, cancel := context.WithTimeout(ctx, tryWait+time.Duration(c.wait)*time.Second)
	defer cancel()
	var body io.Reader
	if w.body != nil {
		b, err := json.Marshal(w.body)
		if err != nil {
			return fsm.Answer{}, err
		}
		body = io.MultiReader(bytes.NewReader(b)) // of a kind that net/http can't send again by itself
	}
	request, err := http.NewRequestWithContext(ctx, w.method, "http://"+addr+w.path, body)
	if err != nil {
		return fsm.Answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+RootToken)
	request.Header.Set("X-Product-Id", cmp.Or(c.product, Product))
	request.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		request.Header.Set("Idempotency-Key", c.key)
	}
	if w.ifMatch != "" {
		request.Header.Set("If-Match", w.ifMatch)
	}
	response, err := client.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fsm.Answer{}, fleet.Errorf(fleet.NoLeader, "nobody listens there: %v", err)
	}
	if err != nil {
		return fsm.Answer{}, errors.Join(errBroken, err)
	}
	defer response.Body.Close()
	answered, err := io.ReadAll(response.Body)
	if err != nil {
		return fsm.Answer{}, errors.Join(errBroken, err)
	}
	a, err := check.AnswerOf(response, answered, w.result)
	if err == nil && a.Err != nil { // the witness knows the state machine's words only
		a.Err.Detail, _, _ = strings.Cut(a.Err.Detail, ". ") // HTTP adds what to do
		if c.command == nil && a.Err.Code == fleet.NotFound {
			a.Err.Detail = fmt.Sprintf("there is no %s %s", c.query.Subject, c.query.ID)
		}
	}
	return a, err
}

// errBroken is a call whose connection ended before its answer.
var errBroken = errors.New("the connection broke")

// code is what a try came to, in one word.
func code(a fsm.Answer, err error) string {
	var e *fleet.Error
	switch {
	case errors.As(err, &e):
		return string(e.Code)
	case err != nil:
		return "connection broken"
	case a.Err != nil:
		return string(a.Err.Code)
	case a.Replayed:
		return "ok, replayed"
	}
	return "ok"
}

// wrote reports whether an answer shows that something was written.
func (c *call) wrote(a fsm.Answer, err error) bool {
	if c.command == nil || err != nil || a.Err != nil || a.Replayed {
		return false
	}
	switch r := a.Result.(type) {
	case *fleet.Claim:
		return r.Job != nil
	case *fleet.Claims:
		return len(r.Claims) > 0
	}
	return true
}

// newClient is a client of its own, whose connections nobody shares.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 2, DisableCompression: true,
	}}
}

// jobIDs gives a submit the ids that the node that took it made up: the model knows jobs by them.
func jobIDs(command, logged fsm.Command) {
	switch c := command.(type) {
	case *fsm.Submit:
		c.JobID = logged.(*fsm.Submit).JobID
	case *fsm.SubmitBatch:
		c.JobIDs = logged.(*fsm.SubmitBatch).JobIDs
	default:
		panic("no submit: " + reflect.TypeOf(command).String())
	}
}
