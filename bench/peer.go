package main

// This file is what a peer is, and what a cycle is.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

const (
	bodySize   = 1024 // bytes
	backlog    = 1000 // jobs that are queued all the time
	batchSize  = 16   // jobs of a call, where a row says batch
	maxClients = 512  // what the peers' connection limits are made for
)

// peer is a system that can keep a queue of jobs.
type peer interface {
	name() string
	// about is its version, how a job is claimed, and what an answer promises.
	about() string
	// start brings up empty servers and returns when they take work. They end with the site.
	start(ctx context.Context, s *site) error
	// connect makes client i of n.
	connect(ctx context.Context, i, n int) (client, error)
}

// client is one client of a peer, with connections of its own, used by one goroutine at a time. What returns no error is on the
// disks of two nodes of three.
type client interface {
	submit(ctx context.Context, body string) error
	// claim takes one job for this client alone; nil if none is queued, or none that its node knows of yet.
	claim(ctx context.Context) (*job, error)
	// complete ends a job that this client has claimed. It fails if the claim was lost.
	complete(ctx context.Context, j *job) error
	close()
}

// batcher is a client that can also do many cycles in three calls.
type batcher interface {
	client
	// batch submits, claims and completes; it returns how many jobs it completed.
	batch(ctx context.Context, bodies []string) (int, error)
}

// job is a claimed job: what it is called, what fences its claim, and its body.
type job struct {
	id    string
	fence int64
	body  string
}

// row is something that is measured of a peer.
type row struct {
	name string // beside the peer's
	step func(ctx context.Context, c client) (jobs int, err error)
}

var (
	cycleRow = row{"", cycle}
	batchRow = row{fmt.Sprintf(", batch of %d", batchSize), cycles}
)

// cycle takes one job in and brings one to its end, so that the backlog stays as long as it is.
func cycle(ctx context.Context, c client) (int, error) {
	if err := c.submit(ctx, newBody()); err != nil {
		return 0, fmt.Errorf("submit: %w", err)
	}
	for {
		j, err := c.claim(ctx)
		if err != nil {
			return 0, fmt.Errorf("claim: %w", err)
		}
		if j == nil {
			continue
		}
		if len(j.body) != bodySize {
			return 0, fmt.Errorf("claim: got a body of %d bytes, want %d", len(j.body), bodySize)
		}
		if err := c.complete(ctx, j); err != nil {
			return 0, fmt.Errorf("complete: %w", err)
		}
		return 1, nil
	}
}

// cycles is many cycles in three calls.
func cycles(ctx context.Context, c client) (int, error) {
	bodies := make([]string, batchSize)
	for i := range bodies {
		bodies[i] = newBody()
	}
	return c.(batcher).batch(ctx, bodies)
}

var (
	prose      = strings.Repeat("read the change, run what it touches, say what was done. ", 2*bodySize/56)
	bodyNumber atomic.Uint64
)

// newBody is as compressible as prose, and no two are alike: a peer may keep equal ones once.
func newBody() string {
	n := bodyNumber.Add(1)
	return (fmt.Sprintf("%016x%016x", n, rand.Uint64()) + prose[n%bodySize/2:])[:bodySize]
}
