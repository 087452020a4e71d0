package client

// This file tells refusals from trouble on the way, and which of them another attempt may cure.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

// unreachableError is a call that got no whole answer.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// statusError is a refusal together with the status it came with, for one that carried no code.
type statusError struct {
	refused *fleet.Error
	status  int
}

func (e *statusError) Error() string { return e.refused.Error() }
func (e *statusError) Unwrap() error { return e.refused }

// refusal reads the problem document of an answer.
func refusal(in *call, response *http.Response, body []byte) error {
	e := &fleet.Error{}
	if err := json.Unmarshal(body, e); err != nil || e.Code == "" {
		e = fleet.Errorf(fleet.Internal, "%s %s was answered with %s and no reason", in.method, in.path, response.Status)
	}
	if seconds, err := strconv.ParseInt(response.Header.Get("Retry-After"), 10, 64); err == nil && seconds > 0 {
		e.RetryAfterSeconds = seconds
	}
	return &statusError{e, response.StatusCode}
}

// cure reports whether the same call may be answered otherwise later or elsewhere, and how long to wait at least.
func cure(err error) (pause time.Duration, curable bool) {
	var unreachable *unreachableError
	if errors.As(err, &unreachable) {
		return 0, true
	}
	var refused *statusError
	if !errors.As(err, &refused) {
		return 0, false
	}
	pause = time.Duration(refused.refused.RetryAfterSeconds) * time.Second
	switch refused.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return pause, true
	case http.StatusTooManyRequests:
		return pause, refused.refused.Code == fleet.RateLimited // a quota is not lifted by waiting
	}
	return 0, false
}

// explain is the error of a whole call: the refusal itself, or who was tried and what stood in the way; and that the
// caller's time was up, if it was.
func explain(ctx context.Context, err error, tried []string) error {
	var refused *statusError
	if errors.As(err, &refused) {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%w (%w)", cause, refused.refused)
		}
		return refused.refused
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	return fmt.Errorf("no node answered; tried %s: %w", strings.Join(tried, ", "), err)
}
