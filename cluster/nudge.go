package cluster

// This file tells the followers at once that an entry is committed. Raft tells them with the next entry, or within a heartbeat's
// time-out: on an idle cluster a claim that waits on a follower, and a read there right after a write, would wait that long.

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// nudgeAfter is how long the slower followers get to store the entry, and the next entry to make the nudge needless.
const nudgeAfter = time.Millisecond

// closely is within which time of one another entries come from somebody who writes without a pause. The next entry is likely then: it
// gets this long, because two messages for every write cost as much as the write.
const closely = 3 * time.Millisecond

// nudgeFor is about how long a follower that has not stored the entry yet is told again, each time after twice the wait.
const nudgeFor = 100 * time.Millisecond

// commitPoint is an entry that this node, as leader of a term, knows to be committed.
type commitPoint struct {
	index, term uint64
	followed    bool // closely upon another entry
}

// nudger sends what raft itself would send a little later: an AppendEntries without entries. It is sound for a follower whose log has
// that entry, and refused by any other.
type nudger struct {
	node   *Node
	latest chan commitPoint // holds one
	told   time.Time        // when the latest was
	wait   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	busy   map[raft.ServerID]commitPoint // what a server that is being told hears next; the zero point: nothing
	last   commitPoint
	knows  map[raft.ServerID]uint64 // the index that each server was last told of, and has
}

func newNudger(n *Node) *nudger {
	return &nudger{node: n, latest: make(chan commitPoint, 1), busy: map[raft.ServerID]commitPoint{}, knows: map[raft.ServerID]uint64{}}
}

// tell notes a commit. It is called for one entry after the other.
func (nu *nudger) tell(index, term uint64) {
	now := time.Now()
	at := commitPoint{index, term, now.Sub(nu.told) < closely}
	nu.told = now
	nu.mu.Lock()
	nu.last = at
	nu.mu.Unlock()
	select {
	case <-nu.latest: // an older one
	default:
	}
	nu.latest <- at
}

// run sends nudges until the node closes.
func (nu *nudger) run() {
	defer func() {
		nu.mu.Lock()
		nu.closed = true
		nu.mu.Unlock()
		nu.wait.Wait()
	}()
	for {
		select {
		case at := <-nu.latest:
			after := nudgeAfter
			if at.followed {
				after = closely
			}
			timer := time.NewTimer(after)
			select {
			case <-timer.C:
			case <-nu.node.closing:
				timer.Stop()
				return
			}
			if nu.node.raft.LastIndex() > at.index {
				continue // the next entry carries the news
			}
			servers := nu.node.configuration()
			nu.mu.Lock()
			for _, s := range servers {
				if string(s.ID) != nu.node.id && at.index > nu.knows[s.ID] && nu.begin(s.ID, at) {
					nu.wait.Go(func() { nu.send(s.ID, at) })
				}
			}
			nu.mu.Unlock()
		case <-nu.node.closing:
			return
		}
	}
}

// hurry tells a server of the latest commit without waiting for the next entry: somebody there needs it.
func (nu *nudger) hurry(id raft.ServerID) {
	nu.mu.Lock()
	defer nu.mu.Unlock()
	if at := nu.last; !nu.closed && at.index > nu.knows[id] && nu.begin(id, at) {
		nu.wait.Go(func() { nu.send(id, at) })
	}
}

// begin is false while that server is being told of an earlier commit: it hears of this one next. It is called with mu held.
func (nu *nudger) begin(id raft.ServerID, at commitPoint) bool {
	if _, busy := nu.busy[id]; busy {
		nu.busy[id] = at
		return false
	}
	nu.busy[id] = commitPoint{}
	return true
}

// next is what to tell a server after an answer of its own; false: nothing.
func (nu *nudger) next(id raft.ServerID, answered bool) (commitPoint, bool) {
	nu.mu.Lock()
	defer nu.mu.Unlock()
	at := nu.busy[id]
	if at == (commitPoint{}) || !answered {
		delete(nu.busy, id)
		return at, false
	}
	nu.busy[id] = commitPoint{}
	return at, true
}

// send tells a server of a commit, and of what is committed meanwhile. One that does not answer is left to raft.
func (nu *nudger) send(id raft.ServerID, at commitPoint) {
	for more := true; more; {
		at, more = nu.next(id, nu.insist(id, at))
	}
}

// insist tells a server of a commit until it knows, or there is no need any more. It is false if the server does not answer.
func (nu *nudger) insist(id raft.ServerID, at commitPoint) (answered bool) {
	t := nu.node.transport.rpc
	own := t.EncodePeer(raft.ServerID(nu.node.id), t.LocalAddr())
	for wait := nudgeAfter; ; wait *= 2 {
		request := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(nu.node.id), Addr: own},
			Term:      at.term, PrevLogEntry: at.index, PrevLogTerm: at.term, LeaderCommitIndex: at.index,
		}
		var reply raft.AppendEntriesResponse
		if t.AppendEntries(id, "", request, &reply) != nil {
			return false
		}
		if reply.Success {
			nu.mu.Lock()
			nu.knows[id] = at.index
			nu.mu.Unlock()
		}
		if reply.Success || reply.Term != at.term || wait > nudgeFor { // raft does the same soon, and judges the answer
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-nu.node.closing:
			timer.Stop()
			return false
		}
		if nu.node.raft.LastIndex() > at.index {
			return true
		}
	}
}
