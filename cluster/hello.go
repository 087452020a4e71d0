package cluster

// This file is the greeting: the only thing that nodes of no common cluster say to each other, in one message each way. A
// connection is kept for the next greeting: a leader asks every voter every two seconds, and shaking hands costs a hundred
// times what the question does.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

// maxHello bounds a greeting and its answer, in bytes.
const maxHello = 4 << 10

// helloWait bounds a greeting with all its steps; helloKept how long a connection is kept for the next one, and
// helloIdle how long whoever is asked keeps it.
const (
	helloWait = 2 * time.Second
	helloKept = 90 * time.Second
	helloIdle = 2 * helloKept
)

// helloOp is what a greeting is about.
type helloOp string

const (
	opWho     helloOp = "who"     // who are you?
	opClock   helloOp = "clock"   // what time is it?
	opStatus  helloOp = "status"  // how are you?
	opPromise helloOp = "promise" // will you be in the cluster that I found?
	opRelease helloOp = "release" // I will not found it
	opJoin    helloOp = "join"    // may I join?

	opCheckpoint helloOp = "checkpoint" // what was the hash of your state at this index?
)

// greeter is who a node says it is. The transport fills it in, and it is only taken for what the certificate doesn't say.
type greeter struct {
	ServerID  string `json:"serverId"`
	Name      string `json:"name"`
	NodeAddr  string `json:"nodeAddr"`
	HTTPAddr  string `json:"httpAddr,omitzero"`
	Version   string `json:"version,omitzero"`
	Level     int    `json:"level"`              // the newest that it knows
	ClusterID string `json:"cluster,omitzero"`   // empty: it has no state
	Promised  string `json:"promised,omitzero"`  // the cluster id that it promised to
	Minter    string `json:"minter,omitzero"`    // the server id that it promised to
	Expect    int    `json:"expect,omitzero"`    // its bootstrap-expect, while it has no state
	Discarded bool   `json:"discarded,omitzero"` // it was removed, and stops
}

// helloRequest is a greeting. From is the transport's to fill in.
type helloRequest struct {
	From    greeter      `json:"from"`
	Op      helloOp      `json:"op"`
	Cluster string       `json:"cluster,omitzero"` // promise, release: the id that was minted
	Servers []mintServer `json:"servers,omitzero"` // promise: the first configuration
	Index   uint64       `json:"index,omitzero"`   // checkpoint: which
}

// helloReply is the answer. Every answer carries all that is known.
type helloReply struct {
	greeter
	Join       []string `json:"join,omitzero"`    // gossip addresses that it was told, while it has no state
	Clock      int64    `json:"clock"`            // its wall clock, in nanoseconds
	Stamp      int64    `json:"stamp,omitzero"`   // its stamps' clock then, if it leads
	Applied    uint64   `json:"applied"`          // the log index that its state reflects
	State      string   `json:"state"`            // joining, follower, candidate, leader or stopped
	LeaderID   string   `json:"leaderId"`         // empty: it knows of none
	LeaderAddr string   `json:"leaderAddr"`       //
	ContactMs  int64    `json:"contactMs"`        // since it last heard from the leader; -1: never
	Removed    bool     `json:"removed"`          // the asker was removed from the cluster
	AtLevel    int      `json:"atLevel,omitzero"` // the cluster's level, as it knows
	DiskFree   uint64   `json:"diskFree"`         // bytes, to opStatus
	Reserve    uint64   `json:"reserve,omitzero"` // bytes of the disk that it wants to keep free, to opStatus
	Granted    bool     `json:"granted"`          // promise, release, join: done
	Refused    string   `json:"refused,omitzero"` // why not

	Checkpoint *fsm.Checkpoint `json:"checkpoint,omitzero"` // to opCheckpoint, if it knows

	read  time.Time     // when that was, as the asker counts
	ahead time.Duration // of the asker's clock, as it found
}

// hello greets whoever is at an address and returns its answer, whose ServerID its certificate has proved.
func (t *transport) hello(ctx context.Context, addr string, req helloRequest) (helloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	addr = bareAddr(addr)
	if l := t.takeHello(addr); l != nil {
		reply, err := t.greet(ctx, l, addr, req)
		if err == nil || ctx.Err() != nil {
			return reply, err
		}
		// Whoever was there has hung up: perhaps somebody else is there now.
	}
	conn, p, err := t.dialTLS(ctx, protocolHello, "", addr)
	if err != nil {
		return helloReply{}, err
	}
	return t.greet(ctx, &helloLine{conn: conn, peer: p}, addr, req)
}

