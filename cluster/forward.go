package cluster

// This file carries a follower's writes and read indexes to the leader, in batches over one connection.
//
// A frame is a length, a kind, the asker's number for it, and a payload. Frames are answered in any order, so a slow write
// doesn't hold up a read. A leader that leads no more says so, and the follower looks for the next: a call makes one hop.

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
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
	replyRefused     byte = 3 // an encoded answer with the refusal follows
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

// forwarder sends to whoever leads.
type forwarder struct {
	node *Node

	mu      sync.Mutex // guards what follows
	waiting []*pending
	target  target // where waiting is meant for
	wake    chan struct{}

	dialing sync.Mutex // guards link; never taken with mu held
	link    *link      // to the latest leader
}

func newForwarder(n *Node) *forwarder { return &forwarder{node: n, wake: make(chan struct{}, 1)} }

func (fw *forwarder) enqueue(to target, w *pending) {
	fw.mu.Lock()
	fw.waiting = append(fw.waiting, w)
	fw.target = to
	fw.mu.Unlock()
	select {
	case fw.wake <- struct{}{}:
	default:
	}
}

// run sends what waits, many proposals to a frame, until the node closes.
func (fw *forwarder) run() {
	for {
		select {
		case <-fw.wake:
		case <-fw.node.closing:
			fw.mu.Lock()
			waiting := fw.waiting
			fw.waiting = nil
			fw.mu.Unlock()
			fw.dialing.Lock()
			if fw.link != nil {
				fw.link.fail(net.ErrClosed)
			}
			fw.dialing.Unlock()
			for _, w := range waiting {
				w.finish(nil, errNotProposed)
			}
			return
		}
		for {
			to, group := fw.take()
			if len(group) == 0 {
				break
			}
			fw.send(to, group)
		}
	}
}

func (fw *forwarder) take() (target, []*pending) {
	fw.mu.Lock()
	defer fw.mu.Unlock()
	var group []*pending
	commands, size := 0, 0
	for i, w := range fw.waiting {
		if i > 0 && (commands+len(w.proposals) > maxGroupCommands || size+w.size > maxGroupBytes) {
			break
		}
		commands, size = commands+len(w.proposals), size+w.size
		group = append(group, w)
	}
	if fw.waiting = fw.waiting[len(group):]; len(fw.waiting) == 0 {
		fw.waiting = nil
	}
	return fw.target, group
}

func (fw *forwarder) send(to target, group []*pending) {
	turnAway := func(err error) {
		for _, w := range group {
			w.finish(nil, err)
		}
	}
	payload := binary.AppendUvarint(nil, uint64(countProposals(group)))
	for _, w := range group {
		for i := range w.proposals {
			var err error
			if payload, err = fsm.AppendProposal(payload, &w.proposals[i]); err != nil {
				fw.node.log.Error("encoding a proposal", "error", err)
				turnAway(errNotProposed)
				return
			}
		}
	}
	l, err := fw.connect(to)
	if err != nil {
		fw.node.log.Debug("reaching the leader", "leader", to.id, "error", err)
		turnAway(errNotProposed)
		return
	}
	reply, err := l.send(framePropose, payload)
	if err != nil {
		turnAway(errNotProposed)
		return
	}
	go func() {
		f, ok := <-reply
		if !ok {
			turnAway(fmt.Errorf("%w: the connection to the leader was lost", errUnknown))
			return
		}
		answers, err := decodeAnswers(f.payload, countProposals(group))
		for _, w := range group {
			if err != nil {
				w.finish(nil, err)
				continue
			}
			w.finish(answers[:len(w.proposals):len(w.proposals)], nil)
			answers = answers[len(w.proposals):]
		}
	}()
}

func countProposals(group []*pending) (n int) {
	for _, w := range group {
		n += len(w.proposals)
	}
	return n
}

