package cluster

// This file is gossip, which only suggests addresses: who is a member is Raft's configuration's alone to say.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// gossip is this node's part in memberlist. All methods may be called at once.
type gossip struct {
	cfg   *Config
	log   hclog.Logger
	list  *memberlist.Memberlist
	own   string // this node's server id
	meta  []byte
	known gossipTable

	seldom seldom
	end    context.CancelFunc
}

// newGossip listens at once and joins in the background.
func newGossip(cfg *Config, dir *dataDir, t *transport, log hclog.Logger) (*gossip, error) {
	id := dir.identity().ServerID
	g := &gossip{cfg: cfg, log: log.Named("gossip"), own: id, known: gossipTable{members: map[string]gossipMember{}}}
	var err error
	if g.meta, err = json.Marshal(gossipMember{ID: id, Name: cfg.Name, NodeAddr: t.advertised(), HTTPAddr: cfg.HTTPAddr, Version: cfg.Version}); err != nil {
		return nil, err
	}
	if len(g.meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("the name and the addresses of this node take %d bytes, gossip carries %d: shorten them", len(g.meta), memberlist.MetaMaxSize)
	}
	c := memberlist.DefaultLANConfig()
	switch cfg.Timing {
	case TimingLocal:
		c = memberlist.DefaultLocalConfig()
	case TimingWAN:
		c = memberlist.DefaultWANConfig()
	}
	// It only suggests addresses, and a newcomer exchanges all of them when it joins: there is no hurry, and an idle node
	// should cost next to nothing. Packets are a few dozen bytes: compressing them costs more than it saves.
	c.GossipInterval, c.ProbeInterval, c.EnableCompression = max(c.GossipInterval, time.Second), max(c.ProbeInterval, 2*time.Second), false
	c.Name, c.Delegate, c.Events, c.Alive, c.SecretKey = id, g, &g.known, &g.known, t.keys.gossip
	if cfg.GossipKey != nil {
		c.SecretKey = cfg.GossipKey
	}
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.DeadNodeReclaimTime = 10 * time.Second // a node that moved comes back under its name
	c.Logger = stdlog.New(&seldomWriter{w: g.log.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true})}, "", 0)
	host, port, err := net.SplitHostPort(cfg.GossipAddr)
	if err != nil {
		return nil, fmt.Errorf("the gossip address: %w", err)
	}
	if c.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("the gossip address: %w", err)
	}
	c.AdvertisePort = c.BindPort
	if c.Transport, err = cfg.Network.Gossip(cfg.GossipAddr); err != nil {
		return nil, fmt.Errorf("listening for gossip: %w", err)
	}
	transport := c.Transport
	if transport == nil {
		if c.BindAddr, err = g.bindAddr(host); err != nil {
			return nil, err
		}
		if cfg.AdvertiseAddr != "" {
			if ips, err := g.lookup(context.Background(), cfg.AdvertiseAddr); err == nil && len(ips) > 0 {
				c.AdvertiseAddr = ips[0]
			}
		}
		if transport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger}); err != nil {
			return nil, fmt.Errorf("listening for gossip on %s: %w", cfg.GossipAddr, err)
		}
	}
	guard, err := guardGossip(transport, c.SecretKey, g.refused)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the gossip key: %w", err), transport.Shutdown())
	}
	c.Transport = guard
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, errors.Join(fmt.Errorf("listening for gossip on %s: %w", cfg.GossipAddr, err), guard.Shutdown())
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.end = cancel
	go g.rejoin(ctx)
	return g, nil
}

// bindAddr is the address to listen on: memberlist wants numbers.
func (g *gossip) bindAddr(host string) (string, error) {
	if host == "" {
		return "0.0.0.0", nil
	}
	ips, err := g.lookup(context.Background(), host)
	if err != nil || len(ips) == 0 {
		return "", fmt.Errorf("the gossip address %s can't be resolved: %w", host, err)
	}
	return ips[0], nil
}

