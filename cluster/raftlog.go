package cluster

// This file is raft's logger: what is part of a healthy cluster's life is no warning and no error.

import (
	"errors"
	"io"
	"net"
	"slices"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lowers three of raft's messages and passes on all others.
type raftLogger struct{ hclog.Logger }

// Warn lowers that a follower has not got an entry yet, which a nudge makes common.
func (l raftLogger) Warn(message string, args ...any) {
	if message == "failed to get previous log" {
		l.Debug(message, args...)
		return
	}
	l.Logger.Warn(message, args...)
}

// Error lowers that a peer's connection ended, as it does whenever one of the two stops, and that this node leaves an election to others.
func (l raftLogger) Error(message string, args ...any) {
	if message == "failed to decode incoming command" && slices.ContainsFunc(args, isHangUp) || slices.Contains(args, any(errShy)) {
		l.Debug(message, args...)
		return
	}
	l.Logger.Error(message, args...)
}

// isHangUp reports whether a value is the error of a connection that ended.
func isHangUp(v any) bool {
	err, ok := v.(error)
	return ok && (errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}
