package client

// This file is the calls of an operator of the cluster itself: its nodes, its tokens and its snapshots.

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/lysnrai/fleet"
)

// ClusterStatus is the cluster as the node that answers sees it.
func (c *Client) ClusterStatus(ctx context.Context, options ...ReadOption) (*fleet.ClusterStatus, error) {
	return get1[fleet.ClusterStatus](ctx, c, "/cluster/status", options)
}

// RemoveServer removes a node from the cluster for ever.
func (c *Client) RemoveServer(ctx context.Context, name string) error {
	_, err := c.do(ctx, &call{method: http.MethodDelete, path: "/cluster/servers/" + url.PathEscape(name)}, nil, nil)
	return err
}

// TransferLeader hands leadership to a node; empty: to whichever is the furthest.
func (c *Client) TransferLeader(ctx context.Context, to string) error {
	body := struct {
		To string `json:"to,omitzero"`
	}{to}
	_, err := c.do(ctx, post("/cluster/leader/transfer"), body, nil)
	return err
}

// Snapshot streams the whole state. Close it; a read error means that it is not whole.
func (c *Client) Snapshot(ctx context.Context, options ...ReadOption) (io.ReadCloser, error) {
	in := newRead("/cluster/snapshot", nil, options)
	in.stream = true
	a, err := c.send(ctx, in)
	if err != nil {
		return nil, err
	}
	return a.stream, nil
}

// restoreWait is how long a cluster may take to restore a snapshot, however large.
const restoreWait = 24 * time.Hour

// Restore replaces the whole state of the cluster by a snapshot of this size, which is opened for each attempt; raise is 0, or what is
// added to the generation for the second cluster that is given one file. It is tried again only if nothing was done.
func (c *Client) Restore(ctx context.Context, open func() (io.ReadCloser, error), size int64, raise uint64) (*fleet.RestoreResult, error) {
	in := post("/cluster/restore")
	in.open, in.size, in.once, in.keyless, in.wait = open, size, true, true, restoreWait
	if raise > 0 {
		in.query = url.Values{"raise": {strconv.FormatUint(raise, 10)}}
	}
	return post1[fleet.RestoreResult](ctx, c, in, nil)
}

// NewToken is a token as it is shown once. Secret is empty if the answer is a repeat.
type NewToken struct {
	fleet.Token
	Secret string `json:"secret,omitzero"`
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, r fleet.TokenRequest) (*NewToken, error) {
	return post1[NewToken](ctx, c, post("/cluster/tokens"), r)
}

// Tokens reads all tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context, options ...ReadOption) ([]*fleet.Token, error) {
	var list struct {
		Tokens []*fleet.Token `json:"tokens"`
	}
	err := c.get(ctx, "/cluster/tokens", nil, &list, options)
	return list.Tokens, err
}

// DeleteToken revokes a token.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	_, err := c.do(ctx, &call{method: http.MethodDelete, path: "/cluster/tokens/" + url.PathEscape(id)}, nil, nil)
	return err
}
