package client

// This file tests the feed over reconnects.

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/lysnrai/fleet"
)

func TestEventsResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var resumed, hosts []string
		c := newClient(t, Config{Addresses: []string{"one:1", "two:2"}, HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			resumed, hosts = append(resumed, r.Header.Get("Last-Event-ID")), append(hosts, r.URL.Host)
			if r.Header.Get("Accept") != "text/event-stream" {
				t.Errorf("got Accept %q", r.Header.Get("Accept"))
			}
			switch len(resumed) {
			case 1:
				return response(200, "retry: 2000\n\nevent: gap\ndata: {\"first\":5}\n\n"+event("5")+event("6")+"id: 7\ndata: {\"ind"), nil
			case 2:
				return problem(503, fleet.NoLeader), nil
			}
			return response(200, ": keep-alive\n\n"+event("6")+event("9")), nil
		})}})
		var got []uint64
		var gap *Gap
		for e, err := range c.Events(t.Context(), 2) {
			if err != nil {
				if !errors.As(err, &gap) {
					t.Fatal(err)
				}
				continue
			}
			if got = append(got, e.Index); e.Index == 9 {
				break
			}
		}
		if gap == nil || gap.First != 5 {
			t.Errorf("got the gap %+v, want first 5", gap)
		}
		if want := []uint64{5, 6, 9}; !slices.Equal(got, want) {
			t.Errorf("got events %v, want %v, each once", got, want)
		}
		if want := []string{"2", "6", "6"}; !slices.Equal(resumed, want) {
			t.Errorf("got Last-Event-ID %q, want %q", resumed, want)
		}
		if want := []string{"one:1", "two:2", "one:1"}; !slices.Equal(hosts, want) {
			t.Errorf("got nodes %q, want %q", hosts, want)
		}
	})
}

func event(index string) string {
	return "id: " + index + "\nevent: claimed\ndata: {\"seq\":1,\"index\":" + index + ",\"type\":\"claimed\",\"jobId\":\"j1\"}\n\n"
}

func TestEventsRefused(t *testing.T) {
	c := newClient(t, Config{Addresses: []string{"one:1"}, HTTPClient: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		return problem(403, fleet.Forbidden), nil
	})}})
	for _, err := range c.Events(t.Context(), FromNow) {
		if !errors.Is(err, fleet.Forbidden) {
			t.Errorf("got %v, want forbidden", err)
		}
	}
}
