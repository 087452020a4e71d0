package worker_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
	"github.com/lysnrai/fleet/worker"
)

// A factory in a Go program: Run claims, renews and reports; the handler works.
func ExampleRun() {
	url, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.New(client.Config{Addresses: []string{url}, Token: "root", Product: "docs"})
	if err != nil {
		fmt.Println(err)
		return
	}
	submitted, err := c.Submit(ctx, fleet.Submission{BodyMd: "Write the manual", Capabilities: []string{"writing"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	err = worker.Run(ctx, worker.Config{
		Client: c, FactoryID: "desk-1", Capabilities: []string{"writing"},
		Once: true, // one job and no more
		Handler: func(ctx context.Context, task *worker.Task) (worker.Outcome, error) {
			fmt.Printf("attempt %d: %s\n", task.Run.Attempt, task.Job.BodyMd)
			// The next attempt, wherever it runs, goes on from here.
			if err := task.Checkpoint(ctx, fleet.Checkpoint{WipBranch: "manual"}); err != nil {
				return worker.Outcome{}, err // ctx has ended: the job is another's, or the factory stops
			}
			return worker.Outcome{Result: `{"pages":3}`}, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	job, err := c.Job(ctx, submitted.Job.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.Stage, job.Result, job.Checkpoint.WipBranch)
	// Output:
	// attempt 1: Write the manual
	// shipped {"pages":3} manual
}

// exampleNode starts a cluster of one node in this process.
func exampleNode() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "fleet-example-")
	if err != nil {
		panic(err)
	}
	node, err := cluster.Start(cluster.Config{
		Name: "n1", DataDir: dir, NodeAddr: "n1:8401", GossipAddr: "n1:8402", BootstrapExpect: 1, Secret: []byte("root"),
		Timing: cluster.TimingLocal, Network: cluster.NewMemoryNetwork().Host("n1"), Storage: cluster.NewMemoryStorage(),
	})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(rpc.New(rpc.Config{Node: node, RootToken: []byte("root")}))
	return server.URL, func() {
		server.CloseClientConnections()
		server.Close()
		node.Kill()
		os.RemoveAll(dir)
	}
}
