package rpc

// This file is what happens to every call, whatever it asks for: who, what, the handler, the answer, the count, the log.

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// How long a call may take beside what it waits for by its own wish, and when it counts as slow.
const (
	callWait  = 30 * time.Second
	writeWait = 30 * time.Second
	slow      = time.Second
)

// request is what is known of a call when its handler begins, and what the handler found out beside its answer.
type request struct {
	*http.Request
	id      string // X-Request-Id
	caller  fsm.Caller
	product string // empty on /cluster
	vars    map[string]string
	query   query

	// Of writes.
	ifMatch fsm.IfMatch
	key     string
	digest  string

	// Of reads.
	consistency cluster.Consistency
	minIndex    uint64
	noneMatch   noneMatch
	role        fleet.Role // what a read asks for

	index    uint64 // the log index that the answer reflects, zero if none does
	replayed bool
}

// call is a request with its decoded body.
type call[B any] struct {
	*request
	Body B
}

var (
	errPanic     = errors.New("a handler panicked")
	errLogSilent = fleet.Errorf(fleet.OutcomeUnknown,
		"the log did not answer in time: send the same request with the same Idempotency-Key to learn the outcome")
	errLeaderSilent = fleet.Errorf(fleet.NoLeader, "the leader did not answer within %v", callWait)
	errNoRoute      = fleet.Errorf(fleet.NotFound, "there is nothing at this path; GET /openapi.json lists all that there is")
)

// none is the body of a call that has none.
type none struct{}

// validator is a body that can judge itself.
type validator interface{ Validate() []fleet.FieldError }

// endpoint is a handler without its types.
type endpoint func(ctx context.Context, w http.ResponseWriter, c *request, body []byte) (any, error)

// reads makes an endpoint of a handler that changes nothing.
func reads[R any](fn func(context.Context, *request) (R, error)) endpoint {
	return func(ctx context.Context, _ http.ResponseWriter, c *request, _ []byte) (any, error) { return fn(ctx, c) }
}

// streams makes an endpoint of a handler that may write its answer itself; it returns nil then.
func streams(fn func(context.Context, http.ResponseWriter, *request) (any, error)) endpoint {
	return func(ctx context.Context, w http.ResponseWriter, c *request, _ []byte) (any, error) {
		return fn(ctx, w, c)
	}
}

// takes makes an endpoint of a handler with a body. A body that judges itself is judged before the handler sees it.
func takes[B, R any](fn func(context.Context, *call[B]) (R, error)) endpoint {
	return func(ctx context.Context, _ http.ResponseWriter, c *request, body []byte) (any, error) {
		in := call[B]{request: c}
		if err := decode(body, &in.Body); err != nil {
			return nil, err
		}
		if v, ok := any(&in.Body).(validator); ok {
			if err := invalid(v.Validate()); err != nil {
				return nil, err
			}
		}
		return fn(ctx, &in)
	}
}

// mayTake is takes for a body that may be left out.
func mayTake[B, R any](fn func(context.Context, *call[B]) (R, error)) endpoint {
	strict := takes(fn)
	return func(ctx context.Context, w http.ResponseWriter, c *request, body []byte) (any, error) {
		if len(body) == 0 {
			body = []byte("{}")
		}
		return strict(ctx, w, c, body)
	}
}

// invalid is the refusal for what Validate found, nil if that is nothing.
func invalid(fields []fleet.FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	e := fleet.InvalidField(fields[0].Field, "%s", fields[0].Detail)
	e.Fields = fields
	return e
}

// handle makes the http.Handler of one route.
func (a *API) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		c := &request{Request: r, id: a.requestID(r.Header), role: rt.roles[0]}
		w.Header().Set("X-Request-Id", c.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer, err := a.serve(w, c, rt)
		limitWrite(w)
		a.stamp(w.Header(), c)
		var status int
		switch {
		case err != nil:
			status = refuse(w, c.id, err)
		case answer == streamed:
			status = http.StatusOK
		default:
			status = present(w, c, answer)
		}
		took := time.Since(began)
		a.metrics.answered(rt.path, rt.method, status, took)
		a.logCall(c, rt, status, took, err)
	})
}

// limitWrite gives up on a client that does not take its answer. A connection keeps its deadline, so every call sets its
// own.
func limitWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWait)) // not every writer has deadlines
}

// serve does everything but write the answer. A panic is a fault of ours, but not a reason to end the node.
func (a *API) serve(w http.ResponseWriter, c *request, rt route) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p)
			}
			a.log.Error("a handler panicked", "requestId", c.id, "panic", p, "stack", string(debug.Stack()))
			answer, err = nil, errPanic
		}
	}()
	ctx := c.Context()
	if err := a.admit(ctx, c, rt); err != nil {
		return nil, err
	}
	if c.query, err = parseQuery(c.Request, rt.params); err != nil {
		return nil, err
	}
	if rt.method == http.MethodGet {
		if err := c.readHeaders(); err != nil {
			return nil, err
		}
		return rt.serve(ctx, w, c, nil)
	}
	if rt.raw {
		return rt.serve(ctx, w, c, nil)
	}
	body, err := readBody(w, c.Request, rt.limit)
	if err != nil {
		return nil, err
	}
	if err := c.writeHeaders(body); err != nil {
		return nil, err
	}
	return rt.serve(ctx, w, c, body)
}

