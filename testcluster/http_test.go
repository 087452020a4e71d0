package testcluster_test

// This file tests the cluster's HTTP API in virtual time.

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

// The API of a cluster in memory is reached by its own client, in virtual time too; a node that is down answers nobody.
func TestHTTPInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t, 3)
		web := c.HTTPClient(t)
		api, err := client.New(client.Config{Addresses: c.Addresses(), Token: testcluster.Token, Product: testcluster.Product, HTTPClient: web})
		if err != nil {
			t.Fatal(err)
		}
		submitted, err := api.Submit(t.Context(), fleet.Submission{BodyMd: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Job(t, submitted.Job.ID); got.Stage != fleet.Queued {
			t.Errorf("job: got %s, want queued", got.Stage)
		}
		answer, err := web.Get(c.Addresses()[0] + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("readyz: got %d, want 200", answer.StatusCode)
		}
		c.Kill(t, 0)
		if answer, err := web.Get(c.Addresses()[0] + "/livez"); err == nil {
			_ = answer.Body.Close()
			t.Error("a node that was killed answered")
		}
	})
}
