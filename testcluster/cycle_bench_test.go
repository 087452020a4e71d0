package testcluster_test

// This file measures the life of a job over three nodes, from its submission to its end, as clients see it.

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/testcluster"
)

// BenchmarkCycle submits a job, claims one and ships it, in three calls, over a network and disks in memory or over sockets and real disks. The
// nodes and their clients share the processors. The clients are spread over the nodes.
func BenchmarkCycle(b *testing.B) {
	for _, where := range []struct {
		name  string
		start func(b *testing.B) *testcluster.Cluster
	}{
		{"memory", func(b *testing.B) *testcluster.Cluster { return testcluster.Start(b, 3) }},
		{"real", func(b *testing.B) *testcluster.Cluster { return testcluster.StartReal(b, 3) }},
	} {
		for _, clients := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", where.name, clients), func(b *testing.B) {
				c := where.start(b)
				turns := make(chan struct{})
				var working sync.WaitGroup
				for i := range clients {
					f := newShop(b, c, i)
					working.Go(func() {
						for range turns {
							f.cycle(b)
						}
					})
				}
				b.ReportAllocs()
				for range clients { // all are at it before the clock starts, and still are when it stops
					turns <- struct{}{}
				}
				for b.Loop() {
					turns <- struct{}{}
				}
				close(turns)
				working.Wait()
			})
		}
	}
}

// shop is a client with a factory of its own.
type shop struct {
	api *client.Client
	id  string
}

var body1K = strings.Repeat("find out why the job fails when its test runs twice, ", 20)[:1024]

// newShop registers the i-th factory at a node of its own.
func newShop(b *testing.B, c *testcluster.Cluster, i int) *shop {
	node := c.Addresses()[i%c.Size()]
	api, err := client.New(client.Config{Addresses: []string{node}, Token: testcluster.Token, Product: testcluster.Product, HTTPClient: c.HTTPClient(b)})
	if err != nil {
		b.Fatal(err)
	}
	f, hour := &shop{api, fmt.Sprint("f", i)}, int64(fleet.MaxHeartbeatSeconds)
	if _, err := api.Heartbeat(b.Context(), fleet.HeartbeatRequest{FactoryID: f.id, HeartbeatSeconds: &hour}); err != nil {
		b.Fatal(err)
	}
	return f
}

// cycle claims whatever job there is. It waits if another client took this one's and has not submitted its own.
func (f *shop) cycle(b *testing.B) {
	ctx := b.Context()
	if _, err := f.api.Submit(ctx, fleet.Submission{BodyMd: body1K}); err != nil {
		b.Error("submitting:", err)
		return
	}
	claim, err := f.api.Claim(ctx, fleet.ClaimRequest{FactoryID: f.id, WaitSeconds: 10})
	if err != nil || claim.Job == nil {
		b.Errorf("claiming: got %+v, %v, want a job", claim, err)
		return
	}
	if _, err := f.api.Report(ctx, claim.Job.ID, fleet.Report{LeaseEpoch: &claim.Job.LeaseEpoch, Stage: fleet.Shipped}); err != nil {
		b.Error("shipping:", err)
	}
}
