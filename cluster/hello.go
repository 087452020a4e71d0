package cluster

// This file is the greeting: the only thing that nodes of no common cluster say to each other, in one message each way.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// maxHello bounds a greeting and its answer, in bytes.
const maxHello = 4 << 10

// helloWait bounds a greeting with all its steps.
const helloWait = 2 * time.Second

// helloOp is what a greeting is about.
type helloOp string

const (
	opWho     helloOp = "who"     // who are you?
	opClock   helloOp = "clock"   // what time is it?
	opStatus  helloOp = "status"  // how are you?
	opPromise helloOp = "promise" // will you be in the cluster that I found?
	opRelease helloOp = "release" // I will not found it
	opJoin    helloOp = "join"    // may I join?
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

	ahead time.Duration // of the asker's clock, as it found
}

// hello greets whoever is at an address and returns its answer, whose ServerID its certificate has proved.
func (t *transport) hello(ctx context.Context, addr string, req helloRequest) (helloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	addr = bareAddr(addr)
	conn, p, err := t.dialTLS(ctx, protocolHello, "", addr)
	if err != nil {
		return helloReply{}, err
	}
	defer conn.Close()
	req.From = t.greeter()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var reply helloReply
	asked := time.Now()
	if err := writeHello(conn, req); err != nil {
		return helloReply{}, fmt.Errorf("greeting %s: %w", addr, err)
	}
	if err := readHello(conn, &reply); err != nil {
		return helloReply{}, fmt.Errorf("the answer of %s: %w", addr, err)
	}
	if reply.ServerID != p.id {
		return helloReply{}, fmt.Errorf("%s says that it is server %s, its certificate says %s", addr, reply.ServerID, p.id)
	}
	t.learn(p.id, addr)
	there := reply.Clock + int64(time.Since(asked)/2) // it was read half-way
	reply.ahead = time.Duration(there - t.cfg.Clock.Now().UnixNano())
	return reply, nil
}

// serveHello answers one greeting. A node that is only starting hangs up, and is asked again.
func (t *transport) serveHello(conn net.Conn, p peer) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(handshakeWait))
	answer := t.answerer()
	var req helloRequest
	if answer == nil || readHello(conn, &req) != nil || req.From.ServerID != p.id {
		return
	}
	if req.From.NodeAddr != "" {
		t.learn(p.id, req.From.NodeAddr)
	}
	reply := answer(p.id, p.cluster, req)
	reply.greeter = t.greeter()
	_ = writeHello(conn, reply) // the asker notices
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
