package client

// This file is the calls about what happened to a job and what it left behind, and about profiles.

import (
	"context"
	"net/url"
	"strconv"

	"github.com/lysnrai/fleet"
)

// Runs reads all attempts at a job.
func (c *Client) Runs(ctx context.Context, jobID string, options ...ReadOption) ([]*fleet.Run, error) {
	var list struct {
		Runs []*fleet.Run `json:"runs"`
	}
	err := c.get(ctx, jobPath(jobID, "/runs"), nil, &list, options)
	return list.Runs, err
}

// Artifacts reads what a job left behind.
func (c *Client) Artifacts(ctx context.Context, jobID string, options ...ReadOption) ([]*fleet.Artifact, error) {
	var list struct {
		Artifacts []*fleet.Artifact `json:"artifacts"`
	}
	err := c.get(ctx, jobPath(jobID, "/artifacts"), nil, &list, options)
	return list.Artifacts, err
}

// JobEvents reads a page of what happened to a job: events whose Seq is above after, at most limit (zero: 100).
func (c *Client) JobEvents(ctx context.Context, jobID string, after uint64, limit int, options ...ReadOption) ([]fleet.Event, error) {
	return c.eventPage(ctx, jobPath(jobID, "/events"), after, limit, options)
}

// EventPage reads a page of the product's feed: events whose Index is above after, at most limit (zero: 100).
func (c *Client) EventPage(ctx context.Context, after uint64, limit int, options ...ReadOption) ([]fleet.Event, error) {
	return c.eventPage(ctx, feedPath, after, limit, options)
}

func (c *Client) eventPage(ctx context.Context, path string, after uint64, limit int, options []ReadOption) ([]fleet.Event, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var list struct {
		Events []fleet.Event `json:"events"`
	}
	err := c.get(ctx, path, q, &list, options)
	return list.Events, err
}

// Comment appends a comment to a job's events.
func (c *Client) Comment(ctx context.Context, jobID string, r fleet.CommentRequest) (*fleet.Event, error) {
	return post1[fleet.Event](ctx, c, post(jobPath(jobID, "/events")), r)
}

// AddArtifact records where something is that a job produced.
func (c *Client) AddArtifact(ctx context.Context, jobID string, r fleet.ArtifactRequest) (*fleet.Artifact, error) {
	return post1[fleet.Artifact](ctx, c, post(jobPath(jobID, "/artifacts")), r)
}

// PutProfile stores the next version of a profile; the same snapshot as the latest version's changes nothing.
func (c *Client) PutProfile(ctx context.Context, r fleet.ProfileRequest) (*fleet.ProfileResult, error) {
	var profile fleet.Profile
	a, err := c.do(ctx, post("/fleet/profiles"), r, &profile)
	if err != nil {
		return nil, err
	}
	return &fleet.ProfileResult{Created: a.status == 201, Profile: &profile}, nil
}

// Profiles reads the latest version of every profile.
func (c *Client) Profiles(ctx context.Context, options ...ReadOption) ([]*fleet.Profile, error) {
	var list struct {
		Profiles []*fleet.Profile `json:"profiles"`
	}
	err := c.get(ctx, "/fleet/profiles", nil, &list, options)
	return list.Profiles, err
}

// Profile reads one version of a profile; version zero is the latest.
func (c *Client) Profile(ctx context.Context, name string, version int64, options ...ReadOption) (*fleet.Profile, error) {
	path := "/fleet/profiles/" + url.PathEscape(name)
	if version > 0 {
		path += "/" + strconv.FormatInt(version, 10)
	}
	return get1[fleet.Profile](ctx, c, path, options)
}
