package testcluster

// This file stops a node as far as others can tell, and lets it go on.

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/lysnrai/fleet/cluster"
)

// Pause holds everything that goes in or out of the i-th node, on its node port and its HTTP port, until Resume: what is under way
// arrives then, all at once, as after SIGSTOP and SIGCONT. Unlike a stopped process the node's own timers go on, so it may find out that it
// leads no more before it wakes; and gossip, which only suggests addresses, goes on.
func (c *Cluster) Pause(t testing.TB, i int) {
	t.Helper()
	if !c.members()[i].gate.set(closed) {
		t.Fatalf("node %s is not running", c.members()[i].config.Name)
	}
}

// Resume ends Pause.
func (c *Cluster) Resume(t testing.TB, i int) {
	t.Helper()
	if !c.members()[i].gate.set(open) {
		t.Fatalf("node %s is not running", c.members()[i].config.Name)
	}
}

// gateState is what a gate does with what wants to pass.
type gateState int

const (
	open gateState = iota
	closed
	gone // the node is down: nothing passes any more
)

// gate is what all traffic of a node passes through.
type gate struct {
	mu      sync.Mutex // guards what follows
	state   gateState
	changed chan struct{} // closed when state changes
}

func newGate() *gate { return &gate{changed: make(chan struct{})} }

// set is false for a gate that is gone.
func (g *gate) set(state gateState) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == gone {
		return false
	}
	g.state = state
	close(g.changed)
	g.changed = make(chan struct{})
	return true
}

func (g *gate) is(state gateState) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == state
}

// pass waits until the gate is open, or gone, or done is closed.
func (g *gate) pass(done <-chan struct{}) error {
	for {
		g.mu.Lock()
		state, changed := g.state, g.changed
		g.mu.Unlock()
		switch state {
		case open:
			return nil
		case gone:
			return net.ErrClosed
		}
		select {
		case <-changed:
		case <-done:
			return net.ErrClosed
		}
	}
}

// gatedNetwork is a node's network behind its gate.
type gatedNetwork struct {
	cluster.Network
	gate *gate
}

func (n gatedNetwork) Listen(addr string) (net.Listener, error) {
	l, err := n.Network.Listen(addr)
	if err != nil {
		return nil, err
	}
	return n.gate.listener(l), nil
}

func (n gatedNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if err := n.gate.pass(ctx.Done()); err != nil {
		return nil, err
	}
	conn, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return n.gate.conn(conn), nil
}

// LookupHost is for a network whose host names are its own.
func (n gatedNetwork) LookupHost(ctx context.Context, host string) ([]string, error) {
	if own, ok := n.Network.(interface {
		LookupHost(ctx context.Context, host string) ([]string, error)
	}); ok {
		return own.LookupHost(ctx, host)
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

type gatedListener struct {
	net.Listener
	gate *gate
}

func (g *gate) listener(l net.Listener) net.Listener { return &gatedListener{l, g} }

func (l *gatedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.conn(conn), nil
}

// gatedConn lets nothing through while its gate is closed. What was read from the wire just before waits here.
type gatedConn struct {
	net.Conn
	gate *gate
	once sync.Once
	done chan struct{}
}

func (g *gate) conn(c net.Conn) net.Conn {
	return &gatedConn{Conn: c, gate: g, done: make(chan struct{})}
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if held := c.gate.pass(c.done); held != nil {
		return 0, held
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if err := c.gate.pass(c.done); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}
