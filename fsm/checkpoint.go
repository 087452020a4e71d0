package fsm

// This file keeps the hashes that replicas are compared by: that of the state at every 1,000th index, the last of them.

// CheckpointEvery is how far apart checkpoints are in the log.
const CheckpointEvery = 1000

// keptCheckpoints is how many of them a machine remembers.
const keptCheckpoints = 64

func (c *Checkpoint) apply(*tx) (Result, error) { return &Done{}, nil }

// pass notes the latest checkpoint that an entry with this index goes past, before the entry changes anything: the state is
// still what it was before the first entry of the machine's own above it. A machine that was restored above a checkpoint
// can't know it.
func (m *Machine) pass(index uint64) {
	if index == 0 {
		return
	}
	at := (index - 1) / CheckpointEvery * CheckpointEvery
	if at == 0 || m.st.index > at {
		return
	}
	if len(m.checkpoints) == keptCheckpoints {
		m.checkpoints = append(m.checkpoints[:0], m.checkpoints[1:]...)
	}
	m.checkpoints = append(m.checkpoints, Checkpoint{Index: at, Hash: m.st.digest(), Version: HashVersion})
}

// Checkpoint is what this machine had at a checkpoint; false if it does not know, or not any more.
func (m *Machine) Checkpoint(index uint64) (Checkpoint, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.checkpoints {
		if c.Index == index {
			return c, true
		}
	}
	return Checkpoint{}, false
}

// LastCheckpoint is the latest that this machine knows, if it knows one.
func (m *Machine) LastCheckpoint() (Checkpoint, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if n := len(m.checkpoints); n > 0 {
		return m.checkpoints[n-1], true
	}
	return Checkpoint{}, false
}
