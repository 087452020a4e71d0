package cluster

// This file opens connections to other nodes' ports.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// dialTLS opens a connection and shakes hands, until ctx ends.
func (t *transport) dialTLS(ctx context.Context, protocol, wantID, addr string) (net.Conn, peer, error) {
	raw, err := t.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return nil, peer{}, err
	}
	held, err := t.hold(raw)
	if err != nil {
		return nil, peer{}, err
	}
	var p peer
	config, _ := t.tlsConfig(wantID, &p)
	config.NextProtos = []string{protocol}
	conn := tls.Client(held, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = held.Close()
		return nil, peer{}, fmt.Errorf("shaking hands with %s: %w", addr, err)
	}
	return conn, p, nil
}

// dialStream opens a stream to exactly that server: where it was last met, then where Raft's configuration has it.
func (t *transport) dialStream(ctx context.Context, kind byte, id raft.ServerID, addr string) (net.Conn, error) {
	addrs := []string{t.metAt(string(id)), bareAddr(addr)}
	if addrs[0] == addrs[1] || addrs[0] == "" {
		addrs = addrs[1:]
	}
	var errs []error
	for i, addr := range addrs {
		ctx, cancel := share(ctx, len(addrs)-i)
		conn, err := t.openStream(ctx, kind, id, addr)
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (t *transport) openStream(ctx context.Context, kind byte, id raft.ServerID, addr string) (net.Conn, error) {
	conn, _, err := t.dialTLS(ctx, protocolNode, string(id), addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	answer := [1]byte{kind}
	_, err = conn.Write(answer[:])
	if err == nil {
		_, err = conn.Read(answer[:])
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && answer[0] != kind {
		err = errors.New("it took the stream for another")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("opening a stream to server %s at %s: %w", id, addr, err)
	}
	return conn, nil
}

// share gives an attempt its part of the time that is left for n of them.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || n == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
}

// dialForward opens a forwarding stream to a server.
func (t *transport) dialForward(ctx context.Context, id raft.ServerID, addr string) (net.Conn, error) {
	return t.dialStream(ctx, streamForward, id, addr)
}
