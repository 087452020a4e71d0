package cluster

// This file is gossip over the network in memory.

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

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
	if other == nil || n.cut[link] || n.lost(link) {
		return now, nil
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
	times := 1
	if d := n.weather[link].Duplicate; d > 0 && n.chance.Float64() < d {
		times = 2
	}
	for range times {
		if d := n.takes(link, len(b)); d > 0 {
			time.AfterFunc(d, arrive)
		} else {
			arrive()
		}
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
