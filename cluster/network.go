package cluster

// This file is the network that nodes really use, and one in memory for tests, whose links can be cut and delayed.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// resolver is what a Network may offer beside its own methods, where host names are not those of the DNS.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// realNetwork is TCP, with memberlist's own UDP and TCP for gossip.
type realNetwork struct{}

// RealNetwork is what a Config without a Network has.
func RealNetwork() Network { return realNetwork{} }

func (realNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (realNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (realNetwork) Gossip(string) (memberlist.Transport, error) { return nil, nil }

func (realNetwork) LookupHost(ctx context.Context, host string) ([]string, error) {
	return net.DefaultResolver.LookupHost(ctx, host)
}

// MemoryNetwork is a network for tests that lives in this process, in real or virtual time (testing/synctest). All methods
// may be called at once. What is sent over a link that is cut waits there, as with TCP; packets are lost, and so are dials.
type MemoryNetwork struct {
	mu        sync.Mutex // guards what follows; never held while waiting
	hosts     []string   // the i-th has the address 10.0.0.0 + i + 1
	listeners map[string]*memoryListener
	packets   map[string]*memoryGossip
	cut       map[memoryLink]bool
	delay     map[memoryLink]time.Duration
	changed   chan struct{} // closed when cut changes
	port      int
}

// memoryLink is one direction between two hosts.
type memoryLink struct{ from, to string }

// NewMemoryNetwork makes a network without hosts.
func NewMemoryNetwork() *MemoryNetwork {
	return &MemoryNetwork{
		listeners: map[string]*memoryListener{}, packets: map[string]*memoryGossip{},
		cut: map[memoryLink]bool{}, delay: map[memoryLink]time.Duration{}, changed: make(chan struct{}), port: 40000,
	}
}

// Host is the network as the host with this name sees it. Others reach it by the name, as in "n1:8401".
func (n *MemoryNetwork) Host(name string) Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.number(name)
	return memoryHost{n, name}
}

// Cut cuts the link between two hosts in both directions.
func (n *MemoryNetwork) Cut(a, b string) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay cuts the link in one direction.
func (n *MemoryNetwork) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[memoryLink{from, to}] = true
	n.announce()
}

// Heal mends all links. Delays stay.
func (n *MemoryNetwork) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.announce()
}

// Delay makes all that goes between two hosts take d, each way.
func (n *MemoryNetwork) Delay(a, b string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay[memoryLink{a, b}], n.delay[memoryLink{b, a}] = d, d
}

// announce and the methods below it are called with mu held.
func (n *MemoryNetwork) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *MemoryNetwork) number(name string) int {
	for i, h := range n.hosts {
		if h == name {
			return i
		}
	}
	n.hosts = append(n.hosts, name)
	return len(n.hosts) - 1
}

func (n *MemoryNetwork) ip(name string) net.IP {
	i := n.number(name) + 1
	return net.IPv4(10, 0, byte(i>>8), byte(i)).To4()
}

// name is the host of an address, given by name or by number.
func (n *MemoryNetwork) name(addr string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(addr); err != nil {
		return "", "", err
	}
	if ip := net.ParseIP(host).To4(); ip != nil {
		if i := int(ip[2])<<8 + int(ip[3]) - 1; i >= 0 && i < len(n.hosts) {
			host = n.hosts[i]
		}
	}
	return host, port, nil
}

func (n *MemoryNetwork) link(from, to string) (cut bool, delay time.Duration, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := memoryLink{from, to}
	return n.cut[l], n.delay[l], n.changed
}

// memoryHost is the Network of one host.
type memoryHost struct {
	net  *MemoryNetwork
	name string
}

func (h memoryHost) LookupHost(_ context.Context, host string) ([]string, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, name := range h.net.hosts {
		if name == host {
			return []string{h.net.ip(name).String()}, nil
		}
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (h memoryHost) Listen(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.listen(addr)
}

func (h memoryHost) listen(addr string) (*memoryListener, error) {
	host, port, err := h.net.name(addr)
	if err != nil {
		return nil, err
	}
	if host != "" && host != h.name {
		return nil, fmt.Errorf("host %s can't listen on %s", h.name, addr)
	}
	if port == "0" {
		h.net.port++
		port = strconv.Itoa(h.net.port)
	}
	l := &memoryListener{net: h.net, addr: memoryAddr(net.JoinHostPort(h.name, port)), accept: make(chan net.Conn, 128), done: make(chan struct{})}
	if h.net.listeners[string(l.addr)] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: l.addr, Err: syscall.EADDRINUSE}
	}
	h.net.listeners[string(l.addr)] = l
	return l, nil
}

