package cluster

// This file is what a node puts around the state machine's entry: the term it was stamped in, and which frames of followers it carries,
// so that a follower which lost its connection finds out what became of its calls.

import (
	"encoding/binary"
	"errors"

	"github.com/lysnrai/fleet/fsm"
)

// envelopeFormat is the version of the envelope.
const envelopeFormat = 1

// envelope is the head of an entry's data. The state machine's own bytes follow it.
type envelope struct {
	// term is the one in which the entry was stamped and its frames were taken in. In another term's log the entry is void.
	term   uint64
	frames []placed
}

// frameID is what a follower calls a frame by: random, and never used twice.
type frameID [16]byte

// placed says which of the entry's proposals a frame is.
type placed struct {
	id           frameID
	first, count uint64
}

func (e *envelope) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, envelopeFormat), e.term)
	b = binary.AppendUvarint(b, uint64(len(e.frames)))
	for _, f := range e.frames {
		b = binary.AppendUvarint(append(b, f.id[:]...), f.first)
		b = binary.AppendUvarint(b, f.count)
	}
	return b
}

var errEnvelope = errors.New("the head of the entry can't be read")

// openEnvelope reads an envelope, and returns what is in it.
func openEnvelope(b []byte) (e envelope, rest []byte, err error) {
	if len(b) > 0 && b[0] > envelopeFormat {
		return e, nil, fsm.ErrFormat
	}
	if len(b) == 0 || b[0] == 0 {
		return e, nil, errEnvelope
	}
	b = b[1:]
	number := func() (n uint64) {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			err = errEnvelope
			return 0
		}
		b = b[k:]
		return n
	}
	e.term = number()
	for n := number(); err == nil && n > 0; n-- {
		var f placed
		if len(b) < len(f.id) {
			return e, nil, errEnvelope
		}
		b = b[copy(f.id[:], b):]
		f.first, f.count = number(), number()
		e.frames = append(e.frames, f)
	}
	return e, b, err
}

// of returns a frame's share of an entry's answers.
func (p placed) of(answers []fsm.Answer) ([]fsm.Answer, bool) {
	all := uint64(len(answers))
	if p.first > all || p.count > all-p.first {
		return nil, false
	}
	return answers[p.first : p.first+p.count : p.first+p.count], true
}
