package cluster

// This file tells the followers at once that an entry is committed. Raft tells them with the next entry, or within 100 ms: on an idle
// cluster a claim that waits on a follower, and a read there right after a write, would wait that long.

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// nudgeAfter is how long the slower followers get to store the entry, and the next entry to make the nudge needless.
const nudgeAfter = time.Millisecond

// commitPoint is an entry that this node, as leader of a term, knows to be committed.
type commitPoint struct{ index, term uint64 }

// nudger sends what raft itself would send a little later: an AppendEntries without entries. It is sound for a follower whose log has
// that entry, and refused by any other.
type nudger struct {
	node   *Node
	latest chan commitPoint // holds one
	wait   sync.WaitGroup

	mu   sync.Mutex // guards busy
	busy map[raft.ServerID]bool
}

func newNudger(n *Node) *nudger {
	return &nudger{node: n, latest: make(chan commitPoint, 1), busy: map[raft.ServerID]bool{}}
}

// tell notes a commit. Only the proposer calls it.
func (nu *nudger) tell(at commitPoint) {
	select {
	case <-nu.latest: // an older one
	default:
	}
	nu.latest <- at
}

// run sends nudges until the node closes.
func (nu *nudger) run() {
	defer nu.wait.Wait()
	for {
		select {
		case at := <-nu.latest:
			timer := time.NewTimer(nudgeAfter)
			select {
			case <-timer.C:
			case <-nu.node.closing:
				timer.Stop()
				return
			}
			if nu.node.raft.LastIndex() > at.index {
				continue // the next entry carries the news
			}
			for _, s := range nu.node.configuration() {
				if string(s.ID) != nu.node.id && nu.begin(s.ID) {
					nu.wait.Go(func() { nu.send(s.ID, at) })
				}
			}
		case <-nu.node.closing:
			return
		}
	}
}

// begin is false while an earlier nudge of that server is not answered: it is slow or gone, and raft will tell it.
func (nu *nudger) begin(id raft.ServerID) bool {
	nu.mu.Lock()
	defer nu.mu.Unlock()
	if nu.busy[id] {
		return false
	}
	nu.busy[id] = true
	return true
}

func (nu *nudger) send(id raft.ServerID, at commitPoint) {
	defer func() {
		nu.mu.Lock()
		defer nu.mu.Unlock()
		delete(nu.busy, id)
	}()
	t := nu.node.transport.rpc
	own := t.EncodePeer(raft.ServerID(nu.node.id), t.LocalAddr())
	request := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(nu.node.id), Addr: own},
		Term:      at.term, PrevLogEntry: at.index, PrevLogTerm: at.term, LeaderCommitIndex: at.index,
	}
	var reply raft.AppendEntriesResponse
	_ = t.AppendEntries(id, "", request, &reply) // raft does the same soon, and judges its answer
}