func decodeAnswers(b []byte, n int) ([]fsm.Answer, error) {
	if len(b) == 0 || b[0] == replyUnknown {
		return nil, errUnknown
	}
	if b[0] != replyOK {
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
	return answers, nil
}

// ask sends one small frame to the leader and waits for its reply.
func (fw *forwarder) ask(ctx context.Context, to target, kind byte, payload []byte) ([]byte, error) {
	l, err := fw.connect(to)
	if err != nil {
		return nil, errNotProposed
	}
	reply, err := l.send(kind, payload)
	if err != nil {
		return nil, errNotProposed
	}
	select {
	case f, ok := <-reply:
		if !ok {
			return nil, errUnknown
		}
		return f.payload, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-fw.node.closing:
		return nil, errUnknown
	}
}

// connect returns the link to the leader, dialled anew if it is another one or was lost.
func (fw *forwarder) connect(to target) (*link, error) {
	fw.dialing.Lock()
	defer fw.dialing.Unlock()
	if l := fw.link; l != nil {
		if l.to == to.id && l.alive() {
			return l, nil
		}
		l.fail(net.ErrClosed)
		fw.link = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := fw.node.transport.dialForward(ctx, to.id, string(to.addr))
	if err != nil {
		return nil, err
	}
	l := &link{to: to.id, conn: conn, w: bufio.NewWriterSize(conn, 64<<10), replies: map[uint64]chan frame{}}
	go l.read()
	fw.link = l
	return l, nil
}

// link is one connection to a leader.
type link struct {
	to   raft.ServerID
	conn net.Conn

	writing sync.Mutex // one frame at a time; taken before mu
	w       *bufio.Writer

	mu      sync.Mutex // guards what follows
	number  uint64
	replies map[uint64]chan frame
	err     error
}

func (l *link) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil
}

// send writes a frame. Its reply comes over the channel, which is closed if the connection is lost. An error means that
// nothing of the frame left this node.
func (l *link) send(kind byte, payload []byte) (<-chan frame, error) {
	reply := make(chan frame, 1)
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return nil, l.err
	}
	l.number++
	number := l.number
	l.replies[number] = reply
	l.mu.Unlock()

	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if err == nil {
		err = writeFrame(l.w, frame{kind, number, payload})
	}
	if err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		l.fail(err) // some of it may have left: the reply channel is closed, which says unknown
	}
	return reply, nil
}

func (l *link) read() {
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			l.fail(err)
			return
		}
		l.mu.Lock()
		reply := l.replies[f.number]
		delete(l.replies, f.number)
		l.mu.Unlock()
		if reply != nil {
			reply <- f
		}
	}
}

func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	_ = l.conn.Close()
	for _, reply := range l.replies {
		close(reply)
	}
	l.replies = nil
}

// serveForward answers a follower's frames until its connection ends. The transport has checked that the peer is a server
// of this cluster, so the callers it names are taken at its word, but never as the leader itself.
func (n *Node) serveForward(conn net.Conn, peer string) {
	defer conn.Close()
	stop := context.AfterFunc(n.lifetime, func() { _ = conn.Close() })
	defer stop()
	var writing sync.Mutex
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

func decodeProposals(b []byte) (*pending, error) {
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
	return newPending(proposals...), nil
}

func encodeAnswers(p *pending) []byte {
	switch {
	case p.err == nil:
	case errors.Is(p.err, errNotProposed):
		return []byte{replyNotProposed}
	default:
		return []byte{replyUnknown}
	}
	b := []byte{replyOK}
	for i := range p.answers {
		var err error
		if b, err = fsm.AppendAnswer(b, &p.answers[i]); err != nil {
			return []byte{replyUnknown}
		}
	}
	return b
}

// serveAsk answers the small frames.
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
		if index, err = n.reads.index(ctx); err == nil {
			return binary.BigEndian.AppendUint64([]byte{replyOK}, index)
		}
	case frameRemove:
		err = n.Remove(ctx, string(f.payload))
	case frameTransfer:
		err = n.TransferLeadership(ctx, string(f.payload))
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

// askLeader sends a small frame to the leader, wherever it is, until it is answered.
func (n *Node) askLeader(ctx context.Context, kind byte, payload []byte, here func(context.Context) error) ([]byte, error) {
	for {
		to, err := n.awaitLeader(ctx, leaderWait)
		if err != nil {
			return nil, err
		}
		if to.self {
			if err := here(ctx); !errors.Is(err, errNotProposed) {
				return nil, err
			}
			if err := n.pauseForLeader(ctx, to); err != nil {
				return nil, err
			}
			continue
		}
		b, err := n.forwarder.ask(ctx, to, kind, payload)
		switch {
		case err != nil && !errors.Is(err, errNotProposed):
			if ctx.Err() != nil {
				return nil, err
			}
			if kind != frameReadIndex { // a read can be asked again, a change can't
				return nil, unknownOutcome("the connection to the leader was lost")
			}
		case err == nil && len(b) > 0 && b[0] == replyOK:
			return b[1:], nil
		case err == nil && len(b) > 0 && b[0] == replyRefused:
			if a, _, err := fsm.DecodeAnswer(b[1:]); err == nil && a.Err != nil {
				return nil, a.Err
			}
		}
		if err := n.pauseForLeader(ctx, to); err != nil {
			return nil, err
		}
	}
}
