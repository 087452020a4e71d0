package chaos

// This file is what lies between two nodes: a proxy for each pair and direction, whose bytes can be stopped, delayed and slowed.

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// retransmit is how long a lost segment keeps back what follows it, as TCP would.
const retransmit = 200 * time.Millisecond

// weather is how bytes fare in one direction.
type weather struct {
	cut    bool
	delay  time.Duration
	jitter time.Duration
	loss   float64 // of chunks; each is late by a retransmission
	rate   int     // bytes a second; 0: no bound
}

// way is one direction between two nodes.
type way struct{ from, to int }

// links are all the proxies of a cluster. All methods may be called at once.
type links struct {
	nodes int

	mu      sync.Mutex // guards what follows
	weather map[way]weather
	changed chan struct{} // closed when the weather changes
	conns   map[net.Conn]way
	closed  bool
	all     []net.Listener
}

func newLinks(nodes int) *links {
	return &links{nodes: nodes, weather: map[way]weather{}, changed: make(chan struct{}), conns: map[net.Conn]way{}}
}

// between opens the proxy by which one node dials another, and returns its address.
func (l *links) between(from, to int, target string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	l.all = append(l.all, listener)
	l.mu.Unlock()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(near, target, way{from, to})
		}
	}()
	return listener.Addr().String(), nil
}

// carry takes a connection across. A dial waits while either direction is cut, as the handshake of TCP would.
func (l *links) carry(near net.Conn, target string, w way) {
	defer near.Close()
	if !l.hold(near, w) {
		return
	}
	defer l.drop(near)
	for _, step := range []way{w, {w.to, w.from}} {
		if !l.pass(step, 0) {
			return
		}
	}
	far, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.hold(far, w) {
		return
	}
	defer l.drop(far)
	done := make(chan struct{}, 2)
	go func() { l.pump(far, near, w); done <- struct{}{} }()
	go func() { l.pump(near, far, way{w.to, w.from}); done <- struct{}{} }()
	<-done
}

// pump carries bytes one way. What was read before a delay is over is late, but in order.
func (l *links) pump(to io.Writer, from io.Reader, w way) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	queue := make(chan chunk, 256)
	go func() {
		defer close(queue)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				l.mu.Lock()
				now := l.weather[w]
				l.mu.Unlock()
				due := time.Now().Add(now.delay)
				if now.jitter > 0 {
					due = due.Add(rand.N(now.jitter))
				}
				if now.loss > 0 && rand.Float64() < now.loss {
					due = due.Add(retransmit)
				}
				queue <- chunk{b[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { // let the reader go
		go func() {
			for range queue { //nolint:revive // only to empty it
			}
		}()
	}()
	for c := range queue {
		time.Sleep(time.Until(c.due))
		if !l.pass(w, len(c.data)) {
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}

// pass waits until bytes may go this way, and as long as they take. It reports false when the links are closed.
func (l *links) pass(w way, bytes int) bool {
	for {
		l.mu.Lock()
		now, changed, closed := l.weather[w], l.changed, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return false
		case now.cut:
			<-changed
			continue
		case now.rate > 0:
			time.Sleep(time.Duration(float64(bytes) / float64(now.rate) * float64(time.Second)))
		}
		return true
	}
}

func (l *links) hold(c net.Conn, w way) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = w
	return true
}

func (l *links) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// set changes the weather one way.
func (l *links) set(from, to int, change func(*weather)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.weather[way{from, to}]
	change(&w)
	l.weather[way{from, to}] = w
	l.announce()
}

// both changes the weather both ways.
func (l *links) both(a, b int, change func(*weather)) {
	l.set(a, b, change)
	l.set(b, a, change)
}

// reset breaks every connection between two nodes.
func (l *links) reset(a, b int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, w := range l.conns {
		if w == (way{a, b}) || w == (way{b, a}) {
			_ = c.Close()
		}
	}
}

// heal is fine weather everywhere.
func (l *links) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.weather)
	l.announce()
}

// announce is called with mu held.
func (l *links) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, listener := range l.all {
		_ = listener.Close()
	}
	for c := range l.conns {
		_ = c.Close()
	}
	l.announce()
}
