package client

// This file is how a call is made: which address, how often, how long between, and when to give up.

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// How attempts follow each other. An attempt that takes longer than attemptWait is taken for one at a dead node: the
// same key makes it safe to ask another one.
const (
	attemptWait  = 12 * time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 2 * time.Second

	maxAnswer  = 1 << 30 // a page of 1,000 jobs with bodies of 1 MiB
	maxProblem = 1 << 20
)

var (
	errSlow    = errors.New("the node did not answer in time")
	errGarbage = errors.New("the answer is not what a node of a fleet sends")
)

// call is one request, whichever node it goes to.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
	open         func() (io.ReadCloser, error) // instead of body, what is too large for memory
	size         int64                         // of what open opens
	once         bool                          // made again only if nothing was done
	key          string                        // the Idempotency-Key. Empty: a fresh one, if the call changes anything
	keyless      bool                          // a repeat does no harm, and is not remembered
	wait         time.Duration                 // what the call waits for by its own wish
	stream       bool                          // the answer goes on for as long as it likes
}

// answer is what came of a call: the status, the headers, and the body, open only if the call is a stream.
type answer struct {
	status int
	header http.Header
	body   []byte
	stream io.ReadCloser
}

// do makes a call and decodes its answer into out, unless it is nil or there is no body.
func (c *Client) do(ctx context.Context, in *call, body, out any) (*answer, error) {
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the body of %s %s: %w", in.method, in.path, err)
		}
		in.body = b
	}
	a, err := c.send(ctx, in)
	if err != nil || out == nil || len(a.body) == 0 {
		return a, err
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", in.method, in.path, err)
	}
	return a, nil
}

// send attempts a call until it is answered, refused for good, or patience or ctx end.
func (c *Client) send(ctx context.Context, in *call) (*answer, error) {
	header := c.headers(in)
	if in.method != http.MethodGet && !in.keyless {
		if in.key == "" {
			in.key = rand.Text()
		}
		header.Set("Idempotency-Key", in.key) // one for all attempts
	}
	var (
		tried   []string
		giveUp  time.Time
		backoff = firstBackoff
		n       = uint64(len(c.shared.addresses))
	)
	for attempt := uint64(1); ; attempt++ {
		at := c.shared.next.Load()
		base := c.shared.addresses[at%n]
		a, err := c.attempt(ctx, base, in, header)
		if err == nil {
			return a, nil
		}
		if !slices.Contains(tried, base) {
			tried = append(tried, base)
		}
		pause, curable := cure(err)
		if in.once && !errors.Is(err, fleet.NoLeader) && !errors.Is(err, syscall.ECONNREFUSED) {
			curable = false
		}
		if curable && !errors.Is(ctx.Err(), context.Canceled) { // a caller who goes is not the node's fault
			c.shared.next.CompareAndSwap(at, at+1)
		}
		if ctx.Err() != nil || !curable {
			return nil, explain(ctx, err, tried)
		}
		now := time.Now()
		if giveUp.IsZero() {
			giveUp = now.Add(c.config.Patience)
		}
		if attempt < n && !errors.Is(err, fleet.RateLimited) {
			continue // another node may know better at once
		}
		if attempt%n == 0 || errors.Is(err, fleet.RateLimited) {
			pause = max(pause, backoff/2+mathrand.N(backoff/2))
			backoff = min(2*backoff, lastBackoff)
		} else {
			pause = 0
		}
		if now.Add(pause).After(giveUp) {
			return nil, explain(ctx, err, tried)
		}
		if sleep(ctx, pause) != nil {
			return nil, explain(ctx, err, tried)
		}
	}
}

