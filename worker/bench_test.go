package worker

// This file measures how many jobs a factory gets done that take no time.

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
)

// BenchmarkSeats is jobs from the queue until the last is worked on, by one factory of so many seats and one node with a real disk.
func BenchmarkSeats(b *testing.B) {
	for _, seats := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint(seats), func(b *testing.B) { benchmarkSeats(b, seats) })
	}
}

func benchmarkSeats(b *testing.B, seats int) {
	node, err := cluster.Start(cluster.Config{
		Name: "n1", DataDir: filepath.Join(b.TempDir(), "n1"), NodeAddr: "n1:8401", GossipAddr: "n1:8402", BootstrapExpect: 1,
		Secret: []byte("a secret of this test"), Timing: cluster.TimingLocal, Network: cluster.NewMemoryNetwork().Host("n1"),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer node.Kill()
	var requests atomic.Int64
	api := rpc.New(rpc.Config{Node: node, RootToken: []byte(rootToken)})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		api.ServeHTTP(w, r)
	}))
	defer server.Close()
	c, err := client.New(client.Config{Addresses: []string{server.URL}, Token: rootToken, Product: "p"})
	if err != nil {
		b.Fatal(err)
	}
	for left := b.N; left > 0; left -= fleet.MaxBatch {
		jobs := make([]fleet.Submission, min(left, fleet.MaxBatch))
		for i := range jobs {
			jobs[i].BodyMd = "do"
		}
		if _, err := c.SubmitBatch(b.Context(), jobs); err != nil {
			b.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	var done atomic.Int64
	shipped := make(chan struct{})
	requests.Store(0)
	b.ResetTimer()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Client: c, FactoryID: "f1", Seats: seats, Handler: func(context.Context, *Task) (Outcome, error) {
			if done.Add(1) == int64(b.N) {
				close(shipped)
			}
			return Outcome{}, nil
		}})
	}()
	<-shipped
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(requests.Load())/float64(b.N), "requests/job")
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
