package check

// This file reads an HTTP answer as the node's own Go API would have given it, so that one History serves both.

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// AnswerOf takes an HTTP answer and its body apart. Result is an empty one of the kind that the command answers. The error
// is for Operation.Done or Retry: what promises that nothing was done, or leaves it unknown. To be found in the log, the
// call needs an Idempotency-Key, and the recorded proposal the same Key and the token's id as its caller.
func AnswerOf(r *http.Response, body []byte, result fsm.Result) (fsm.Answer, error) {
	a := fsm.Answer{Replayed: r.Header.Get("Fleet-Replayed") == "true"}
	if r.StatusCode >= 400 {
		e := &fleet.Error{}
		if err := json.Unmarshal(body, e); err != nil || e.Code == "" {
			return a, fleet.Errorf(fleet.OutcomeUnknown, "status %d without a code: %.200q", r.StatusCode, body)
		}
		if promisesNothing(e) || e.Code == fleet.OutcomeUnknown || e.Code == fleet.Internal {
			return a, e
		}
		a.Err = e
	}
	index, err := strconv.ParseUint(r.Header.Get("Fleet-Index"), 10, 64)
	if err != nil {
		return a, fmt.Errorf("reading Fleet-Index %q: %w", r.Header.Get("Fleet-Index"), err)
	}
	a.Index = index
	if a.Err != nil {
		return a, nil
	}
	a.Result = result
	var into any = result
	switch d := result.(type) {
	case *fleet.SubmitResult:
		d.Outcome, d.Job = fleet.SubmitOutcome(r.Header.Get("Fleet-Outcome")), &fleet.Job{}
		into = d.Job
	case *fleet.ProfileResult:
		d.Created, d.Profile = r.StatusCode == http.StatusCreated, &fleet.Profile{}
		into = d.Profile
	}
	if r.StatusCode == http.StatusNoContent {
		return a, nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fsm.Answer{}, fmt.Errorf("reading an answer: %w", err)
	}
	return a, nil
}
