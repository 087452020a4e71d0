package cluster

// This file keeps raft's replication from standing still. The library reads the answers to pipelined entries until the first bad
// one, and then no more; its pipeline waits for a reader of every answer before it takes more entries. If a follower fails while the
// next entries are on their way, the two wait for each other: that follower is sent nothing for as long as the leader leads, and the
// leader, which waits for its own goroutines, never shuts down.

import (
	"errors"

	"github.com/hashicorp/raft"
)

// pipelined is how many requests a pipeline has under way. The library answers one, keeps one that was answered and not read, and one
// that is to be answered: it takes no third from its sender before the first is answered, and may wait for a reader at the fourth.
const pipelined = 3

var errPipelineFailed = errors.New("the follower has refused an entry, or is out of reach")

// pipeline sends nothing after a bad answer, so that nobody waits for a reader that is gone. As the library's own, it is for one sender.
type pipeline struct {
	raft.AppendPipeline
	sent [pipelined]*raft.AppendEntriesResponse // the last answers, oldest first: that one is there once all are sent
}

// AppendEntries sends entries, and fails after a bad answer: raft then opens another pipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if known := p.sent[0]; known != nil && !known.Success {
		return nil, errPipelineFailed
	}
	copy(p.sent[:], p.sent[1:])
	p.sent[pipelined-1] = resp
	return p.AppendPipeline.AppendEntries(args, resp)
}