func (h memoryHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	h.net.mu.Lock()
	to, port, err := h.net.name(addr)
	h.net.mu.Unlock()
	if err != nil {
		return nil, err
	}
	target := memoryAddr(net.JoinHostPort(to, port))
	for {
		there, delay, changed := h.net.link(h.name, to)
		back, delayBack, _ := h.net.link(to, h.name)
		if !there && !back {
			if delay+delayBack == 0 {
				break
			}
			timer := time.NewTimer(delay + delayBack)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil, &net.OpError{Op: "dial", Net: "memory", Addr: target, Err: ctx.Err()}
			}
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "memory", Addr: target, Err: ctx.Err()}
		}
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "memory", Addr: target, Err: syscall.ECONNREFUSED}
	l := h.net.listeners[string(target)]
	if l == nil {
		return nil, refused
	}
	h.net.port++
	from := memoryAddr(net.JoinHostPort(h.name, strconv.Itoa(h.net.port)))
	out, in := newMemoryPipe(h.net, h.name, to), newMemoryPipe(h.net, to, h.name)
	near := &memoryConn{read: in, write: out, local: from, remote: target}
	far := &memoryConn{read: out, write: in, local: target, remote: from}
	select {
	case l.accept <- far:
		return near, nil
	default:
		return nil, refused
	}
}

func (h memoryHost) Gossip(addr string) (memberlist.Transport, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l, err := h.listen(addr)
	if err != nil {
		return nil, err
	}
	g := &memoryGossip{host: h, listener: l, packets: make(chan *memberlist.Packet, 1024)}
	h.net.packets[string(l.addr)] = g
	return g, nil
}

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

type memoryListener struct {
	net    *MemoryNetwork
	addr   memoryAddr
	accept chan net.Conn
	once   sync.Once
	done   chan struct{}
}

func (l *memoryListener) Addr() net.Addr { return l.addr }

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close also closes the connections that nobody has accepted.
func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, string(l.addr))
		l.net.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.accept:
				_ = c.Close()
				continue
			default:
			}
			break
		}
	})
	return nil
}

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
	readBy, writeBy time.Time
	changed         chan struct{} // closed when any of these changes
}

type memoryChunk struct {
	bytes []byte
	at    time.Time
}

// memoryPipeBytes is about what a socket buffers.
const memoryPipeBytes = 1 << 20

func newMemoryPipe(n *MemoryNetwork, from, to string) *memoryPipe {
	return &memoryPipe{net: n, from: from, to: to, changed: make(chan struct{})}
}

// announce is called with mu held.
func (p *memoryPipe) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
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
	*which = t
	p.announce()
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
		pipe := p.changed
		p.mu.Unlock()
		p.wait(until, pipe, link)
	}
}

func (p *memoryPipe) Write(b []byte) (sent int, err error) {
	for {
		cut, delay, link := p.net.link(p.from, p.to)
		p.mu.Lock()
		now := time.Now()
		switch {
		case p.written:
			p.mu.Unlock()
			return sent, net.ErrClosed
		case p.closed && !cut:
			p.mu.Unlock()
			return sent, syscall.EPIPE
		case !p.writeBy.IsZero() && !now.Before(p.writeBy):
			p.mu.Unlock()
			return sent, os.ErrDeadlineExceeded
		}
		if room := min(memoryPipeBytes-p.size, len(b)); room > 0 && !p.closed {
			p.chunks = append(p.chunks, memoryChunk{append([]byte(nil), b[:room]...), now.Add(delay)})
			p.size += room
			sent, b = sent+room, b[room:]
			p.announce()
		}
		if len(b) == 0 {
			p.mu.Unlock()
			return sent, nil
		}
		until, pipe := p.writeBy, p.changed
		p.mu.Unlock()
		p.wait(until, pipe, link)
	}
}

// memoryGossip is a memberlist.Transport over the same links.
type memoryGossip struct {
	host     memoryHost
	listener *memoryListener
	packets  chan *memberlist.Packet
}

func (g *memoryGossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	g.host.net.mu.Lock()
	defer g.host.net.mu.Unlock()
	_, port, err := net.SplitHostPort(string(g.listener.addr))
	if err != nil {
		return nil, 0, err
	}
	number, err := strconv.Atoi(port)
	return g.host.net.ip(g.host.name), number, err
}

func (g *memoryGossip) WriteTo(b []byte, addr string) (time.Time, error) {
	n, now := g.host.net, time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	to, port, err := n.name(addr)
	if err != nil {
		return now, err
	}
	link := memoryLink{g.host.name, to}
	other := n.packets[net.JoinHostPort(to, port)]
	if other == nil || n.cut[link] {
		return now, nil // lost
	}
	_, ownPort, _ := net.SplitHostPort(string(g.listener.addr))
	from := memoryAddr(net.JoinHostPort(n.ip(g.host.name).String(), ownPort))
	bytes := append([]byte(nil), b...)
	arrive := func() {
		select {
		case other.packets <- &memberlist.Packet{Buf: bytes, From: from, Timestamp: time.Now()}:
		default: // lost
		}
	}
	if d := n.delay[link]; d > 0 {
		time.AfterFunc(d, arrive)
	} else {
		arrive()
	}
	return now, nil
}

func (g *memoryGossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *memoryGossip) StreamCh() <-chan net.Conn           { return g.listener.accept }

func (g *memoryGossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, errors.New("dial timed out"))
	defer cancel()
	return g.host.Dial(ctx, addr)
}

func (g *memoryGossip) Shutdown() error {
	g.host.net.mu.Lock()
	delete(g.host.net.packets, string(g.listener.addr))
	g.host.net.mu.Unlock()
	return g.listener.Close()
}
