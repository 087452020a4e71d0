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
	replies map[uint64]replied
	err     error
}

// replied takes the reply to a frame; false: the connection was lost before it came. It must not block.
type replied func(f frame, answered bool)

func newLink(to raft.ServerID, conn net.Conn) *link {
	l := &link{to: to, conn: conn, writing: newSlot(), w: bufio.NewWriterSize(conn, 64<<10), replies: map[uint64]replied{}}
	go l.read()
	return l
}

func (l *link) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil
}

// idle reports whether the link is alive, and no frame waits for its reply.
func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil && len(l.replies) == 0
}

// send writes a frame; then is called once. An error means that nothing of the frame left this node, and then is not called.
func (l *link) send(kind byte, payload []byte, then replied) error {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.number++
	number := l.number
	l.replies[number] = then
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
		l.fail(err) // some of it may have left: there is no answer, which says unknown
	}
	return nil
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
		then := l.replies[f.number]
		delete(l.replies, f.number)
		l.mu.Unlock()
		if then != nil {
			then(f, true)
		}
	}
}

func (l *link) fail(err error) {
	l.mu.Lock()
	unanswered := l.replies
	if l.err == nil {
		l.err = err
		go func() { _ = l.conn.Close() }() // TLS says goodbye first, for up to 5 s where nobody listens
	}
	l.replies = nil
	l.mu.Unlock()
	for _, then := range unanswered {
		then(frame{}, false)
	}
}
