package testcluster

// This file serves the nodes' HTTP API, for clients as they are.

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/lysnrai/fleet/rpc"
)

// Token is the root token of every cluster of this package.
const Token = "a root token of this test"

// Addresses are the URLs of the nodes' HTTP API, those that are down too.
func (c *Cluster) Addresses() []string {
	var all []string
	for _, m := range c.members() {
		all = append(all, "http://"+m.config.HTTPAddr)
	}
	return all
}

// HTTPClient reaches Addresses, in memory too: it is no node of the cluster, so that partitions don't concern it. The test's end closes
// its connections.
func (c *Cluster) HTTPClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	if c.network != nil {
		outside := c.network.Host("outside")
		transport.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return outside.Dial(ctx, addr) }
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// serve serves a node's API until the server is closed.
func (c *Cluster) serve(t testing.TB, m *member) {
	t.Helper()
	listen := func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	if c.network != nil {
		listen = c.network.Host(m.config.Name).Listen
	}
	listener, err := listen(m.config.HTTPAddr)
	if err != nil {
		t.Fatalf("serving the API of %s: %v", m.config.Name, err)
	}
	m.port = listener
	m.server = &http.Server{Handler: rpc.New(rpc.Config{Node: m.node.Load(), RootToken: []byte(Token)})}
	go func(server *http.Server) { _ = server.Serve(m.gate.listener(listener)) }(m.server)
}
