package cluster

// This file watches how much room the disks have, and turns work away before they are full: a full disk ends a node.
//
// Every node looks at its own disk, says how it is, and makes room with a snapshot. The leader asks the voters, gives way to
// one with more room, and turns work away once no quorum has room for it.

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

const (
	spaceEvery = 2 * time.Second  // how often a node looks, and the leader asks
	spaceWait  = time.Second      // how long an answer is waited for
	spaceStale = 10 * time.Second // a voter that says nothing for longer has no room
	spaceRetry = 5                // seconds, for Retry-After
	spaceSay   = time.Minute      // how often a node says that it is short of room, or looks at its snapshots' size
	shyFor     = 3 * time.Second  // how long a node that is short of room leaves an election to the others
	squeezes   = 2                // snapshots until the log before the first is gone too, as the log stays back to the older one
)

// The least reserve. TimingLocal is for a small machine, and has no other.
const (
	leastReserve = 256 << 20
	localReserve = 32 << 20
)

// room is how much a node's disk has, in bytes. A reserve of zero is not known.
type room struct{ free, reserve uint64 }

// allows is the greatest need that it has room for.
func (r room) allows() fsm.Need {
	switch {
	case r.free >= r.reserve:
		return fsm.NeedsReserve
	case r.free >= r.reserve/2:
		return fsm.NeedsHalf
	}
	return fsm.NeedsNothing
}

// told is what a voter last said.
type told struct {
	room
	applied uint64
	at      time.Time
}

// space is a node's part in it.
type space struct {
	node     *Node
	disk     Disk
	free     atomic.Uint64
	reserve  atomic.Uint64
	snapshot atomic.Int64 // bytes of the last one
	allowed  atomic.Int32 // the greatest fsm.Need that this node lets through while it leads
	squeezed atomic.Bool  // it is below its reserve, and has made what room it can

	mu     sync.Mutex      // guards what follows
	voters map[string]told // by server id, while this node leads
	stuck  bool            // leadership could not be handed over
	spoken seldom
}

func newSpace(n *Node) *space {
	s := &space{node: n, disk: n.cfg.Disk}
	s.allowed.Store(int32(fsm.NeedsReserve))
	s.sizeSnapshot()
	s.look()
	return s
}

// own is this node's room, as it was last seen.
func (s *space) own() room { return room{s.free.Load(), s.reserve.Load()} }

// low reports whether this node is below its reserve.
func (s *space) low() bool { return s.own().allows() < fsm.NeedsReserve }

// look looks at the disk. If that fails, what was seen before stands; at first, nothing is held to be short.
func (s *space) look() {
	reserve := uint64(localReserve)
	if s.node.cfg.Timing != TimingLocal {
		reserve = max(leastReserve, 4*uint64(s.node.cfg.SegmentBytes), uint64(s.snapshot.Load())*3/2)
	}
	free, err := s.disk.Free()
	if err != nil {
		if s.spoken.allow("unknown", spaceSay) {
			s.node.log.Warn("how much room the disk has can't be found out", "dir", s.node.cfg.DataDir, "error", err)
		}
		if free = s.free.Load(); s.reserve.Load() == 0 {
			free = reserve
		}
	}
	s.free.Store(free)
	s.reserve.Store(reserve)
}

// sizeSnapshot learns the size of the last snapshot, which another node may have sent.
func (s *space) sizeSnapshot() {
	if list, err := s.node.stores.Snapshots.List(); err == nil && len(list) > 0 {
		s.snapshot.Store(list[0].Size)
	}
}

// run looks after this node's own disk until it closes.
func (s *space) run() {
	ticker := time.NewTicker(spaceEvery)
	defer ticker.Stop()
	sized, snapshots, wasLow := time.Now(), 0, false
	for {
		if time.Since(sized) >= spaceSay {
			s.sizeSnapshot()
			sized = time.Now()
		}
		s.look()
		low := s.low()
		switch {
		case !low && wasLow && s.spoken.allow("room", spaceSay):
			s.node.log.Info("the disk has room again", "freeBytes", s.free.Load(), "reserveBytes", s.reserve.Load())
		case low && s.spoken.allow("low", spaceSay):
			s.node.log.Warn("the disk is short of room: make some, or new work is refused", "dir", s.node.cfg.DataDir,
				"freeBytes", s.free.Load(), "reserveBytes", s.reserve.Load())
		}
		if wasLow = low; !low {
			snapshots = 0
		} else if s.squeeze(snapshots) {
			snapshots++
			s.look()
		}
		s.squeezed.Store(s.low())
		select {
		case <-ticker.C:
		case <-s.node.closing:
			return
		}
	}
}

// squeeze writes a snapshot, so that the log before it can go: at once when the disk becomes short of room, later for every segment
// that the log has grown by. Not where the snapshot itself would fill the disk. It reports whether it did.
func (s *space) squeeze(before int) bool {
	r, grown := s.node.raftIfUp(), s.node.logBytes.Load()
	worth := int64(1)
	if before >= squeezes {
		worth = max(int64(s.node.cfg.SegmentBytes), s.snapshot.Load()/2)
	}
	needs := cmp.Or(s.snapshot.Load()/4*5, grown) // what the state takes, about
	if r == nil || grown < worth || s.free.Load() < uint64(needs) || s.node.snapshotBusy() {
		return false
	}
	return s.node.takeSnapshot(r)
}

