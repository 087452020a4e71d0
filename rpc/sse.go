package rpc

// This file is the live feed: server-sent events that resume where a reader left off.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// How a stream behaves in time.
const (
	heartbeatEvery = 15 * time.Second // a comment line: proxies cut what is silent
	eventWait      = 10 * time.Second // a reader that takes a chunk no faster is dropped
	retryMillis    = 2000             // what a reader waits before it reconnects
	streamBatch    = 256              // events per look at the state
	streamChunk    = 32 << 10         // bytes after which what is gathered is sent
)

// stream writes the product's events after an index (nil: from now on) until the reader goes, the node drains, or the
// caller may not read any more.
func (a *API) stream(ctx context.Context, w http.ResponseWriter, c *request, after *uint64) (any, error) {
	var begin start
	if err := a.read(ctx, c, func(v fsm.View) error {
		begin = startOfFeed(v, c.product, after)
		return nil
	}); err != nil {
		return nil, err
	}
	a.metrics.sseClients.Inc()
	defer a.metrics.sseClients.Dec()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	a.stamp(h, c)
	w.WriteHeader(http.StatusOK)
	s := &eventWriter{w: w, control: http.NewResponseController(w), frames: a.frames}
	fmt.Fprintf(&s.buf, "retry: %d\n\n", retryMillis)
	if begin.gap {
		fmt.Fprintf(&s.buf, "event: gap\ndata: {\"first\":%d}\n\n", begin.first)
	}
	if err := s.flush(); err != nil {
		return streamed, nil //nolint:nilerror // the reader went: nobody is left to tell
	}
	a.follow(ctx, s, c, begin.after)
	return streamed, nil
}

// start is where a stream begins.
type start struct {
	after uint64
	first uint64
	gap   bool // what came between after and first is gone
}

func startOfFeed(v fsm.View, product string, after *uint64) start {
	if after == nil {
		_, _, last := v.Feed(product, math.MaxUint64, 1)
		return start{after: last}
	}
	_, first, _ := v.Feed(product, *after, 1)
	return start{after: *after, first: first, gap: *after > 0 && first > 0 && *after < first-1}
}

// follow writes what is there, and then what comes.
func (a *API) follow(ctx context.Context, s *eventWriter, c *request, after uint64) {
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	var events []*fleet.Event
	var refused error
	look := func(v fsm.View) {
		if refused = v.Authorize(c.caller, fleet.RoleReader, c.product); refused == nil {
			events, _, _ = v.Feed(c.product, after, streamBatch)
		}
	}
	for {
		changed := a.node.FeedChanged(c.product) // before the look: what comes after it, and the end of a token, closes this
		if err := a.node.Read(ctx, cluster.Stale, 0, look); err != nil || refused != nil {
			return
		}
		if err := s.events(events); err != nil {
			return
		}
		if len(events) > 0 {
			after = events[len(events)-1].Index
		}
		if len(events) == streamBatch {
			select {
			case <-ctx.Done():
				return
			case <-a.node.Draining():
				return
			default:
				continue
			}
		}
		select {
		case <-changed:
		case <-heartbeat.C:
			s.buf.WriteString(": keep-alive\n\n")
			if err := s.flush(); err != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-a.node.Draining():
			return
		}
	}
}

// eventWriter writes events, a chunk of them at a time, each with a deadline of its own.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	frames  *frames
	buf     bytes.Buffer
}

// events writes events.
func (s *eventWriter) events(events []*fleet.Event) error {
	for _, e := range events {
		frame, err := s.frames.of(e)
		if err != nil {
			return err
		}
		s.buf.Write(frame)
		if s.buf.Len() >= streamChunk {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return s.flush()
}

func (s *eventWriter) flush() error {
	if s.buf.Len() == 0 {
		return nil
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(eventWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := s.w.Write(s.buf.Bytes())
	s.buf.Reset()
	if err != nil {
		return err
	}
	return s.control.Flush()
}
