package testcluster_test

import (
	"fmt"
	"testing"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

// A program that uses fleet is tested against a whole cluster, whose leader is killed meanwhile.
func Example() {
	var job *fleet.Job
	test := func(t testing.TB) { // in your own code: func TestSomething(t *testing.T)
		c := testcluster.StartReal(t, 3)
		api, err := client.New(client.Config{Addresses: c.Addresses(), Token: testcluster.Token, Product: testcluster.Product, HTTPClient: c.HTTPClient(t)})
		if err != nil {
			t.Fatal(err)
		}
		submitted, err := api.Submit(t.Context(), fleet.Submission{BodyMd: "build it"})
		if err != nil {
			t.Fatal(err)
		}
		c.Kill(t, c.Leader(t))
		if job, err = api.Job(t.Context(), submitted.Job.ID); err != nil {
			t.Fatal(err)
		}
	}
	testing.Benchmark(func(b *testing.B) { // an example has no testing.TB of its own
		if b.N == 1 {
			test(b)
		}
	})
	fmt.Println(job.BodyMd, "is", job.Stage)
	// Output: build it is queued
}
