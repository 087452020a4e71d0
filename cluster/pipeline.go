package cluster

// This file keeps raft's replication from standing still. The library reads the answers to pipelined entries until the first bad
// one, and then no more; its pipeline waits for a reader of every answer before it takes the next entry. If a follower fails while
// the next entry is on its way, the two wait for each other: that follower is sent nothing for as long as the leader leads, and
// the leader, which waits for its own goroutines, never shuts down.

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline keeps answers for whoever may still read them, so that nobody waits for that.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

func newPipeline(p raft.AppendPipeline) *pipeline {
	kept := &pipeline{AppendPipeline: p, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go kept.run()
	return kept
}

// Consumer gives the answers, in order.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline. It may be called again.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

// run takes every answer at once. There are no more of them than entries that were sent without one being read: one or two.
func (p *pipeline) run() {
	var kept []raft.AppendFuture
	for {
		var next raft.AppendFuture
		var out chan<- raft.AppendFuture // nil while there is none
		if len(kept) > 0 {
			next, out = kept[0], p.answers
		}
		select {
		case answer := <-p.AppendPipeline.Consumer():
			kept = append(kept, answer)
		case out <- next:
			kept = kept[1:]
		case <-p.closed:
			return
		}
	}
}
