package cluster

// This file tests which of raft's messages are kept low. All others stay.

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestHealthyMessagesAreKeptLow(t *testing.T) {
	l := &recorder{}
	quiet := raftLogger{l}
	quiet.Warn("failed to get previous log")
	quiet.Warn("heartbeat timeout reached")
	if len(l.debugs) != 1 || len(l.warnings) != 1 || l.warnings[0] != "heartbeat timeout reached" {
		t.Errorf("got warnings %q and debug %q, want one each", l.warnings, l.debugs)
	}
	quiet.Error("failed to decode incoming command", "error", &net.OpError{Op: "read", Err: net.ErrClosed})
	quiet.Error("failed to decode incoming command", "error", io.ErrUnexpectedEOF)
	quiet.Error("failed to decode incoming command", "error", errors.New("unknown rpc type 9"))
	quiet.Error("failed to take snapshot", "error", net.ErrClosed)
	if len(l.debugs) != 3 || len(l.errors) != 2 {
		t.Errorf("got errors %q and debug %q, want the connections that ended at debug alone", l.errors, l.debugs)
	}
}

// recorder keeps the messages of three levels.
type recorder struct {
	hclog.Logger
	errors, warnings, debugs []string
}

func (r *recorder) Error(message string, _ ...any) { r.errors = append(r.errors, message) }
func (r *recorder) Warn(message string, _ ...any)  { r.warnings = append(r.warnings, message) }
func (r *recorder) Debug(message string, _ ...any) { r.debugs = append(r.debugs, message) }
