package cluster

// This file is the network that nodes really use, and one in memory for tests, whose links can be cut and disturbed.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
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
	weather   map[memoryLink]Disturbance
	busy      map[memoryLink]time.Time // until when what was sent takes all that a link can carry
	chance    *rand.Rand
	changed   chan struct{} // closed when cut changes
	port      int
}

// Disturbance is what a link that is not cut does to what goes over it. Streams stay in order, as with TCP: what is lost is
// sent again later, and all behind it waits. Packets that jitter overtake each other.
type Disturbance struct {
	Delay, Jitter   time.Duration // Delay, give or take Jitter
	Loss, Duplicate float64       // of packets, and of pieces of a stream: the probability
	BitsPerSecond   int           // 0: no bound
}

// How a stream treats what is lost: it is sent again after retransmitAfter, then after twice that, and so on; the stream is
// reset when retransmissions of them are lost one after the other.
const (
	retransmitAfter = 200 * time.Millisecond
	retransmissions = 6
)

// memoryLink is one direction between two hosts.
type memoryLink struct{ from, to string }

// NewMemoryNetwork makes a network without hosts.
func NewMemoryNetwork() *MemoryNetwork {
	return &MemoryNetwork{
		listeners: map[string]*memoryListener{}, packets: map[string]*memoryGossip{},
		cut: map[memoryLink]bool{}, weather: map[memoryLink]Disturbance{}, busy: map[memoryLink]time.Time{},
		chance: rand.New(rand.NewPCG(1, 1)), changed: make(chan struct{}), port: 40000, //nolint:gosec // a test's dice
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

// MendOneWay undoes CutOneWay.
func (n *MemoryNetwork) MendOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, memoryLink{from, to})
	n.announce()
}

// Heal mends all links. Disturbances stay.
func (n *MemoryNetwork) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.announce()
}

// Delay makes all that goes between two hosts take d, each way, and undoes Disturb.
func (n *MemoryNetwork) Delay(a, b string, d time.Duration) { n.Disturb(a, b, Disturbance{Delay: d}) }

// Disturb disturbs the link between two hosts, both directions alike. The zero Disturbance is none.
func (n *MemoryNetwork) Disturb(a, b string, d Disturbance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range []memoryLink{{a, b}, {b, a}} {
		n.weather[l] = d
		delete(n.busy, l)
	}
}

// Calm ends all disturbances.
func (n *MemoryNetwork) Calm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.weather)
	clear(n.busy)
}

// Seed sets the dice of losses, duplicates and jitter.
func (n *MemoryNetwork) Seed(seed uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.chance = rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's dice
}

// takes is how long something of a size is on its way over a link, if it is not lost.
func (n *MemoryNetwork) takes(l memoryLink, bytes int) time.Duration {
	d := n.weather[l]
	took := d.Delay
	if d.Jitter > 0 {
		took = max(0, took-d.Jitter+time.Duration(n.chance.Int64N(int64(2*d.Jitter))))
	}
	if d.BitsPerSecond > 0 {
		now := time.Now()
		began := later(now, n.busy[l])
		n.busy[l] = began.Add(time.Duration(bytes) * 8 * time.Second / time.Duration(d.BitsPerSecond))
		took += n.busy[l].Sub(now)
	}
	return took
}

// lost throws the dice for one packet or one piece of a stream.
func (n *MemoryNetwork) lost(l memoryLink) bool {
	loss := n.weather[l].Loss
	return loss > 0 && n.chance.Float64() < loss
}

// streamed is how long a piece of a stream is on its way, its retransmissions too; false: the stream is reset.
func (n *MemoryNetwork) streamed(from, to string, bytes int) (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := memoryLink{from, to}
	if n.weather[l] == (Disturbance{}) {
		return 0, true
	}
	took := n.takes(l, bytes)
	wait := retransmitAfter
	for range retransmissions {
		if !n.lost(l) {
			return took, true
		}
		took += wait
		wait *= 2
	}
	return 0, false
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
	return n.cut[l], n.weather[l].Delay, n.changed
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
