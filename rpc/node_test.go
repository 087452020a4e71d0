package rpc

// This file is the node under the tests: one state machine without a cluster, and a client to call the API with.

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

const rootToken = "root-token-of-the-tests"

// singleNode applies what is proposed at once. If canned is set it answers instead of the machine.
type singleNode struct {
	machine  *fsm.Machine
	draining chan struct{}
	canned   func(fsm.Proposal) (fsm.Answer, error)
	waits    bool // claims take as long as they may wait
	still    bool // neither the time nor the log index moves on, so that a refusal changes not one byte
	ready    error

	mu       sync.Mutex // guards what follows
	index    uint64
	feed     chan struct{}
	proposed []fsm.Proposal
}

func newSingleNode() *singleNode {
	return &singleNode{machine: fsm.New(), draining: make(chan struct{}), feed: make(chan struct{})}
}

func (n *singleNode) Propose(_ context.Context, p fsm.Proposal) (fsm.Answer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proposed = append(n.proposed, p)
	if n.canned != nil {
		return n.canned(p)
	}
	if !n.still || n.index == 0 {
		n.index++
	}
	answers, news := n.machine.Apply(n.index, &fsm.Entry{Stamp: n.Now(), Proposals: []fsm.Proposal{p}})
	if len(news.Feeds) > 0 || news.TokenEnded {
		close(n.feed)
		n.feed = make(chan struct{})
	}
	return answers[0], nil
}

func (n *singleNode) Claim(ctx context.Context, p fsm.Proposal, wait time.Duration) (fsm.Answer, error) {
	if n.waits {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fsm.Answer{}, ctx.Err()
		}
	}
	return n.Propose(ctx, p)
}

func (n *singleNode) Read(_ context.Context, _ cluster.Consistency, minIndex uint64, fn func(fsm.View)) error {
	if minIndex > n.machine.Index() {
		return fleet.Errorf(fleet.Behind, "this node has applied %d", n.machine.Index())
	}
	n.machine.View(fn)
	return nil
}

func (n *singleNode) View(fn func(fsm.View)) { n.machine.View(fn) }

func (n *singleNode) FeedChanged(string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.feed
}

func (n *singleNode) Name() string   { return "n1" }
func (n *singleNode) Leader() string { return "n1" }

func (n *singleNode) Now() fleet.Time {
	if n.still {
		return fleet.TimeOf(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	return fleet.TimeOf(time.Now())
}

func (n *singleNode) Draining() <-chan struct{} { return n.draining }
func (n *singleNode) Ready() error              { return n.ready }

func (n *singleNode) Status(context.Context) (*fleet.ClusterStatus, error) {
	return &fleet.ClusterStatus{ClusterID: "c1", Leader: "n1"}, nil
}

func (n *singleNode) Remove(context.Context, string) error {
	return fleet.Errorf(fleet.LastVoter, "n1 is the last voter")
}

func (n *singleNode) TransferLeadership(context.Context, string) error { return nil }

func (n *singleNode) WriteSnapshot(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "snapshot")
	return err
}

func (n *singleNode) Restore(_ context.Context, backup io.Reader, more uint64) (*fleet.RestoreResult, error) {
	b, err := io.ReadAll(backup)
	if err != nil {
		return nil, err
	}
	if string(b) != "snapshot" {
		return nil, fleet.Errorf(fleet.InvalidSnapshot, "%q is no snapshot", b)
	}
	return &fleet.RestoreResult{Tokens: []*fleet.Token{}, Index: 7, Generation: 1 + more}, nil
}

// client calls an API as root, in product p1, unless headers say otherwise.
type client struct {
	t   *testing.T
	api *API
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request, and holds it and its answer against the API's description. Headers are pairs; an empty value leaves a header out.
func (c client) call(method, path, body string, headers ...string) reply {
	c.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.Header.Set("Authorization", "Bearer "+rootToken)
	r.Header.Set("X-Product-Id", "p1")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, r)
	got := reply{w.Code, w.Header(), w.Body.String()}
	if node, ok := c.api.node.(*singleNode); ok && node.canned == nil {
		describes(c.t, c.api.router, r, body, got)
	}
	return got
}

// problem checks that an answer is a well-formed problem with this code.
func (c client) problem(r reply, code fleet.Code) problem {
	c.t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		c.t.Fatalf("got %d %s, want a problem: %v", r.status, r.body, err)
	}
	if p.Code != code || r.status != statuses[code] || p.Status != r.status {
		c.t.Fatalf("got %d %s, want %d with code %s", r.status, r.body, statuses[code], code)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		c.t.Errorf("Content-Type: got %q, want application/problem+json", got)
	}
	if p.RequestID == "" || p.RequestID != r.header.Get("X-Request-Id") {
		c.t.Errorf("requestId: got %q, want that of the header, %q", p.RequestID, r.header.Get("X-Request-Id"))
	}
	if p.Type != "urn:fleet:problem:"+string(code) || p.Title == "" || p.Detail == "" {
		c.t.Errorf("got %s, want type, title and detail", r.body)
	}
	return p
}

// as decodes a successful answer.
func as[T any](t *testing.T, r reply, status int) (v T) {
	t.Helper()
	if r.status != status {
		t.Fatalf("got %d %s, want %d", r.status, r.body, status)
	}
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("decoding %s: %v", r.body, err)
	}
	return v
}

func newClient(t *testing.T) (client, *singleNode) {
	node := newSingleNode()
	return client{t, New(Config{Node: node, RootToken: []byte(rootToken)})}, node
}

// answering makes the node answer every proposal with one result.
func answering(n *singleNode, r fsm.Result) {
	n.canned = func(fsm.Proposal) (fsm.Answer, error) { return fsm.Answer{Result: r, Index: 7}, nil }
}

var errBroken = errors.New("broken")
