package cluster

// This file is the leader's side of forwarding.

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// serveForward answers a follower's frames until its connection ends. The transport has checked that the peer is a server
// of this cluster, so the callers it names are taken at its word, but never as the leader itself.
func (n *Node) serveForward(conn net.Conn, peer string) {
	defer conn.Close()
	stop := context.AfterFunc(n.lifetime, func() { _ = conn.Close() })
	defer stop()
	writing := newSlot()
	w := bufio.NewWriterSize(conn, 64<<10)
	reply := func(f frame, payload []byte) {
		writing.Lock()
		defer writing.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := writeFrame(w, frame{f.kind, f.number, payload}); err == nil {
			err = w.Flush()
			if err != nil {
				_ = conn.Close() // the reader sees it and ends
			}
		}
	}
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
			n.proposer.enqueue(p)
			go func() {
				<-p.done
				reply(f, encodeAnswers(p))
			}()
		case frameReadIndex, frameRemove, frameTransfer:
			go func() { reply(f, n.serveAsk(f)) }()
		default:
			n.log.Warn("a forwarded frame is of an unknown kind", "peer", peer, "kind", f.kind)
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
