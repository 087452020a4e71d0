package cluster

// This file is what a follower and its leader say to each other: frames.
//
// A frame is a length, a kind, the asker's number for it, and a payload. Frames are answered in any order, so a slow write
// doesn't hold up a read.

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/lysnrai/fleet/fsm"
)

// The kinds of frames. A reply has the kind of its request.
const (
	framePropose   byte = 1 // proposals → answers
	frameReadIndex byte = 2 // nothing → index
	frameRemove    byte = 3 // a node's name → nothing
	frameTransfer  byte = 4 // a node's name or nothing → nothing
)

// The first byte of a reply's payload.
const (
	replyOK          byte = 0
	replyNotProposed byte = 1
	replyUnknown     byte = 2
	replyRefused     byte = 3 // an encoded answer with the refusal follows; of proposals one for each, empty for those that may come again
	replyNothing     byte = 4 // of tentative proposals: the leader sees nothing to claim
)

// maxFrame bounds what a frame may claim to be.
const maxFrame = 3 * maxCommandBytes

type frame struct {
	kind    byte
	number  uint64
	payload []byte
}

func writeFrame(w *bufio.Writer, f frame) error {
	var head [13]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(f.payload)))
	head[4] = f.kind
	binary.BigEndian.PutUint64(head[5:], f.number)
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(f.payload)
	return err
}

func readFrame(r *bufio.Reader) (frame, error) {
	var head [13]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes is over the limit of %d", size, maxFrame)
	}
	f := frame{kind: head[4], number: binary.BigEndian.Uint64(head[5:]), payload: make([]byte, size)}
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// frameTentative follows the proposals of a frame that a leader without anything to claim answers with replyNothing. An earlier release
// reads no further than the proposals, and puts them into the log.
const frameTentative byte = 1

// encodeProposals is the payload of a frame: its id, the term it is meant for, and what is proposed.
func encodeProposals(id frameID, term uint64, group []*pending) (payload []byte, count int, err error) {
	for _, w := range group {
		count += len(w.proposals)
	}
	payload = binary.AppendUvarint(append(payload, id[:]...), term)
	payload = binary.AppendUvarint(payload, uint64(count))
	for _, w := range group {
		for i := range w.proposals {
			if payload, err = fsm.AppendProposal(payload, &w.proposals[i]); err != nil {
				return nil, 0, err
			}
		}
	}
	if group[0].tentative {
		payload = append(payload, frameTentative)
	}
	return payload, count, nil
}

// decodeProposals reads such a payload. Nobody but the leader itself may speak as the leader.
func decodeProposals(b []byte) (*pending, error) {
	var id frameID
	if len(b) < len(id) {
		return nil, errors.New("a frame without an id")
	}
	b = b[copy(id[:], b):]
	term, k := binary.Uvarint(b)
	if id == (frameID{}) || k <= 0 || term == 0 {
		return nil, errors.New("a frame without an id or a term")
	}
	b = b[k:]
	count, k := binary.Uvarint(b)
	if k <= 0 || count == 0 || count > 2*maxGroupCommands {
		return nil, errors.New("bad count of proposals")
	}
	b = b[k:]
	proposals := make([]fsm.Proposal, count)
	for i := range proposals {
		p, rest, err := fsm.DecodeProposal(b)
		if err != nil {
			return nil, err
		}
		if p.Caller.Actor == fsm.ActorFleet {
			return nil, errors.New("a follower can't speak as the leader")
		}
		proposals[i], b = *p, rest
	}
	w := newPending(proposals...)
	w.frame, w.term = id, term
	w.tentative = len(b) > 0 && b[0] == frameTentative
	return w, nil
}

// encodeAnswers is the payload of the reply. What can't be encoded, or would be too long a frame, the follower reads from its own log.
func encodeAnswers(p *pending) []byte {
	b := []byte{replyOK}
	switch {
	case p.err == nil:
	case errors.Is(p.err, errRefused):
		b[0] = replyRefused
	case errors.Is(p.err, errNotProposed):
		return []byte{replyNotProposed}
	default:
		return []byte{replyUnknown}
	}
	for i := range p.answers {
		var err error
		if b, err = fsm.AppendAnswer(b, &p.answers[i]); err != nil {
			return []byte{replyUnknown}
		}
	}
	if len(b) > maxFrame {
		return []byte{replyUnknown}
	}
	return b
}

func decodeAnswers(b []byte, n int) ([]fsm.Answer, error) {
	if len(b) == 0 || b[0] == replyUnknown {
		return nil, errUnknown
	}
	var outcome error
	switch b[0] {
	case replyOK:
	case replyRefused:
		outcome = errRefused
	case replyNothing:
		return nil, errNothing
	default:
		return nil, errNotProposed
	}
	b = b[1:]
	answers := make([]fsm.Answer, n)
	for i := range answers {
		var err error
		if answers[i], b, err = fsm.DecodeAnswer(b); err != nil {
			return nil, fmt.Errorf("%w: the leader's answer can't be read", errUnknown)
		}
	}
	return answers, outcome
}
