package cluster

// This file is the leader's side of forwarding.

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// serveForward answers a follower's frames until its connection ends. The transport has checked that the peer is a server
// of this cluster, so the callers it names are taken at its word, but never as the leader itself.
func (n *Node) serveForward(conn net.Conn, peer string) {
	defer conn.Close()
	stop := context.AfterFunc(n.lifetime, func() { _ = conn.Close() })
	defer stop()
	replies := &replies{conn: conn, ready: make(chan struct{}, 1)}
	ended := make(chan struct{})
	defer close(ended)
	go replies.run(ended)
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				n.log.Debug("a forwarding connection ended", "peer", peer, "error", err)
			}
			return
		}
		switch f.kind {
		case framePropose:
			p, err := decodeProposals(f.payload)
			if err != nil {
				n.log.Warn("a forwarded frame can't be read", "peer", peer, "error", err)
				return
			}
			if p.tentative && !n.promising(p.proposals) {
				replies.add(f, func() []byte { return []byte{replyNothing} })
				continue
			}
			p.then = func() { replies.add(f, func() []byte { return encodeAnswers(p) }) }
			n.proposer.enqueue(p)
		case frameReadIndex, frameRemove, frameTransfer:
			if f.kind == frameReadIndex {
				n.nudger.hurry(raft.ServerID(peer)) // it waits for that index next
			}
			go func() {
				answer := n.serveAsk(f)
				replies.add(f, func() []byte { return answer })
			}()
		default:
			n.log.Warn("a forwarded frame is of an unknown kind", "peer", peer, "kind", f.kind)
			return
		}
	}
}

// replies are what a follower's frames are answered with. All that are ready leave by one write: the calls of an entry are answered at
// the same time.
type replies struct {
	conn  net.Conn
	ready chan struct{}

	mu      sync.Mutex // guards waiting
	waiting []reply
}

type reply struct {
	to      frame
	payload func() []byte
}

// add has a frame answered. It does not block; the payload is made later, by run.
func (r *replies) add(to frame, payload func() []byte) {
	r.mu.Lock()
	r.waiting = append(r.waiting, reply{to, payload})
	r.mu.Unlock()
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// run writes replies until the connection has ended.
func (r *replies) run(ended <-chan struct{}) {
	w := bufio.NewWriterSize(r.conn, 64<<10)
	for {
		select {
		case <-r.ready:
		case <-ended:
			return
		}
		r.mu.Lock()
		waiting := r.waiting
		r.waiting = nil
		r.mu.Unlock()
		_ = r.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		for _, reply := range waiting { // an error stays with the writer
			_ = writeFrame(w, frame{reply.to.kind, reply.to.number, reply.payload()})
		}
		if w.Flush() != nil {
			_ = r.conn.Close() // the reader sees it and ends
			return
		}
	}
}

// serveAsk answers the small frames, here or not at all: a call makes one hop.
func (n *Node) serveAsk(f frame) []byte {
	ctx, cancel := context.WithTimeout(n.lifetime, 10*time.Second)
	defer cancel()
	if !n.leading.Load() {
		return []byte{replyNotProposed}
	}
	var err error
	switch f.kind {
	case frameReadIndex:
		var index uint64
		if index, err = n.confirms.index(ctx); err == nil {
			return binary.BigEndian.AppendUint64([]byte{replyOK}, index)
		}
	case frameRemove:
		err = n.membership.remove(ctx, string(f.payload))
	case frameTransfer:
		err = n.transfer(ctx, string(f.payload))
	}
	var refused *fleet.Error
	switch {
	case err == nil:
		return []byte{replyOK}
	case errors.As(err, &refused):
		if b, err := fsm.AppendAnswer([]byte{replyRefused}, &fsm.Answer{Err: refused}); err == nil {
			return b
		}
	}
	return []byte{replyNotProposed}
}
