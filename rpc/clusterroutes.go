package rpc

// This file is the calls of an operator of the cluster itself.

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/lysnrai/fleet"
)

func (a *API) clusterStatus(ctx context.Context, _ *request) (*fleet.ClusterStatus, error) {
	return a.node.Status(ctx)
}

// removeServer removes a node for ever; it ends by itself.
func (a *API) removeServer(ctx context.Context, c *call[none]) (*none, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callWait, fleet.Errorf(fleet.OutcomeUnknown, "the removal did not finish within %v", callWait))
	defer cancel()
	return &none{}, a.node.Remove(ctx, c.vars["name"])
}

// transfer says who is to lead; empty: whoever is the furthest.
type transfer struct {
	To string `json:"to"`
}

func (a *API) transferLeader(ctx context.Context, c *call[transfer]) (*none, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callWait, fleet.Errorf(fleet.OutcomeUnknown, "the transfer did not finish within %v", callWait))
	defer cancel()
	return &none{}, a.node.TransferLeadership(ctx, c.Body.To)
}

// snapshot streams the whole state. What fails after the first byte breaks the connection off, so that a file that was
// cut short is never taken for a whole one.
func (a *API) snapshot(ctx context.Context, w http.ResponseWriter, c *request) (any, error) {
	out := &snapshotWriter{w: w, deadlines: http.NewResponseController(w)}
	err := a.node.WriteSnapshot(ctx, out)
	switch {
	case err == nil:
		return streamed, nil
	case !out.began:
		return nil, err
	}
	a.log.Warn("a snapshot download ended early", "requestId", c.id, "error", err)
	panic(http.ErrAbortHandler)
}

// MaxRaise bounds what a caller adds to the generation: each step costs a part of the numbers that are left.
const MaxRaise = 1000

// restore replaces the whole state by a backup, which is as large as it is. Who sends has as long as it takes, but never a long rest.
func (a *API) restore(ctx context.Context, w http.ResponseWriter, c *request) (any, error) {
	more, err := c.query.number("raise", 0, MaxRaise, 0)
	if err != nil {
		return nil, err
	}
	if err := c.writeHeaders(nil); err != nil {
		return nil, err
	}
	return a.node.Restore(ctx, &slowBody{c.Body, http.NewResponseController(w)}, more)
}

// slowBody reads a body for as long as something comes.
type slowBody struct {
	io.Reader
	deadlines *http.ResponseController
}

func (s *slowBody) Read(b []byte) (int, error) {
	if err := s.deadlines.SetReadDeadline(time.Now().Add(bodyWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return s.Reader.Read(b)
}

// snapshotWriter begins the answer with the first byte and gives up on a client that stops reading.
type snapshotWriter struct {
	w         http.ResponseWriter
	deadlines *http.ResponseController
	began     bool
}

func (s *snapshotWriter) Write(b []byte) (int, error) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
		s.w.Header().Set("Content-Disposition", `attachment; filename="fleet.snapshot"`)
	}
	if err := s.deadlines.SetWriteDeadline(time.Now().Add(writeWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return s.w.Write(b)
}