// admit refuses proposals of which one needs more room than there is; the answers say which. It is nil if all may pass.
func (s *space) admit(proposals []fsm.Proposal) []fsm.Answer {
	allowed := fsm.Need(s.allowed.Load())
	if allowed == fsm.NeedsReserve {
		return nil
	}
	var refused []fsm.Answer
	for i := range proposals {
		if fsm.NeedOf(proposals[i].Command) <= allowed {
			continue
		}
		if refused == nil {
			refused = make([]fsm.Answer, len(proposals))
		}
		refused[i].Err = diskFull()
	}
	return refused
}

func diskFull() *fleet.Error {
	e := fleet.Errorf(fleet.DiskFull, "too few nodes have room on their disks: free some, below the data directories; nothing was done, and the same request works once there is room")
	e.RetryAfterSeconds = spaceRetry
	return e
}

// begin begins a term: nobody has said anything yet.
func (s *space) begin() {
	s.mu.Lock()
	s.voters, s.stuck = map[string]told{}, false
	s.mu.Unlock()
	s.judge()
}

// lead asks the voters and decides by what they say, until the term ends.
func (s *space) lead(ctx context.Context) {
	ticker := time.NewTicker(spaceEvery)
	defer ticker.Stop()
	for {
		s.ask(ctx)
		s.judge()
		if s.giveWay(ctx) {
			s.judge()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask asks the other voters how much room they have.
func (s *space) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, spaceWait)
	defer cancel()
	var wait sync.WaitGroup
	for _, v := range s.node.otherVoters() {
		wait.Go(func() {
			reply, err := s.node.transport.hello(ctx, s.node.addressOf(v), helloRequest{Op: opStatus})
			if err != nil || reply.ServerID != string(v.ID) {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.voters[reply.ServerID] = told{room{reply.DiskFree, reply.Reserve}, reply.Applied, time.Now()}
		})
	}
	wait.Wait()
}

// judge decides what this leader lets through.
func (s *space) judge() {
	rooms, others := []room{s.own()}, s.node.otherVoters()
	s.mu.Lock()
	for _, v := range others {
		if t := s.voters[string(v.ID)]; time.Since(t.at) < spaceStale {
			rooms = append(rooms, t.room)
		}
	}
	allowed := allowedBy(rooms, len(others)+1)
	if s.stuck {
		allowed = min(allowed, s.own().allows())
	}
	s.mu.Unlock()
	if was := fsm.Need(s.allowed.Swap(int32(allowed))); was != allowed {
		s.node.log.Info("what is let through has changed", "newWork", allowed >= fsm.NeedsReserve, "otherWork", allowed >= fsm.NeedsHalf)
	}
}

// allowedBy is the greatest need that a quorum of the voters has room for. Where nobody is short of it, silence is no reason: that is
// a matter of quorum, not of disks.
func allowedBy(rooms []room, voters int) fsm.Need {
	for need := fsm.NeedsReserve; need > fsm.NeedsNothing; need-- {
		roomy := 0
		for _, r := range rooms {
			if r.allows() >= need {
				roomy++
			}
		}
		if roomy > voters/2 || roomy == len(rooms) {
			return need
		}
	}
	return fsm.NeedsNothing
}

// giveWay hands leadership to a voter that has more room, once this node has made what room it can. It reports whether it tried.
func (s *space) giveWay(ctx context.Context) bool {
	if !s.low() {
		s.setStuck(false)
		return false
	}
	if !s.squeezed.Load() {
		return false
	}
	to, found := s.roomiest(s.own().allows() + 1)
	if !found {
		return false
	}
	s.node.log.Warn("handing leadership over: the disk is short of room", "to", s.node.membership.nameOf(string(to.ID)))
	select {
	case err := <-outcome(s.node.raft.LeadershipTransferToServer(to.ID, to.Address)):
		if err != nil && ctx.Err() == nil {
			s.node.log.Warn("handing leadership over", "error", err)
			s.setStuck(true)
		}
	case <-ctx.Done():
	}
	return true
}

func (s *space) setStuck(stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = stuck
}

// roomiest is the other voter with the most room, by what it allows, then the most up-to-date; false if none allows at least that.
func (s *space) roomiest(least fsm.Need) (raft.Server, bool) {
	others := s.node.otherVoters()
	s.mu.Lock()
	defer s.mu.Unlock()
	others = slices.DeleteFunc(others, func(v raft.Server) bool {
		t := s.voters[string(v.ID)]
		return time.Since(t.at) >= spaceStale || t.allows() < least
	})
	if len(others) == 0 {
		return raft.Server{}, false
	}
	return slices.MaxFunc(others, func(a, b raft.Server) int {
		x, y := s.voters[string(a.ID)], s.voters[string(b.ID)]
		return cmp.Or(cmp.Compare(x.allows(), y.allows()), cmp.Compare(x.applied, y.applied))
	}), true
}

// shorter reports whether a voter is known to have less room than this node and than its own reserve: it should not lead.
func (s *space) shorter(id raft.ServerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, known := s.voters[string(id)]
	return known && t.allows() < fsm.NeedsReserve && t.allows() < s.own().allows()
}

// shy reports whether this node should leave an election to the others: it is short of room, and they may not be. Not for long.
func (s *space) shy() bool {
	r := s.node.raftIfUp()
	return r != nil && s.low() && time.Since(r.LastContact()) < shyFor
}

// statfs is the real disk.
type statfs struct{ dir string }

// Free is how many bytes this user may still write where the data directory is.
func (d statfs) Free() (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
