package client

// This file follows the product's feed over reconnects and from node to node.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/tmaxmax/go-sse"

	"github.com/lysnrai/fleet"
)

const (
	feedPath = "/fleet/events"

	// FromNow is the after with which Events begins with what comes next. What happens before the first event is read
	// may be missed if the connection is lost then.
	FromNow uint64 = math.MaxUint64

	maxEventBytes = 8 << 20
	silence       = 45 * time.Second // three of the server's keep-alives
)

// Gap is yielded as an error when events after the one asked for are not kept any more. The feed goes on with First.
type Gap struct {
	First uint64 `json:"first"`
}

func (g *Gap) Error() string {
	return fmt.Sprintf("events before index %d are not kept any more", g.First)
}

// Events yields what happens in the product after an index (0: from the oldest that is kept; FromNow), live, in order,
// each once, until ctx ends. It reconnects by itself and resumes where it was. Errors are yielded with a zero event: a
// *Gap, trouble that lasts longer than the client's patience, or a refusal for good; the feed goes on after the first two
// if the loop does.
func (c *Client) Events(ctx context.Context, after uint64) iter.Seq2[fleet.Event, error] {
	return func(yield func(fleet.Event, error) bool) {
		backoff := firstBackoff
		for ctx.Err() == nil {
			body, err := c.openFeed(ctx, after)
			var refused *fleet.Error
			switch {
			case err != nil && ctx.Err() != nil:
				return
			case errors.As(err, &refused) && !passing[refused.Code]:
				yield(fleet.Event{}, err)
				return
			case err != nil:
				if !yield(fleet.Event{}, err) {
					return
				}
			default:
				seen, goOn := readFeed(body, &after, yield)
				if !goOn {
					return
				}
				if seen {
					backoff = firstBackoff
				}
				c.shared.next.Add(1) // this node went: begin with another
			}
			if sleep(ctx, backoff) != nil {
				return
			}
			backoff = min(2*backoff, lastBackoff)
		}
	}
}

// passing is the refusals that another time or another node may not repeat.
var passing = map[fleet.Code]bool{
	fleet.NoLeader: true, fleet.Behind: true, fleet.DiskFull: true, fleet.OutcomeUnknown: true, fleet.RateLimited: true,
	fleet.Internal: true, // also what a proxy says for itself
}

// openFeed connects to a node's feed.
func (c *Client) openFeed(ctx context.Context, after uint64) (io.ReadCloser, error) {
	in := &call{method: http.MethodGet, path: feedPath, query: url.Values{}, stream: true}
	in.header = http.Header{"Accept": {"text/event-stream"}}
	if after != FromNow {
		in.header.Set("Last-Event-ID", strconv.FormatUint(after, 10))
	}
	a, err := c.send(ctx, in)
	if err != nil {
		return nil, err
	}
	return a.stream, nil
}

// readFeed yields what one connection brings, and moves after along.
func readFeed(body io.ReadCloser, after *uint64, yield func(fleet.Event, error) bool) (seen, goOn bool) {
	alive := &aliveReader{ReadCloser: body}
	alive.timer = time.AfterFunc(silence, func() { _ = body.Close() })
	defer alive.Close()
	for message, err := range sse.Read(alive, &sse.ReadConfig{MaxEventSize: maxEventBytes}) {
		if err != nil {
			return seen, true
		}
		if message.Type == "gap" {
			gap := &Gap{}
			if err := json.Unmarshal([]byte(message.Data), gap); err != nil {
				return seen, true
			}
			if gap.First > 0 && *after != FromNow {
				*after = max(*after, gap.First-1) // told once
			}
			if !yield(fleet.Event{}, gap) {
				return seen, false
			}
			continue
		}
		var event fleet.Event
		if err := json.Unmarshal([]byte(message.Data), &event); err != nil {
			return seen, yield(fleet.Event{}, fmt.Errorf("reading event %s of the feed: %w", message.LastEventID, err))
		}
		if *after != FromNow && event.Index <= *after {
			continue
		}
		*after, seen = event.Index, true
		if !yield(event, nil) {
			return seen, false
		}
	}
	return seen, true
}

// aliveReader closes a stream on which not even keep-alives come any more.
type aliveReader struct {
	io.ReadCloser
	timer *time.Timer
}

func (r *aliveReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		r.timer.Reset(silence)
	}
	return n, err
}

func (r *aliveReader) Close() error {
	r.timer.Stop()
	return r.ReadCloser.Close()
}
