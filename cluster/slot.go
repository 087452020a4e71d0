package cluster

// This file is the lock that is held while something is sent or waited for.

// slot is a mutex whose waiters wait on a channel, not on a mutex. In virtual time no clock moves while anybody waits for a mutex, so
// one that is held over a dial, a write or a timer would stop it for ever.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

func (s slot) Lock()   { s <- struct{}{} }
func (s slot) Unlock() { <-s }

// TryLock locks it, if it is free.
func (s slot) TryLock() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}
