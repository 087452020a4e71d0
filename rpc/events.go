package rpc

// This file is the calls about what happened to a job and what it left behind.

import (
	"context"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

type runList struct {
	Runs []*fleet.Run `json:"runs"`
}

func (a *API) runs(ctx context.Context, c *request) (*runList, error) {
	var list runList
	err := a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if list.Runs, found = v.Runs(c.product, c.vars["id"]); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return &list, err
}

type artifactList struct {
	Artifacts []*fleet.Artifact `json:"artifacts"`
}

func (a *API) artifacts(ctx context.Context, c *request) (*artifactList, error) {
	var list artifactList
	err := a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if list.Artifacts, found = v.Artifacts(c.product, c.vars["id"]); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return &list, err
}

func (a *API) addArtifact(ctx context.Context, c *call[fleet.ArtifactRequest]) (*fleet.Artifact, error) {
	return propose[*fleet.Artifact](ctx, a, c.request, &fsm.AddArtifact{ProductID: c.product, JobID: c.vars["id"], Request: c.Body})
}

func (a *API) comment(ctx context.Context, c *call[fleet.CommentRequest]) (*fleet.Event, error) {
	return propose[*fleet.Event](ctx, a, c.request, &fsm.Comment{
		ProductID: c.product, JobID: c.vars["id"], LeaseEpoch: c.Body.LeaseEpoch, Data: c.Body.Data,
	})
}

type eventList struct {
	Events []*fleet.Event `json:"events"`
}

func (a *API) jobEvents(ctx context.Context, c *request) (*eventList, error) {
	after, limit, err := c.eventPage()
	if err != nil {
		return nil, err
	}
	var list eventList
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if list.Events, found = v.Events(c.product, c.vars["id"], after, limit); !found {
			return noSuch("job", c.vars["id"])
		}
		return nil
	})
	return &list, err
}

// eventPage is after which event a page begins, and how long it may be.
func (c *request) eventPage() (after uint64, limit int, err error) {
	if after, err = c.query.number("after", 0, math.MaxUint64, 0); err != nil {
		return 0, 0, err
	}
	limit, err = c.query.page()
	return after, limit, err
}

// feed is the product's events: a page of them, or all that come, live.
func (a *API) feed(ctx context.Context, w http.ResponseWriter, c *request) (any, error) {
	after, limit, err := c.eventPage()
	if err != nil {
		return nil, err
	}
	if acceptsEventStream(c.Header) {
		resumed, err := c.resumesAt(after)
		if err != nil {
			return nil, err
		}
		return a.stream(ctx, w, c, resumed)
	}
	var list eventList
	err = a.read(ctx, c, func(v fsm.View) error {
		list.Events, _, _ = v.Feed(c.product, after, limit)
		return nil
	})
	return &list, err
}

// acceptsEventStream reports whether the caller wants the live feed.
func acceptsEventStream(h http.Header) bool {
	for _, accepted := range strings.Split(strings.Join(h.Values("Accept"), ","), ",") {
		if media, _, err := mime.ParseMediaType(accepted); err == nil && media == "text/event-stream" {
			return true
		}
	}
	return false
}

// resumesAt is the index that a live reader has seen last, nil if it wants what comes from now on. A browser that
// reconnects sends the address it began with and what it has seen since: the latter counts.
func (c *request) resumesAt(after uint64) (*uint64, error) {
	if ids := c.Header.Values("Last-Event-ID"); len(ids) > 0 {
		id, err := strconv.ParseUint(ids[0], 10, 64)
		if len(ids) > 1 || err != nil {
			return nil, fleet.InvalidField("Last-Event-ID", "must be one whole number, the id of an event of this feed")
		}
		return &id, nil
	}
	if c.query.has("after") {
		return &after, nil
	}
	return nil, nil
}
