package rpc_test

// This file measures one call: whole, by a client that keeps its connection, and the handler alone. What is between the two is net/http's,
// on both sides, and the sockets'.

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/testcluster"
)

func headers(h http.Header) {
	h.Set("Authorization", "Bearer "+testcluster.Token)
	h.Set("X-Product-Id", "p")
	h.Set("Content-Type", "application/json")
}

func BenchmarkRequest(b *testing.B) {
	for _, r := range requests() {
		b.Run(r.name+"/http", func(b *testing.B) {
			n := newBench(b)
			url := n.serve() + r.path
			web := &http.Client{Transport: &http.Transport{}}
			b.Cleanup(web.CloseIdleConnections)
			n.loop(r, func(turn int) {
				req, err := http.NewRequestWithContext(b.Context(), r.method, url, strings.NewReader(r.body(turn)))
				if err != nil {
					b.Fatal(err)
				}
				headers(req.Header)
				answer, err := web.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, err = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
				if err != nil || answer.StatusCode != r.status {
					b.Fatalf("got %s, %v, want %d", answer.Status, err, r.status)
				}
			})
		})
		b.Run(r.name+"/handler", func(b *testing.B) {
			n := newBench(b)
			n.loop(r, func(turn int) {
				req := httptest.NewRequestWithContext(b.Context(), r.method, r.path, strings.NewReader(r.body(turn)))
				headers(req.Header)
				answer := httptest.NewRecorder()
				if n.api.ServeHTTP(answer, req); answer.Code != r.status {
					b.Fatalf("got %d %s, want %d", answer.Code, answer.Body, r.status)
				}
			})
		})
	}
}

// serve serves the API on loopback and returns its URL.
func (n *bench) serve() string {
	server, err := rpc.Listen(rpc.ServerConfig{Addr: "127.0.0.1:0", Handler: n.api})
	if err != nil {
		n.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	n.Cleanup(func() {
		_ = server.Shutdown(n.Context()) // which has ended: what is left is cut off
		if err := <-ended; err != nil {
			n.Error(err)
		}
	})
	return "http://" + server.Addr().String()
}
