package client_test

// This file is the node that the examples call.

import (
	"net/http/httptest"
	"os"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
)

// exampleNode starts a cluster of one node in this process.
func exampleNode() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "fleet-example-")
	if err != nil {
		panic(err)
	}
	node, err := cluster.Start(cluster.Config{
		Name: "n1", DataDir: dir, NodeAddr: "n1:8401", GossipAddr: "n1:8402", BootstrapExpect: 1, Secret: []byte(rootToken),
		Timing: cluster.TimingLocal, Network: cluster.NewMemoryNetwork().Host("n1"), Storage: cluster.NewMemoryStorage(),
	})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(rpc.New(rpc.Config{Node: node, RootToken: []byte(rootToken)}))
	return server.URL, func() {
		server.CloseClientConnections()
		server.Close()
		node.Kill()
		os.RemoveAll(dir)
	}
}
