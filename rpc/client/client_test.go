package client

// This file tests how calls are made: keys, addresses, time, errors.

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
)

// transport answers requests without a network, so that time may be virtual.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func problem(status int, code fleet.Code, header ...string) *http.Response {
	return response(status, `{"type":"urn:fleet:problem:`+string(code)+`","status":409,"code":"`+string(code)+`","detail":"why","currentEpoch":4}`, header...)
}

func newClient(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRetryKeepsTheKeyAndHonoursRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		began := time.Now()
		var last time.Time
		c := newClient(t, Config{Addresses: []string{"one:1"}, HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			last = time.Now()
			switch len(keys) {
			case 1:
				return problem(504, fleet.OutcomeUnknown), nil
			case 2:
				return problem(503, fleet.NoLeader, "Retry-After", "3"), nil
			}
			return response(201, `{"id":"j1","stage":"queued"}`, "Fleet-Outcome", "created"), nil
		})}})
		result, err := c.Submit(t.Context(), fleet.Submission{BodyMd: "do"})
		if err != nil || result.Outcome != fleet.Created || result.Job.ID != "j1" {
			t.Fatalf("got %+v, %v, want j1 created", result, err)
		}
		if len(keys) != 3 || keys[0] == "" || keys[1] != keys[0] || keys[2] != keys[0] {
			t.Errorf("got keys %q, want one key three times", keys)
		}
		if waited := last.Sub(began); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("got the last attempt after %v, want the 3 s of Retry-After and a little", waited)
		}
		if _, err := c.Submit(t.Context(), fleet.Submission{BodyMd: "do"}); err != nil || keys[3] == keys[0] {
			t.Errorf("got the key %q for another call (%v), want a fresh one", keys[3], err)
		}
	})
}

func TestRefusalsAreNotRetried(t *testing.T) {
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(409)
		io.WriteString(w, `{"code":"stale_epoch","detail":"job j1 is at epoch 4, you hold 3","currentEpoch":4}`)
	}))
	defer server.Close()
	c := newClient(t, Config{Addresses: []string{server.URL}})
	_, err := c.Renew(t.Context(), "j1", fleet.RenewRequest{LeaseEpoch: 3})
	var refused *fleet.Error
	if !errors.Is(err, fleet.StaleEpoch) || !errors.As(err, &refused) || refused.CurrentEpoch != 4 {
		t.Errorf("got %v, want stale_epoch with epoch 4", err)
	}
	if calls != 1 {
		t.Errorf("got %d calls, want 1", calls)
	}
}

func TestFailover(t *testing.T) {
	dead := httptest.NewServer(nil)
	dead.Close()
	var token, product string
	alive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, product = r.Header.Get("Authorization"), r.Header.Get("X-Product-Id")
		w.Header().Set("Fleet-Index", "42")
		io.WriteString(w, `{"id":"j1","stage":"queued","priority":"low"}`)
	}))
	defer alive.Close()
	c := newClient(t, Config{Addresses: []string{dead.URL, strings.TrimPrefix(alive.URL, "http://")}, Token: "secret", Product: "p"})
	job, err := c.Job(t.Context(), "j1")
	if err != nil || job.Priority != fleet.Low {
		t.Fatalf("got %+v, %v, want j1 from the second address", job, err)
	}
	if token != "Bearer secret" || product != "p" || c.Index() != 42 {
		t.Errorf("got token %q, product %q, index %d", token, product, c.Index())
	}
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Addresses: []string{"one:1", "https://two:2/"}, HTTPClient: &http.Client{Transport: transport(
			func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED })}})
		began := time.Now()
		_, err := c.Stats(t.Context())
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "http://one:1, https://two:2") {
			t.Errorf("got %v, want the net error and both addresses", err)
		}
		if took := time.Since(began); took < DefaultPatience/2 || took > DefaultPatience {
			t.Errorf("got an end after %v, want about %v", took, DefaultPatience)
		}
	})
}

func TestReadYourWrites(t *testing.T) {
	var minimum, consistency string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		minimum, consistency = r.Header.Get("Fleet-Min-Index"), r.URL.Query().Get("consistency")
		w.Header().Set("Fleet-Index", "7")
		io.WriteString(w, `{"id":"j1"}`)
	}))
	defer server.Close()
	c := newClient(t, Config{Addresses: []string{server.URL}, ReadYourWrites: true})
	if _, err := c.Cancel(t.Context(), "j1", "no"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Job(t.Context(), "j1", Stale()); err != nil || minimum != "7" || consistency != "stale" {
		t.Errorf("got min index %q, consistency %q (%v), want 7, stale", minimum, consistency, err)
	}
	if _, err := c.Job(t.Context(), "j1", MinIndex(9)); err != nil || minimum != "9" || consistency != "" {
		t.Errorf("got min index %q, consistency %q (%v), want 9 and none", minimum, consistency, err)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, address := range []string{"", "ftp://one", "http://", "http://one?x=1"} {
		if _, err := New(Config{Addresses: []string{address}}); err == nil {
			t.Errorf("New with %q: got no error", address)
		}
	}
}