// headers are those that every attempt of a call carries.
func (c *Client) headers(in *call) http.Header {
	h := http.Header{}
	if in.header != nil {
		h = in.header.Clone()
	}
	h.Set("User-Agent", c.config.UserAgent)
	if c.config.Token != "" {
		h.Set("Authorization", "Bearer "+c.config.Token)
	}
	if c.config.Product != "" && strings.HasPrefix(in.path, "/fleet/") {
		h.Set("X-Product-Id", c.config.Product)
	}
	switch {
	case in.body != nil:
		h.Set("Content-Type", "application/json")
	case in.open != nil:
		h.Set("Content-Type", "application/octet-stream")
	}
	if c.config.ReadYourWrites && in.method == http.MethodGet && h.Get("Fleet-Min-Index") == "" && !in.stream {
		if index := c.shared.index.Load(); index > 0 && strings.HasPrefix(in.path, "/fleet/") {
			h.Set("Fleet-Min-Index", strconv.FormatUint(index, 10))
		}
	}
	return h
}

// attempt asks one node once.
func (c *Client) attempt(ctx context.Context, base string, in *call, header http.Header) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(c.attemptLimit(ctx, in.wait), func() { cancel(errSlow) })
	if in.stream {
		defer limit.Stop() // it bounds only what comes before the answer's body
	}
	address := base + in.path
	if len(in.query) > 0 {
		address += "?" + in.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, in.method, address, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	request.Header = header.Clone()
	if in.body != nil {
		request.Body = io.NopCloser(bytes.NewReader(in.body))
		request.ContentLength = int64(len(in.body))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(in.body)), nil }
	}
	if in.open != nil {
		if request.Body, err = in.open(); err != nil {
			cancel(nil)
			return nil, err
		}
		request.ContentLength, request.GetBody = in.size, in.open
	}
	response, err := c.config.HTTPClient.Do(request)
	if err != nil {
		return nil, finish(ctx, cancel, limit, &unreachableError{err})
	}
	c.note(response.Header)
	a := &answer{status: response.StatusCode, header: response.Header}
	if in.stream && response.StatusCode < 300 {
		a.stream = &streamBody{response.Body, func() { cancel(nil) }}
		return a, nil
	}
	defer response.Body.Close()
	if a.body, err = readAnswer(response); err != nil {
		return nil, finish(ctx, cancel, limit, &unreachableError{err})
	}
	limit.Stop()
	cancel(nil)
	if response.StatusCode >= 300 {
		return nil, refusal(in, response, a.body)
	}
	return a, nil
}

// attemptLimit is how long one attempt may take. Of a call with a deadline it leaves half of the time to another node:
// one that hangs must not cost a lease.
func (c *Client) attemptLimit(ctx context.Context, wait time.Duration) time.Duration {
	limit := attemptWait
	if deadline, ok := ctx.Deadline(); ok && len(c.shared.addresses) > 1 {
		if left := time.Until(deadline) - wait; left > 0 {
			limit = min(limit, left/2)
		}
	}
	return limit + wait
}

// readAnswer reads a body whole. A success that is not JSON did not come from a node, or not whole: it counts as no
// answer, so that the call is made again under its key.
func readAnswer(response *http.Response) ([]byte, error) {
	if response.StatusCode >= 300 {
		return io.ReadAll(io.LimitReader(response.Body, maxProblem))
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("%w: it is over %d bytes", errGarbage, maxAnswer)
	case len(b) > 0 && !jsontext.Value(b).IsValid():
		return nil, fmt.Errorf("%w: %s with a body that is not JSON", errGarbage, response.Status)
	}
	return b, nil
}

// finish ends an attempt that failed and says so if it was for being slow.
func finish(ctx context.Context, cancel context.CancelCauseFunc, limit *time.Timer, err *unreachableError) error {
	limit.Stop()
	if errors.Is(context.Cause(ctx), errSlow) {
		err.err = fmt.Errorf("%w: %w", errSlow, err.err)
	}
	cancel(nil)
	return err
}

// note remembers the log index that an answer reflects.
func (c *Client) note(h http.Header) {
	if index, err := strconv.ParseUint(h.Get("Fleet-Index"), 10, 64); err == nil {
		c.shared.saw(index)
	}
}

// streamBody ends its request when it is closed.
type streamBody struct {
	io.ReadCloser
	end func()
}

func (b *streamBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

// sleep waits, or returns early with the reason why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
