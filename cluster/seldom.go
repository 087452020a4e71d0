package cluster

// This file keeps what repeats from filling the log.

import (
	"sync"
	"time"
)

// seldom lets a message through once in a while, so that what repeats does not fill the log.
type seldom struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

func (s *seldom) allow(what string, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.last[what]; ok && now.Sub(last) < every {
		return false
	}
	if s.last == nil || len(s.last) >= 1000 {
		s.last = map[string]time.Time{}
	}
	s.last[what] = now
	return true
}
