package cluster

// This file is the node port as Raft sees it.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ServerAddr names a server to Raft as id@host:port: the id, because Dial must know whom it means, and because connections are
// pooled by this text.
func (t *transport) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	t.mu.Lock()
	configured, met := t.configured, t.greeted[string(id)]
	t.mu.Unlock()
	addr := ""
	switch {
	case string(id) == t.id:
		addr = t.advertised()
	case configured != nil:
		addr = string(configured(id))
	}
	if addr == "" {
		addr = met
	}
	if addr == "" {
		return "", fmt.Errorf("no address of server %s is known", id)
	}
	return raft.ServerAddress(string(id) + "@" + bareAddr(addr)), nil
}

// bareAddr is an address without the server id that Raft may have been given with it.
func bareAddr(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }

// raftLayer is the node port as Raft sees it.
type raftLayer struct {
	transport *transport
	accept    chan net.Conn
	once      sync.Once
	done      chan struct{}
}

func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accept:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *raftLayer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *raftLayer) Addr() net.Addr { return advertisedAddr(l.transport.advertised()) }

// Dial refuses an address without a server id: Raft falls back to one when it knows no better.
func (l *raftLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, host, ok := strings.Cut(string(addr), "@")
	if !ok || id == "" {
		return nil, fmt.Errorf("address %s does not say which server is meant", addr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, handshakeWait))
	defer cancel()
	return l.transport.dialStream(ctx, streamRaft, raft.ServerID(id), host)
}

type advertisedAddr string

func (advertisedAddr) Network() string  { return "tcp" }
func (a advertisedAddr) String() string { return string(a) }

// shyTransport is Raft's transport with what it lacks: a pipeline that does not stand still, and shyness. It asks for no votes while shy holds: others are to lead. One that is handed leadership asks all the same, because that
// needs no pre-vote. It must keep the library's RequestPreVote: Raft would switch pre-votes off without it.
type shyTransport struct {
	*raft.NetworkTransport
	shy func() bool
}

var errShy = errors.New("this node's disk is short of room: another one is to lead")

// RequestPreVote asks another server whether it would vote for this one.
func (s shyTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if s.shy() {
		return errShy
	}
	return s.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// AppendEntriesPipeline opens a pipeline of entries to another server.
func (s shyTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := s.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return &pipeline{AppendPipeline: p}, nil
}