func (g *gossip) lookup(ctx context.Context, host string) ([]string, error) {
	if net.ParseIP(host) != nil {
		return []string{host}, nil
	}
	var r resolver = net.DefaultResolver
	if own, ok := g.cfg.Network.(resolver); ok {
		r = own
	}
	return r.LookupHost(ctx, host)
}

// members are the nodes believed alive, this one left out.
func (g *gossip) members() []gossipMember {
	return slices.DeleteFunc(g.known.all(), func(m gossipMember) bool { return m.ID == g.own })
}

// listed finds the server ids behind a gossip address that a node was told, this node's own id among them. Missing says that
// there is an address behind it at which nobody is known to be.
func (g *gossip) listed(ctx context.Context, addr string) (ids []string, missing bool) {
	if addr == g.cfg.GossipAddr {
		return []string{g.own}, false
	}
	at := map[string]string{}
	for _, m := range g.known.all() {
		at[m.address] = m.ID
	}
	addrs := g.resolve(ctx, addr)
	loopback := 0
	for _, a := range addrs {
		if id, ok := at[a]; ok {
			ids = append(ids, id)
			continue
		}
		missing = true
		if host, _, _ := net.SplitHostPort(a); net.ParseIP(host).IsLoopback() {
			loopback++
		}
	}
	if len(ids) > 0 && loopback == len(addrs)-len(ids) { // localhost is one host under two addresses
		missing = false
	}
	return ids, missing || len(addrs) == 0
}

func (g *gossip) resolve(ctx context.Context, addr string) (addrs []string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	ips, err := g.lookup(ctx, host)
	if err != nil {
		return nil
	}
	for _, ip := range ips {
		addrs = append(addrs, net.JoinHostPort(ip, port))
	}
	return addrs
}

// rejoin keeps calling at the addresses this node was told, as long as nobody is known there: a partition that heals, or a
// node that comes late, needs no other help.
func (g *gossip) rejoin(ctx context.Context) {
	wait := 100 * time.Millisecond
	for {
		silent := 0
		for _, addr := range g.cfg.Join {
			ids, missing := g.listed(ctx, addr)
			if !missing {
				continue
			}
			addrs := g.resolve(ctx, addr)
			n, err := 0, fmt.Errorf("the address can't be resolved")
			if len(addrs) > 0 {
				n, err = g.list.Join(addrs)
			}
			if n == 0 && len(ids) == 0 {
				silent++
				if g.seldom.allow(addr, time.Minute) {
					g.log.Info("nobody answers there yet", "join", addr, "error", oneLine(err))
				}
			}
		}
		pause := wait
		if wait = min(2*wait, 10*time.Second); silent == 0 { // there is no hurry: Raft dials servers, not members of gossip
			pause, wait = 5*time.Second, time.Second
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Close leaves without a word: the others find out.
func (g *gossip) Close() {
	g.end()
	if err := g.list.Shutdown(); err != nil {
		g.log.Warn("closing gossip", "error", err)
	}
}

// The methods of memberlist.Delegate: gossip carries nothing but who a node is.

// NodeMeta is who this node is.
func (g *gossip) NodeMeta(int) []byte { return g.meta }

// NotifyMsg ignores what nobody sends.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to add.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what nobody sends.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// refused notes what was not let through.
func (g *gossip) refused(from net.Addr, why error) {
	if g.seldom.allow("refused", time.Minute) {
		g.log.Warn("dropping gossip, and more of it for a minute without a word", "from", from, "error", why)
	}
}

// seldomWriter drops a line that begins like one of the last minute, numbers aside: what others send must not fill the log. Names that
// they choose come later in a line.
type seldomWriter struct {
	w      io.Writer
	seldom seldom
}

func (w *seldomWriter) Write(line []byte) (int, error) {
	words := strings.Fields(string(line))
	kind := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' {
			return -1
		}
		return r
	}, strings.Join(words[:min(len(words), 5)], " "))
	if !w.seldom.allow(kind, time.Minute) {
		return len(line), nil
	}
	return w.w.Write(line)
}

// oneLine is an error's text without the list that memberlist makes of several.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
