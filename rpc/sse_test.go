package rpc

// This file reads feeds live, in virtual time.

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// reader is somebody who reads a feed live.
type reader struct {
	mu     sync.Mutex // guards what follows
	header http.Header
	status int
	text   bytes.Buffer

	leave context.CancelFunc
	ended chan struct{}
}

func (r *reader) Header() http.Header { return r.header }
func (r *reader) Flush()              {}

func (r *reader) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// got is what was read so far, once all is quiet.
func (r *reader) got() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// stream begins to read the feed of p1.
func (c client) stream(query string, headers ...string) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{header: http.Header{}, leave: cancel, ended: make(chan struct{})}
	req := httptest.NewRequestWithContext(ctx, "GET", "/fleet/events"+query, nil)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+rootToken)
	req.Header.Set("X-Product-Id", "p1")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	go func() {
		defer close(r.ended)
		c.api.ServeHTTP(r, req)
	}()
	synctest.Wait()
	return r
}

func TestStreamResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, node := newClient(t)
		for i := range 3 {
			submitted(t, c, fmt.Sprint("k", i))
		}
		all := as[eventList](t, c.call("GET", "/fleet/events", ""), http.StatusOK).Events
		if len(all) != 3 {
			t.Fatalf("got %d events, want 3", len(all))
		}
		now := c.stream("")
		fromStart := c.stream("?after=0")
		after := c.stream(fmt.Sprint("?after=", all[0].Index))
		resumed := c.stream("?after=0", "Last-Event-ID", fmt.Sprint(all[1].Index))
		submitted(t, c, "k3")
		last := as[eventList](t, c.call("GET", fmt.Sprint("/fleet/events?after=", all[2].Index), ""), http.StatusOK).Events[0]
		for name, want := range map[string]struct {
			r      *reader
			events []*fleet.Event
		}{
			"now":       {now, []*fleet.Event{last}},
			"fromStart": {fromStart, append(all[:3:3], last)},
			"after":     {after, append(all[1:3:3], last)},
			"resumed":   {resumed, append(all[2:3:3], last)},
		} {
			text := want.r.got()
			if !strings.HasPrefix(text, "retry: 2000\n\n") || strings.Contains(text, "gap") {
				t.Errorf("%s: got %q, want a retry line first and no gap", name, text)
			}
			if got := strings.Count(text, "\ndata: "); got != len(want.events) {
				t.Errorf("%s: got %d events, want %d", name, got, len(want.events))
			}
			for _, e := range want.events {
				if line := fmt.Sprintf("id: %d\nevent: submitted\ndata: {\"seq\":", e.Index); strings.Count(text, line) != 1 {
					t.Errorf("%s: got %q, want %q in it once", name, text, line)
				}
			}
		}
		if got := now.header; got.Get("Content-Type") != "text/event-stream" || got.Get("X-Accel-Buffering") != "no" || got.Get("Fleet-Index") == "" {
			t.Errorf("got headers %v", got)
		}
		before := now.got()
		time.Sleep(31 * time.Second)
		if got := strings.TrimPrefix(now.got(), before); got != ": keep-alive\n\n: keep-alive\n\n" {
			t.Errorf("in 31 s of silence: got %q, want two comments", got)
		}
		fromStart.leave()
		<-fromStart.ended
		close(node.draining)
		<-now.ended
		<-after.ended
		<-resumed.ended
	})
}

func TestStreamEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t)
		token := as[newToken](t, c.call("POST", "/cluster/tokens", `{"roles":["reader"],"products":["p1"]}`), http.StatusCreated)
		r := c.stream("", "Authorization", "Bearer "+token.Secret)
		c.call("DELETE", "/cluster/tokens/"+token.ID, "")
		revoked := time.Now()
		<-r.ended
		if took := time.Since(revoked); took > time.Second {
			t.Errorf("the stream ended after %v, want 1 s at most", took)
		}
		submitted(t, c, "a")
		if strings.Contains(r.got(), "submitted") {
			t.Errorf("got %q after the token was revoked", r.got())
		}
	})
}

func TestStreamRefusesBadPositions(t *testing.T) {
	c, _ := newClient(t)
	for _, id := range []string{"x", "-1", "1\r\n2", "18446744073709551616"} {
		c.problem(c.call("GET", "/fleet/events", "", "Accept", "text/event-stream", "Last-Event-ID", id), fleet.Invalid)
	}
}

// A reader whose position is older than all that is kept is told of the gap, without an id, and then gets what is kept;
// one that asks for the oldest kept has no gap.
func TestStreamTellsOfAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, node := newClient(t)
		for i := range 3 {
			job := submitted(t, c, fmt.Sprint("k", i))
			if i < 2 {
				c.call("POST", "/fleet/jobs/"+job.ID+"/cancel", "")
			}
		}
		time.Sleep(time.Hour)
		_, err := node.Propose(t.Context(), fsm.Proposal{
			Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Reap{Limit: 100, RetentionSeconds: 60},
		})
		if err != nil {
			t.Fatal(err)
		}
		kept := as[eventList](t, c.call("GET", "/fleet/events", ""), http.StatusOK).Events
		if len(kept) != 1 {
			t.Fatalf("got %d events kept, want that of the job that has not ended", len(kept))
		}
		event := fmt.Sprintf("id: %d\nevent: submitted\ndata: {", kept[0].Index)
		gap := fmt.Sprintf("retry: 2000\n\nevent: gap\ndata: {\"first\":%d}\n\n"+event, kept[0].Index)
		for _, old := range []*reader{c.stream("?after=1"), c.stream("", "Last-Event-ID", "1")} {
			if got := old.got(); !strings.HasPrefix(got, gap) {
				t.Errorf("got %q, want %q first", got, gap)
			}
			old.leave()
			<-old.ended
		}
		for _, whole := range []*reader{c.stream("?after=0"), c.stream(fmt.Sprint("?after=", kept[0].Index-1))} {
			if got := whole.got(); !strings.HasPrefix(got, "retry: 2000\n\n"+event) {
				t.Errorf("got %q, want no gap, then %q", got, event)
			}
			whole.leave()
			<-whole.ended
		}
	})
}

// A long replay comes whole, in order, in chunks.
func TestStreamReplaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t)
		job := submitted(t, c, "k")
		text := strings.Repeat("x", 500)
		for range 2 * streamBatch {
			c.call("POST", "/fleet/jobs/"+job.ID+"/events", `{"data":{"text":"`+text+`"}}`)
		}
		r := c.stream("?after=0")
		ids := regexp.MustCompile(`(?m)^id: (\d+)$`).FindAllStringSubmatch(r.got(), -1)
		if len(ids) != 2*streamBatch+1 {
			t.Fatalf("got %d events, want %d", len(ids), 2*streamBatch+1)
		}
		for i, id := range ids {
			if id[1] != fmt.Sprint(i+1) {
				t.Fatalf("event %d: got id %s", i, id[1])
			}
		}
		r.leave()
		<-r.ended
	})
}