// helloLine is a connection on which somebody can be greeted, and who that is.
type helloLine struct {
	conn  net.Conn
	peer  peer
	close *time.Timer // while it is kept
}

// takeHello is the line that is kept to an address, nil if none is. It is the caller's alone.
func (t *transport) takeHello(addr string) *helloLine {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.hellos[addr]
	if l == nil || !l.close.Stop() {
		return nil
	}
	delete(t.hellos, addr)
	return l
}

// keepHello keeps a line for the next greeting. There is one for each address.
func (t *transport) keepHello(addr string, l *helloLine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.hellos[addr] != nil {
		go func() { _ = l.conn.Close() }() // TLS says goodbye first, for up to 5 s where nobody listens
		return
	}
	t.hellos[addr] = l
	l.close = time.AfterFunc(helloKept, func() {
		t.mu.Lock()
		if t.hellos[addr] == l {
			delete(t.hellos, addr)
		}
		t.mu.Unlock()
		_ = l.conn.Close()
	})
}

// greet greets over a line, and keeps it if that went well.
func (t *transport) greet(ctx context.Context, l *helloLine, addr string, req helloRequest) (helloReply, error) {
	conn := l.conn
	req.From = t.greeter()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	var reply helloReply
	asked := time.Now()
	err := writeHello(conn, req)
	if err == nil {
		err = readHello(conn, &reply)
	}
	reply.read = asked.Add(time.Since(asked) / 2) // half-way
	reply.ahead = time.Duration(reply.Clock + int64(time.Since(reply.read)) - t.cfg.Clock.Now().UnixNano())
	if err == nil && reply.ServerID != l.peer.id {
		err = fmt.Errorf("it says that it is server %s, its certificate says %s", reply.ServerID, l.peer.id)
	}
	if !stop() || err != nil {
		_ = conn.Close()
	} else {
		t.keepHello(addr, l)
	}
	if err != nil {
		return helloReply{}, fmt.Errorf("greeting %s: %w", addr, err)
	}
	t.learn(l.peer.id, addr)
	return reply, nil
}

// serveHello answers the greetings of one peer. A node that is only starting hangs up, and is asked again.
func (t *transport) serveHello(conn net.Conn, p peer) {
	defer conn.Close()
	for wait := handshakeWait; ; wait = helloIdle {
		_ = conn.SetDeadline(time.Now().Add(wait))
		var req helloRequest
		if readHello(conn, &req) != nil || req.From.ServerID != p.id {
			return
		}
		answer := t.answerer()
		if answer == nil {
			return
		}
		if req.From.NodeAddr != "" {
			t.learn(p.id, req.From.NodeAddr)
		}
		reply := answer(p.id, p.cluster, req)
		reply.greeter = t.greeter()
		if writeHello(conn, reply) != nil {
			return
		}
	}
}

// greeter is who this node is.
func (t *transport) greeter() greeter {
	id := t.dir.identity()
	g := greeter{
		ServerID: id.ServerID, Name: t.cfg.Name, NodeAddr: t.advertised(), HTTPAddr: t.cfg.HTTPAddr, Version: t.cfg.Version,
		Level: t.cfg.MaxLevel, ClusterID: id.ClusterID, Promised: id.Promised, Minter: id.Minter, Discarded: id.Removed,
	}
	if id.ClusterID == "" {
		g.Expect = t.cfg.BootstrapExpect
	}
	return g
}

func writeHello(w io.Writer, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxHello {
		return fmt.Errorf("a greeting of %d bytes is over the limit of %d", len(b), maxHello)
	}
	_, err = w.Write(b)
	return err
}

func readHello(r io.Reader, message any) error {
	limited := &io.LimitedReader{R: r, N: maxHello}
	err := json.NewDecoder(limited).Decode(message)
	if err != nil && limited.N == 0 {
		return errors.New("it is over the limit of a greeting")
	}
	return err
}
