package client

// This file tests held jobs in virtual time.

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
)

const granted = `{"job":{"id":"j1","stage":"assigned","leaseEpoch":3},"lease":{"jobId":"j1","status":"held","leaseEpoch":3,"ttlSeconds":60},"run":{"id":"j1-1","attempt":1}}`

// claimOne claims a job from a cluster in which renewals are answered by renew.
func claimOne(t *testing.T, renew transport) *Held {
	t.Helper()
	c := newClient(t, Config{Addresses: []string{"one:1"}, HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/heartbeat"):
			return response(200, `{"factory":{"factoryId":"f1"},"leases":[]}`), nil
		case r.URL.Path == "/fleet/claim":
			return response(200, granted), nil
		case strings.HasSuffix(r.URL.Path, "/renew"):
			return renew(r)
		}
		return response(200, `{"id":"j1","stage":"shipped","leaseEpoch":3}`), nil
	})}})
	for held, err := range c.Claims(t.Context(), ClaimOptions{Factory: fleet.HeartbeatRequest{FactoryID: "f1"}}) {
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	t.Fatal("got no job")
	return nil
}

func TestStaleEpochEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renewals := 0
		held := claimOne(t, func(*http.Request) (*http.Response, error) {
			if renewals++; renewals < 5 {
				return response(200, `{"jobId":"j1","status":"held","leaseEpoch":3,"ttlSeconds":60}`), nil
			}
			return problem(409, fleet.StaleEpoch), nil
		})
		began := time.Now()
		<-held.Context().Done()
		if cause := context.Cause(held.Context()); !errors.Is(cause, fleet.StaleEpoch) {
			t.Errorf("got %v, want stale_epoch", cause)
		}
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("got the end after %v, want 100 s: the fifth renewal, one each 20 s", took)
		}
	})
}

func TestUnreachableClusterEndsTheContextInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		held := claimOne(t, func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED })
		<-held.Context().Done()
		if cause := context.Cause(held.Context()); !errors.Is(cause, ErrLeaseExpired) {
			t.Errorf("got %v, want %v", cause, ErrLeaseExpired)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("got the end after %v, want the 60 s of the lease", took)
		}
	})
}

func TestReportSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := claimOne(t, func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED })
		if _, err := held.Report(t.Context(), fleet.Report{Stage: fleet.Shipped}); err != nil {
			t.Fatal(err)
		}
		if cause := context.Cause(held.Context()); !errors.Is(cause, ErrSettled) {
			t.Errorf("got %v, want %v", cause, ErrSettled)
		}
	})
}
