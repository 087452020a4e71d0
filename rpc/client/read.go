package client

// This file is how fresh a read must be.

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// ReadOption says how fresh an answer must be. Without one a read is linearizable.
type ReadOption func(*call)

// Stale lets the node that is asked answer from what it knows, without asking the leader.
func Stale() ReadOption {
	return func(in *call) { in.query.Set("consistency", "stale") }
}

// MinIndex makes the node wait until it has applied this log index, as Index or another client's has it; a node that
// can't within 5 s refuses with behind, and the next one is asked.
func MinIndex(index uint64) ReadOption {
	return func(in *call) { in.header.Set("Fleet-Min-Index", strconv.FormatUint(index, 10)) }
}

// get makes a read.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any, options []ReadOption) error {
	_, err := c.do(ctx, newRead(path, query, options), nil, out)
	return err
}

func newRead(path string, query url.Values, options []ReadOption) *call {
	if query == nil {
		query = url.Values{}
	}
	in := &call{method: http.MethodGet, path: path, query: query, header: http.Header{}}
	for _, option := range options {
		option(in)
	}
	return in
}

// get1 reads one document.
func get1[T any](ctx context.Context, c *Client, path string, options []ReadOption) (*T, error) {
	out := new(T)
	if err := c.get(ctx, path, nil, out, options); err != nil {
		return nil, err
	}
	return out, nil
}

// post1 makes a change and reads the document that it answers with.
func post1[T any](ctx context.Context, c *Client, in *call, body any) (*T, error) {
	out := new(T)
	if _, err := c.do(ctx, in, body, out); err != nil {
		return nil, err
	}
	return out, nil
}

func post(path string) *call { return &call{method: http.MethodPost, path: path} }

// none is the body of a change that says nothing.
type none struct{}

// jobPath is the path of a job, or of something below it.
func jobPath(id, below string) string { return "/fleet/jobs/" + url.PathEscape(id) + below }
