package testcluster_test

// This file takes tokens away while calls made with them are under way, in virtual time.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet/testcluster"
)

// A token that is revoked or expires ends every stream that it opened, at the leader and at a follower, within a second of the entry that
// takes it away; a claim that waits, and a batch that comes after it, are refused alike at all nodes.
func TestTokenEndsWhileInUse(t *testing.T) {
	for _, how := range []string{"revoked", "expired"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.Start(t, 3)
				web := c.HTTPClient(t)
				call := func(ctx context.Context, node int, method, path, secret, body string) (*http.Response, error) {
					r, err := http.NewRequestWithContext(ctx, method, c.Addresses()[node]+path, strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Authorization", "Bearer "+secret)
					r.Header.Set("X-Product-Id", testcluster.Product)
					r.Header.Set("Content-Type", "application/json")
					if method == http.MethodGet {
						r.Header.Set("Accept", "text/event-stream")
						r.Header.Del("Content-Type")
					}
					return web.Do(r)
				}
				expires := ""
				if how == "expired" {
					expires = fmt.Sprintf(`,"expiresAt":%q`, time.Now().Add(30*time.Second).UTC().Format(time.RFC3339))
				}
				made, err := call(t.Context(), 0, "POST", "/cluster/tokens", testcluster.Token,
					fmt.Sprintf(`{"roles":["reader","submitter","factory"],"products":[%q]%s}`, testcluster.Product, expires))
				if err != nil {
					t.Fatal(err)
				}
				var token struct{ ID, Secret string }
				err = json.NewDecoder(made.Body).Decode(&token)
				if _ = made.Body.Close(); err != nil || made.StatusCode != http.StatusCreated {
					t.Fatalf("making a token: got %d, %v", made.StatusCode, err)
				}
				c.Converged(t)

				streams, claims := make(chan time.Time, 3), make(chan int, 3)
				for i := range 3 {
					beat, err := call(t.Context(), i, "POST", "/fleet/factories/heartbeat", token.Secret, fmt.Sprintf(`{"factoryId":"f%d"}`, i))
					if err != nil || beat.StatusCode/100 != 2 {
						t.Fatalf("node %d: a heartbeat: got %v, %v", i, beat, err)
					}
					_ = beat.Body.Close()
					stream, err := call(t.Context(), i, "GET", "/fleet/events", token.Secret, "")
					if err != nil || stream.StatusCode != http.StatusOK {
						t.Fatalf("node %d: opening a stream: %v", i, err)
					}
					first, err := bufio.NewReader(stream.Body).ReadString('\n')
					if err != nil {
						t.Fatalf("node %d: got %q, %v", i, first, err)
					}
					go func() {
						_, _ = io.Copy(io.Discard, stream.Body)
						_ = stream.Body.Close()
						streams <- time.Now()
					}()
					go func() {
						answer, err := call(t.Context(), i, "POST", "/fleet/claim", token.Secret, fmt.Sprintf(`{"factoryId":"f%d","waitSeconds":50}`, i))
						if err != nil {
							claims <- 0
							return
						}
						_ = answer.Body.Close()
						claims <- answer.StatusCode
					}()
				}
				synctest.Wait() // the claims wait
				if how == "revoked" {
					gone, err := call(t.Context(), 1, "DELETE", "/cluster/tokens/"+token.ID, testcluster.Token, "")
					if err != nil || gone.StatusCode/100 != 2 {
						t.Fatalf("revoking: got %v, %v", gone, err)
					}
					_ = gone.Body.Close()
				}
				applied := time.Now()
				if how == "expired" {
					applied = applied.Add(30 * time.Second)
				}
				for range 3 {
					if took := (<-streams).Sub(applied); took > 2*time.Second { // one until it is applied everywhere, one as is promised
						t.Errorf("a stream ended %s after its token", took)
					}
				}
				for i := range 3 {
					answer, err := call(t.Context(), i, "POST", "/fleet/jobs/batch", token.Secret, `{"jobs":[{"bodyMd":"late"}]}`)
					if err != nil || answer.StatusCode != http.StatusUnauthorized {
						t.Errorf("node %d: a batch with a token that is gone: got %v, %v, want 401", i, answer, err)
					}
					if err == nil {
						_ = answer.Body.Close()
					}
				}
				submitted, err := call(t.Context(), 2, "POST", "/fleet/jobs", testcluster.Token, `{"bodyMd":"not for them"}`)
				if err != nil || submitted.StatusCode/100 != 2 {
					t.Fatalf("submitting: got %v, %v", submitted, err)
				}
				_ = submitted.Body.Close()
				for range 3 {
					if status := <-claims; status != http.StatusUnauthorized && status != http.StatusForbidden {
						t.Errorf("a claim that waited while its token ended: got %d, want 401", status)
					}
				}
				c.Converged(t)
			})
		})
	}
}
