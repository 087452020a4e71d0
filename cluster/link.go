package cluster

// This file is a follower's connection to its leader.

import (
	"bufio"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// link is one connection to a leader.
type link struct {
	to   raft.ServerID
	conn net.Conn

	writing slot // one frame at a time; taken before mu
	w       *bufio.Writer

	mu      sync.Mutex // guards what follows
	number  uint64
	replies map[uint64]chan frame
	err     error
}

func newLink(to raft.ServerID, conn net.Conn) *link {
	l := &link{to: to, conn: conn, writing: newSlot(), w: bufio.NewWriterSize(conn, 64<<10), replies: map[uint64]chan frame{}}
	go l.read()
	return l
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
	go func() { _ = l.conn.Close() }() // TLS says goodbye first, for up to 5 s where nobody listens
	for _, reply := range l.replies {
		close(reply)
	}
	l.replies = nil
}
