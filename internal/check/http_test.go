package check_test

// This file tests that an HTTP answer is read as a node's own.

import (
	"errors"
	"net/http"
	"testing"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/check"
)

func TestAnswerOf(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		headers map[string]string
		body    string
		result  fsm.Result
		want    fsm.Answer // its Result is looked at by look
		err     error      // what the error is; fails: any will do
		fails   bool
		look    func(fsm.Result) bool
	}{
		"created": {
			status: 201, headers: map[string]string{"Fleet-Index": "7", "Fleet-Outcome": "created"}, body: `{"id":"j1","stage":"queued"}`,
			result: &fleet.SubmitResult{}, want: fsm.Answer{Index: 7},
			look: func(r fsm.Result) bool {
				s := r.(*fleet.SubmitResult)
				return s.Outcome == fleet.Created && s.Job.ID == "j1" && s.Job.Stage == fleet.Queued
			},
		},
		"nothing to claim": {
			status: 204, headers: map[string]string{"Fleet-Index": "8"}, result: &fleet.Claim{}, want: fsm.Answer{Index: 8},
			look: func(r fsm.Result) bool { return r.(*fleet.Claim).Job == nil },
		},
		"replayed": {
			status: 200, headers: map[string]string{"Fleet-Index": "9", "Fleet-Replayed": "true"}, body: `{"id":"j1","leaseEpoch":3}`,
			result: &fleet.Job{}, want: fsm.Answer{Index: 9, Replayed: true},
			look: func(r fsm.Result) bool { return r.(*fleet.Job).LeaseEpoch == 3 },
		},
		"refused": {
			status: 409, headers: map[string]string{"Fleet-Index": "9"}, body: `{"code":"stale_epoch","detail":"no","currentEpoch":4,"status":409}`,
			result: &fleet.Job{}, want: fsm.Answer{Index: 9, Err: &fleet.Error{Code: fleet.StaleEpoch, CurrentEpoch: 4}},
		},
		"without a leader":    {status: 503, body: `{"code":"no_leader","detail":"no"}`, result: &fleet.Job{}, err: fleet.NoLeader},
		"unknown":             {status: 504, body: `{"code":"outcome_unknown","detail":"?"}`, result: &fleet.Job{}, err: fleet.OutcomeUnknown},
		"a proxy's error":     {status: 502, body: `<html>`, result: &fleet.Job{}, err: fleet.OutcomeUnknown},
		"created in part":     {status: 201, headers: map[string]string{"Fleet-Index": "7"}, body: `{"id":`, result: &fleet.SubmitResult{}, fails: true},
		"without Fleet-Index": {status: 200, body: `{}`, result: &fleet.Job{}, fails: true},
	} {
		r := &http.Response{StatusCode: c.status, Header: http.Header{}}
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		a, err := check.AnswerOf(r, []byte(c.body), c.result)
		if (err != nil) != (c.fails || c.err != nil) || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: got error %v, want %v (any: %t)", name, err, c.err, c.fails)
		}
		if err != nil {
			continue
		}
		if a.Index != c.want.Index || a.Replayed != c.want.Replayed || (a.Err == nil) != (c.want.Err == nil) {
			t.Errorf("%s: got %+v, want %+v", name, a, c.want)
		}
		if c.want.Err != nil && (a.Err.Code != c.want.Err.Code || a.Err.CurrentEpoch != c.want.Err.CurrentEpoch) {
			t.Errorf("%s: got %v, want %v", name, a.Err, c.want.Err)
		}
		if c.look != nil && !c.look(a.Result) {
			t.Errorf("%s: got %+v", name, a.Result)
		}
	}
}
