package fsm

// This file is the machine's front: Apply changes it, View reads it, Handle freezes it for a snapshot.

import (
	"io"
	"sync"

	"github.com/lysnrai/fleet"
)

// Machine is one replica of the state. Apply is called by one goroutine at a time; all else may be called at once.
type Machine struct {
	mu          sync.RWMutex // guards what follows
	st          *state
	checkpoints []Checkpoint // the latest last (checkpoint.go)
}

// New is the state before the first entry.
func New() *Machine { return &Machine{st: newState()} }

// Apply applies the entry with this log index and answers its proposals in order. News says which waiting claims and
// feeds it may concern. Apply can't fail: an entry is decoded, and refused if it is too new, before it comes here.
func (m *Machine) Apply(index uint64, e *Entry) (answers []Answer, news News) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass(index)
	return m.st.apply(index, e)
}

// Skip moves the machine's index over a log entry that is not its own: a configuration, or raft's no-op.
func (m *Machine) Skip(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass(index)
	m.st.index = max(m.st.index, index)
}

// News is what an entry brought that somebody may wait for.
type News struct {
	// Products are those in which a job became claimable, or a factory changed what it may claim, in sorted order.
	Products []string
	// Factories are the products in which a factory is new, is forgotten or can do something else than before, in sorted order. They are
	// Products too.
	Factories []string
	// Feeds are the products whose feed grew, in sorted order.
	Feeds []string
	// TokenEnded says that a token was revoked or expired: whoever waits with it is to hear so.
	TokenEnded bool
}

// View calls fn with the state as it is after the last entry. fn must not keep the View, but it may keep documents:
// they never change.
func (m *Machine) View(fn func(v View)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(View{m.st})
}

// Index is the log index of the last entry applied or skipped.
func (m *Machine) Index() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.index
}

// Handle freezes the state in O(1), for a snapshot to be written from while Apply goes on.
func (m *Machine) Handle() *Handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Handle{m.st.fork()}
}

// Handle is a frozen state.
type Handle struct{ st *state }

// WriteTo writes the snapshot stream: typed records, each checksummed, after a header with the format version.
func (h *Handle) WriteTo(w io.Writer) (int64, error) { return writeSnapshot(w, h.st) }

// Hash is a hash over the whole state, indexes included: equal on any two replicas at one index. It takes O(state).
func (m *Machine) Hash() [32]byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.hash()
}

// LeaderSince is the time of the latest LeaderChange, zero if there was none.
func (m *Machine) LeaderSince() fleet.Time {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.leaderSince
}

// Now is the machine's time: that of the latest stamp.
func (m *Machine) Now() fleet.Time {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.now
}
