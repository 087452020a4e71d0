package cluster

// This file is what an entry and a frame on their way have in common: the news of them comes from several sides, and the first counts.

import (
	"sync"
	"time"
)

// settling is something that is settled once, and what is to happen if nobody has settled it by then.
type settling struct {
	mu      sync.Mutex // guards what follows
	settled bool
	timer   *time.Timer
}

// first settles it; false: somebody has already.
func (s *settling) first() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled {
		return false
	}
	s.settled = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return true
}

// after runs fn later, unless it is settled by then. The latest call counts.
func (s *settling) after(d time.Duration, fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settled {
		s.timer = time.AfterFunc(d, fn)
	}
}
