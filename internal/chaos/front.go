package chaos

// This file is what lies between clients and a node: a proxy that can lose answers and cut requests and answers off midway.

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Front passes connections on to a node. All methods may be called at once.
type Front struct {
	Addr   string
	target string

	listener net.Listener
	bad      atomic.Int64 // of 1000 chunks, how many are the connection's last
	struck   *counts

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

func newFront(target string, struck *counts) (*Front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Front{Addr: listener.Addr().String(), target: target, listener: listener, struck: struck, conns: map[net.Conn]struct{}{}}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go f.carry(near)
		}
	}()
	return f, nil
}

// Strike makes so many of 1000 chunks the last of their connection: a request cut off, an answer lost, or cut off.
func (f *Front) Strike(of1000 int) { f.bad.Store(int64(of1000)) }

func (f *Front) carry(near net.Conn) {
	defer near.Close()
	far, err := net.DialTimeout("tcp", f.target, time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	f.hold(near, far)
	defer f.drop(near, far)
	done := make(chan struct{}, 2)
	go func() { f.pump(far, near, "client: request cut"); done <- struct{}{} }()
	go func() { f.pump(near, far, "client: answer lost or cut"); done <- struct{}{} }()
	<-done
}

func (f *Front) pump(to, from net.Conn, fault string) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && rand.Int64N(1000) < f.bad.Load() {
			f.struck.add(fault)
			_, _ = to.Write(b[:rand.IntN(n)])
			return
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (f *Front) hold(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.conns[c] = struct{}{}
	}
}

func (f *Front) drop(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

func (f *Front) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}
