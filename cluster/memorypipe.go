package cluster

// This file is a stream of the network in memory: what is sent arrives after the link's delay, and waits while the link is cut.

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memoryConn is one end of a stream.
type memoryConn struct {
	read, write   *memoryPipe
	local, remote memoryAddr
}

func (c *memoryConn) Read(b []byte) (int, error)  { return c.read.Read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.write.Write(b) }
func (c *memoryConn) LocalAddr() net.Addr         { return c.local }
func (c *memoryConn) RemoteAddr() net.Addr        { return c.remote }

func (c *memoryConn) Close() error {
	c.read.closeReader()
	c.write.closeWriter()
	return nil
}

func (c *memoryConn) SetDeadline(t time.Time) error {
	c.read.setDeadline(&c.read.readBy, t)
	c.write.setDeadline(&c.write.writeBy, t)
	return nil
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.read.setDeadline(&c.read.readBy, t)
	return nil
}

func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.write.setDeadline(&c.write.writeBy, t)
	return nil
}

// memoryPipe is one direction of a stream: a bounded queue of chunks, each with the time at which it arrives.
type memoryPipe struct {
	net      *MemoryNetwork
	from, to string

	mu              sync.Mutex // guards what follows
	chunks          []memoryChunk
	size            int
	written, closed bool // the writer, the reader has closed its end
	reset           bool // too much was lost
	readBy, writeBy time.Time
	changed         chan struct{} // closed when any of these changes; nil while nobody waits for that
}

type memoryChunk struct {
	bytes []byte
	at    time.Time
}

// memoryPipeBytes is about what a socket buffers.
const memoryPipeBytes = 1 << 20

func newMemoryPipe(n *MemoryNetwork, from, to string) *memoryPipe {
	return &memoryPipe{net: n, from: from, to: to}
}

// announce and change are called with mu held.
func (p *memoryPipe) announce() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

func (p *memoryPipe) change() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

func (p *memoryPipe) closeReader() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.chunks, p.size = true, nil, 0
	p.announce()
}

func (p *memoryPipe) closeWriter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written = true
	p.announce()
}

func (p *memoryPipe) setDeadline(which *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sooner := !t.IsZero() && (which.IsZero() || t.Before(*which))
	*which = t
	if sooner { // whoever waits looks again at the old deadline
		p.announce()
	}
}

// wait waits until the pipe or a link changes, or the time comes; the zero time never does.
func (p *memoryPipe) wait(until time.Time, pipe, link <-chan struct{}) {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-pipe:
	case <-link:
	case <-due:
	}
}

func (p *memoryPipe) Read(b []byte) (int, error) {
	for {
		cut, _, link := p.net.link(p.from, p.to)
		p.mu.Lock()
		now, until := time.Now(), p.readBy
		switch {
		case p.closed:
			p.mu.Unlock()
			return 0, net.ErrClosed
		case p.reset:
			p.mu.Unlock()
			return 0, syscall.ECONNRESET
		case !until.IsZero() && !now.Before(until):
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case cut:
		case len(p.chunks) > 0 && !now.Before(p.chunks[0].at):
			n := copy(b, p.chunks[0].bytes)
			if p.chunks[0].bytes = p.chunks[0].bytes[n:]; len(p.chunks[0].bytes) == 0 {
				p.chunks = p.chunks[1:]
			}
			p.size -= n
			p.announce()
			p.mu.Unlock()
			return n, nil
		case len(p.chunks) > 0:
			if at := p.chunks[0].at; until.IsZero() || at.Before(until) {
				until = at
			}
		case p.written:
			p.mu.Unlock()
			return 0, io.EOF
		}
		pipe := p.change()
		p.mu.Unlock()
		p.wait(until, pipe, link)
	}
}

func (p *memoryPipe) Write(b []byte) (sent int, err error) {
	for {
		cut, _, link := p.net.link(p.from, p.to)
		p.mu.Lock()
		now := time.Now()
		switch {
		case p.written:
			p.mu.Unlock()
			return sent, net.ErrClosed
		case p.reset:
			p.mu.Unlock()
			return sent, syscall.ECONNRESET
		case p.closed && !cut:
			p.mu.Unlock()
			return sent, syscall.EPIPE
		case !p.writeBy.IsZero() && !now.Before(p.writeBy):
			p.mu.Unlock()
			return sent, os.ErrDeadlineExceeded
		}
		if room := min(memoryPipeBytes-p.size, len(b)); room > 0 && !p.closed {
			took, arrives := p.net.streamed(p.from, p.to, room)
			if !arrives {
				p.reset, p.chunks, p.size = true, nil, 0
				p.announce()
				p.mu.Unlock()
				continue
			}
			at := now.Add(took)
			if last := len(p.chunks) - 1; last >= 0 {
				at = later(at, p.chunks[last].at) // a stream stays in order
			}
			p.chunks = append(p.chunks, memoryChunk{append([]byte(nil), b[:room]...), at})
			p.size += room
			sent, b = sent+room, b[room:]
			p.announce()
		}
		if len(b) == 0 {
			p.mu.Unlock()
			return sent, nil
		}
		until, pipe := p.writeBy, p.change()
		p.mu.Unlock()
		p.wait(until, pipe, link)
	}
}
