package fsm

// This file is the commands by which a leader begins: they touch no document.

func (c *LeaderChange) apply(tx *tx) (Result, error) {
	tx.st.leaderSince = tx.st.now
	return &Done{}, nil
}

func (c *Noop) apply(*tx) (Result, error) { return &Done{}, nil }
