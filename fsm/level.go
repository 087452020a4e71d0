package fsm

// This file is the level: the newest format that the cluster writes. It rises by an entry, and only when every member can read that
// entry, so that until the last node is upgraded a node of the release before can still read all of the log and every snapshot
// (docs/decisions/005-levels.md).
//
// An entry and a proposal begin with the level of what is in them, a snapshot with that of its state. Whoever knows less refuses
// them by that byte, and never skips a command or a field that it does not know.

// MaxLevel is the newest level that this build knows.
const MaxLevel = 2

// firstLevel is that of the first release.
const firstLevel = 1

// LevelOf is the level from which a command may be proposed: nobody below can read it. A new command has a new level, and so has a
// command with a new field that is set.
func LevelOf(c Command) int {
	switch c := c.(type) {
	case *Level:
		return max(2, c.To)
	case *Checkpoint:
		return 2
	}
	return firstLevel
}

// Level is the newest that is in the entry.
func (e *Entry) Level() int {
	level := firstLevel
	for i := range e.Proposals {
		level = max(level, LevelOf(e.Proposals[i].Command))
	}
	return level
}

// Level is the one that the machine's state has reached.
func (m *Machine) Level() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.level
}

func (c *Level) apply(tx *tx) (Result, error) {
	tx.st.level = max(tx.st.level, c.To)
	return &Done{}, nil
}
