package rpc

// This file turns a refusal into an application/problem+json answer (RFC 9457).

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

// statuses is the one place that knows the HTTP status of a code.
var statuses = map[fleet.Code]int{
	fleet.InvalidJSON:          http.StatusBadRequest,
	fleet.Invalid:              http.StatusUnprocessableEntity,
	fleet.UnknownDependency:    http.StatusUnprocessableEntity,
	fleet.DependencyCycle:      http.StatusUnprocessableEntity,
	fleet.UnknownProfile:       http.StatusUnprocessableEntity,
	fleet.UnknownParent:        http.StatusUnprocessableEntity,
	fleet.InvalidSnapshot:      http.StatusUnprocessableEntity,
	fleet.Unauthenticated:      http.StatusUnauthorized,
	fleet.Forbidden:            http.StatusForbidden,
	fleet.NotFound:             http.StatusNotFound,
	fleet.UnknownFactory:       http.StatusNotFound,
	fleet.MethodNotAllowed:     http.StatusMethodNotAllowed,
	fleet.StaleEpoch:           http.StatusConflict,
	fleet.IllegalTransition:    http.StatusConflict,
	fleet.IdempotencyConflict:  http.StatusConflict,
	fleet.IdempotencyKeyReused: http.StatusConflict,
	fleet.SeatsExhausted:       http.StatusConflict,
	fleet.FactoryDown:          http.StatusConflict,
	fleet.LastVoter:            http.StatusConflict,
	fleet.VersionMismatch:      http.StatusPreconditionFailed,
	fleet.PreconditionRequired: http.StatusPreconditionRequired,
	fleet.TooLarge:             http.StatusRequestEntityTooLarge,
	fleet.UnsupportedMediaType: http.StatusUnsupportedMediaType,
	fleet.RateLimited:          http.StatusTooManyRequests,
	fleet.QuotaExceeded:        http.StatusTooManyRequests,
	fleet.NoLeader:             http.StatusServiceUnavailable,
	fleet.DiskFull:             http.StatusServiceUnavailable,
	fleet.Behind:               http.StatusServiceUnavailable,
	fleet.OutcomeUnknown:       http.StatusGatewayTimeout,
	fleet.Internal:             http.StatusInternalServerError,
}

// advice ends the detail of a problem with what to do about it, where the detail can't know: those who refuse say what is
// the matter.
var advice = map[fleet.Code]string{
	fleet.UnknownDependency:    "Submit it first, or in the same batch.",
	fleet.DependencyCycle:      "Leave one of these deps out.",
	fleet.UnknownProfile:       "Put it first, or name one that GET /fleet/profiles lists.",
	fleet.UnknownParent:        "Submit a job of kind composite first.",
	fleet.Forbidden:            "Use a token that may do this; an admin can make one.",
	fleet.StaleEpoch:           "Stop work on it: nothing that is reported with this epoch will be kept.",
	fleet.IllegalTransition:    "Read the job again, and decide by where it is now.",
	fleet.IdempotencyConflict:  "Submit it under another idempotencyKey.",
	fleet.IdempotencyKeyReused: "Give each request a key of its own; only a repeat has the same.",
	fleet.SeatsExhausted:       "Finish or release a job, or raise seatLimit with a heartbeat.",
	fleet.FactoryDown:          "A heartbeat with health ok brings it back.",
	fleet.VersionMismatch:      "Read the job again, and decide anew.",
	fleet.QuotaExceeded:        "Make room, or try again later.",
	fleet.LastVoter:            "Add another server first.",
}

// problem is the body of a refusal.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	fleet.Error
	CurrentEpoch *uint64 `json:"currentEpoch,omitzero"` // also 0, of a job that was never claimed
	RequestID    string  `json:"requestId"`
}

// refusal is the *fleet.Error of any error; what is none is the server's own fault.
func refusal(err error) *fleet.Error {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fleet.Errorf(fleet.OutcomeUnknown, "the call ended before its outcome was known")
	}
	return fleet.Errorf(fleet.Internal, "an internal error: it may or may not have been done; the node's log has more under this requestId")
}

// refuse answers with a problem and returns its status.
func refuse(w http.ResponseWriter, requestID string, err error) int {
	e := refusal(err)
	status, known := statuses[e.Code]
	if !known {
		status = http.StatusConflict // a newer leader may refuse for reasons that this node has no word for
	}
	h := w.Header()
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.FormatInt(max(1, e.RetryAfterSeconds), 10))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="fleet"`)
	}
	p := problem{Type: "urn:fleet:problem:" + string(e.Code), Title: title(e.Code), Status: status, Error: *e, RequestID: requestID}
	if e.Code == fleet.StaleEpoch || e.CurrentEpoch != 0 {
		p.CurrentEpoch = &e.CurrentEpoch
	}
	if todo := advice[e.Code]; todo != "" {
		p.Detail += ". " + todo
	}
	b, marshalErr := json.Marshal(p, answerOptions, lenientText)
	if marshalErr != nil {
		b = []byte(`{"code":"internal"}`)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
	return status
}

// title is the same words for every problem of one code.
func title(c fleet.Code) string {
	words := strings.ReplaceAll(string(c), "_", " ")
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}