// admit finds out who calls, in which product, and whether the route is open to them at all.
func (a *API) admit(ctx context.Context, c *request, rt route) error {
	if err := c.unescape(); err != nil {
		return err
	}
	caller, products, err := a.authenticate(ctx, c.Request)
	if err != nil {
		return err
	}
	c.caller = caller
	if strings.HasPrefix(rt.path, fleetRoot) {
		if c.product, err = product(c.Header, products); err != nil {
			return err
		}
	}
	return a.authorize(c, rt.roles...)
}

// unescape takes the variables out of the path, in which a name may carry any escaped byte.
func (c *request) unescape() error {
	escaped := mux.Vars(c.Request)
	c.vars = make(map[string]string, len(escaped))
	for name, value := range escaped {
		plain, err := url.PathUnescape(value)
		if err != nil {
			return errNoRoute
		}
		c.vars[name] = plain
	}
	return nil
}

func (c *request) readHeaders() (err error) {
	if c.consistency, err = c.query.consistency(); err != nil {
		return err
	}
	if c.minIndex, err = minIndex(c.Header); err != nil {
		return err
	}
	c.noneMatch, err = ifNoneMatch(c.Header)
	return err
}

// writeHeaders reads what a write carries beside its body, and takes the digest by which a repeat is known.
func (c *request) writeHeaders(body []byte) (err error) {
	if c.key, err = idempotencyKey(c.Header); err != nil {
		return err
	}
	if c.ifMatch, err = ifMatch(c.Header); err != nil {
		return err
	}
	if c.key == "" {
		return nil
	}
	h := sha256.New()
	for _, part := range [][]byte{
		[]byte(c.Method), []byte(c.URL.EscapedPath()), []byte(c.URL.RawQuery), []byte(strings.Join(c.Header.Values("If-Match"), ",")), body,
	} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	c.digest = string(h.Sum(nil))
	return nil
}

// stamp says of every answer whether it is a repeat, and of one below /fleet which log index it reflects and who leads.
func (a *API) stamp(h http.Header, c *request) {
	if c.replayed {
		h.Set("Fleet-Replayed", "true")
	}
	if !strings.HasPrefix(c.URL.Path, fleetRoot) {
		return
	}
	index := c.index
	if index == 0 {
		a.node.View(func(v fsm.View) { index = v.Index() })
	}
	h.Set("Fleet-Index", strconv.FormatUint(index, 10))
	if leader := a.node.Leader(); leader != "" {
		h.Set("Fleet-Leader", leader)
	}
}

// logCall writes one line for a call. The Authorization header is in none.
func (a *API) logCall(c *request, rt route, status int, took time.Duration, err error) {
	level, message := hclog.Debug, "a call"
	switch {
	case c.Context().Err() != nil:
		message = "a caller went before its answer"
	case errors.Is(err, fleet.DiskFull):
		message = "a call found no room" // the node says so once a minute, for a log takes room too
	case status >= http.StatusInternalServerError:
		level, message = hclog.Error, "a call failed"
	case took > slow && !rt.waits:
		level, message = hclog.Warn, "a call was slow"
	}
	if level == hclog.Debug && !a.log.IsDebug() {
		return
	}
	args := []any{
		"method", rt.method, "route", rt.path, "status", status, "durationSeconds", took.Seconds(),
		"actor", c.caller.Actor, "remote", c.RemoteAddr, "requestId", c.id,
	}
	if err != nil {
		args = append(args, "error", err)
	}
	a.log.Log(level, message, args...)
}

// propose puts a command into the log for the caller and returns what it came to.
func propose[R fsm.Result](ctx context.Context, a *API, c *request, command fsm.Command) (R, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callWait, errLogSilent)
	defer cancel()
	answer, err := a.node.Propose(ctx, c.proposal(command))
	return result[R](c, answer, err)
}

func (c *request) proposal(command fsm.Command) fsm.Proposal {
	return fsm.Proposal{Caller: c.caller, Key: c.key, Request: c.digest, Command: command}
}

// result takes an answer apart: what it reflects is the request's, what it says the handler's.
func result[R fsm.Result](c *request, answer fsm.Answer, err error) (R, error) {
	var nothing R
	if err != nil {
		return nothing, err
	}
	c.index, c.replayed = answer.Index, answer.Replayed
	if answer.Err != nil {
		return nothing, answer.Err
	}
	r, ok := answer.Result.(R)
	if !ok {
		return nothing, fmt.Errorf("the command answered with a %T, not a %T", answer.Result, nothing)
	}
	return r, nil
}

// read calls fn with a view as fresh as the call asked for, if the caller may still read there.
func (a *API) read(ctx context.Context, c *request, fn func(v fsm.View) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callWait, errLeaderSilent)
	defer cancel()
	var refused error
	err := a.node.Read(ctx, c.consistency, c.minIndex, func(v fsm.View) {
		c.index = v.Index()
		if refused = v.Authorize(c.caller, c.role, c.product); refused == nil {
			refused = fn(v)
		}
	})
	if err != nil {
		return err
	}
	return refused
}

// noSuch refuses what is not in the product, whether or not it is in another one.
func noSuch(what, id string) error {
	return fleet.Errorf(fleet.NotFound, "there is no %s %.*q in this product; check the id and X-Product-Id", what, fleet.MaxName, id)
}
