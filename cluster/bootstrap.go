package cluster

// This file finds a node's cluster, or founds it together with the other empty nodes: exactly one, whatever happens meanwhile.
//
// The empty node with the smallest server id mints a cluster id and a list of servers, writes both down, and asks every server on
// the list for its promise. A node promises once, on disk before it answers. Two lists that share a server can't both get all their
// promises, and a list is only made while everybody who might know of a cluster is there and says that there is none
// (docs/architecture.md, decision 10).

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// goneAfter is how long a server on the list may be silent before its minter may make another list.
const goneAfter = 60 * time.Second

// findCluster returns when the node belongs to a cluster. The configuration is only there for the node that is to bootstrap it.
func (m *membership) findCluster(ctx context.Context) (string, *raft.Configuration, error) {
	s := &search{membership: m, heard: map[string]time.Time{}, began: time.Now()}
	for {
		id := m.dir.identity()
		switch {
		case id.Removed:
			return "", nil, ErrRemoved
		case id.Bootstrapping:
			return id.ClusterID, configurationOf(id.Mint), nil
		case id.ClusterID != "":
			return id.ClusterID, nil, nil
		}
		if err := s.step(ctx, id); errors.Is(err, ErrTooOld) {
			return "", nil, err
		} else if err != nil {
			return "", nil, fmt.Errorf("%w: %w", ErrStorage, err)
		}
		if m.dir.identity().ClusterID != "" {
			continue
		}
		pause := 250 * time.Millisecond
		if time.Since(s.began) > goneAfter/2 {
			pause = 2 * time.Second // whoever is missing is not just starting
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", nil, context.Cause(ctx)
		}
	}
}

func configurationOf(list []mintServer) *raft.Configuration {
	c := &raft.Configuration{}
	for _, s := range list {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	return c
}

// search is what a node without a cluster remembers from step to step.
type search struct {
	*membership
	heard  map[string]time.Time // server id → when it last answered
	began  time.Time
	seldom seldom
}

// say logs what the node waits for, every 10 s.
func (s *search) say(message string, args ...any) {
	if s.seldom.allow(message, 10*time.Second) {
		s.log.Info(message, args...)
	}
}

// step looks around once and does the one thing that can be done. An error means that the disk failed, or is ErrTooOld.
func (s *search) step(ctx context.Context, own identity) error {
	peers := s.greetAll(ctx)
	for id := range peers {
		s.heard[id] = time.Now()
	}
	if ctx.Err() != nil {
		return nil
	}
	minted := own.Minter == own.ServerID && own.Promised != ""
	for _, p := range peers {
		switch {
		case p.ClusterID == "":
		case p.ClusterID == own.Promised && !minted:
			s.log.Info("the cluster was founded", "cluster", own.Promised)
			return s.adopt(p.ClusterID)
		case minted:
			s.log.Info("there is a cluster already: giving up the one this node was about to found", "cluster", p.ClusterID)
			return s.giveUp(ctx, own, peers)
		case own.Promised == "":
			return s.join(ctx, p)
		}
	}
	switch {
	case minted:
		return s.collect(ctx, own, peers)
	case own.Promised != "":
		return s.keep(own, peers)
	case s.cfg.BootstrapExpect > 0:
		return s.mint(ctx, own, peers)
	}
	s.say("waiting to be joined to a cluster: no node that gossip knows belongs to one", "known", len(peers))
	return nil
}

// adopt makes this node one of a cluster.
func (m *membership) adopt(clusterID string) error {
	return m.dir.update(func(n *identity) {
		n.ClusterID, n.Promised, n.Minter, n.Mint, n.Bootstrapping = clusterID, "", "", nil, false
	})
}

// join asks a node of a cluster, then its leader.
func (s *search) join(ctx context.Context, p helloReply) error {
	reply, err := s.transport.hello(ctx, p.NodeAddr, helloRequest{Op: opJoin})
	if err == nil && !reply.Granted && reply.LeaderAddr != "" && reply.LeaderID != reply.ServerID {
		reply, err = s.transport.hello(ctx, reply.LeaderAddr, helloRequest{Op: opJoin})
	}
	switch {
	case err != nil:
		s.say("the cluster's leader can't be asked to let this node in", "error", err)
	case reply.Granted && reply.ClusterID != "":
		s.log.Info("joining a cluster", "cluster", reply.ClusterID, "leader", reply.Name)
		return s.adopt(reply.ClusterID)
	case reply.Refused != "" && reply.AtLevel > s.cfg.MaxLevel:
		return fmt.Errorf("%w: %s", ErrTooOld, reply.Refused)
	case reply.Refused != "":
		s.say("the cluster does not let this node in", "reason", reply.Refused)
	}
	return nil
}

// keep is the life of a node that has promised: it waits until the cluster is founded, or learns from its minter that it never
// will be. Nobody else can release it.
func (s *search) keep(own identity, peers map[string]helloReply) error {
	if p, ok := peers[own.Minter]; ok {
		if p.Promised == own.Promised || p.ClusterID == own.Promised {
			return nil
		}
		s.log.Info("the promise is void: its minter has another cluster in mind", "promised", own.Promised, "minter", own.Minter)
		return s.release(own.Minter, own.Promised)
	}
	if since := later(s.heard[own.Minter], s.began); time.Since(since) > goneAfter {
		s.say("this node has promised to be in a cluster that another one was about to found, and that one is not heard any more: start it again; "+
			"if it is lost for ever, stop this node and wipe its data directory, which is empty", "promised", own.Promised, "minter", own.Minter)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// mint writes a cluster id and a list down, if this node is the one to do so and nobody could know of another cluster.
func (s *search) mint(ctx context.Context, own identity, peers map[string]helloReply) error {
	list := []mintServer{{ID: own.ServerID, Name: s.cfg.Name, Addr: s.transport.advertised()}}
	join := slices.Clone(s.cfg.Join)
	names := map[string]string{s.cfg.Name: own.ServerID}
	for id, p := range peers {
		if p.Promised != "" {
			s.say("waiting: another node has promised to be in a cluster", "node", p.Name, "promised", p.Promised, "minter", p.Minter)
			return nil
		}
		if p.Expect != s.cfg.BootstrapExpect {
			if p.Expect > 0 {
				s.say("a node expects another number of nodes: they must all be told the same", "node", p.Name, "expects", p.Expect, "want", s.cfg.BootstrapExpect)
			}
			continue
		}
		if other, taken := names[p.Name]; taken {
			s.say("two nodes have one name: give one of them another", "name", p.Name, "servers", []string{other, id})
			return nil
		}
		names[p.Name] = id
		list = append(list, mintServer{ID: id, Name: p.Name, Addr: p.NodeAddr})
		join = append(join, p.Join...)
	}
	if len(list) < s.cfg.BootstrapExpect {
		s.say("waiting for more empty nodes", "have", len(list), "expect", s.cfg.BootstrapExpect)
	}
	if silent := s.silent(ctx, own.ServerID, join, peers); len(silent) > 0 {
		s.say("waiting: an address in a --join list does not answer, and what is there might belong to a cluster", "addresses", strings.Join(silent, ","))
		return nil
	}
	slices.SortFunc(list, func(a, b mintServer) int { return strings.Compare(a.ID, b.ID) })
	if len(list) < s.cfg.BootstrapExpect || list[0].ID != own.ServerID {
		return nil
	}
	list = list[:s.cfg.BootstrapExpect]
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	clusterID := hex.EncodeToString(random[:])
	s.began = time.Now()
	s.log.Info("founding a cluster", "cluster", clusterID, "servers", len(list))
	return s.dir.update(func(n *identity) {
		if n.Promised == "" && n.ClusterID == "" { // else a promise was given meanwhile
			n.Promised, n.Minter, n.Mint = clusterID, n.ServerID, list
		}
	})
}

// silent names the listed gossip addresses at which no empty node has just answered.
func (s *search) silent(ctx context.Context, own string, join []string, peers map[string]helloReply) (silent []string) {
	slices.Sort(join)
	for _, addr := range slices.Compact(join) {
		ids, missing := s.gossip.listed(ctx, addr)
		for _, id := range ids {
			if _, answered := peers[id]; id != own && !answered {
				missing = true
			}
		}
		if missing {
			silent = append(silent, addr)
		}
	}
	return silent
}

// collect asks for the promises of everybody on the list. With all of them it writes down that the list is final.
func (s *search) collect(ctx context.Context, own identity, peers map[string]helloReply) error {
	var mu sync.Mutex // guards granted and yield
	var wait sync.WaitGroup
	granted, yield := 1, false
	for _, server := range own.Mint {
		if server.ID == own.ServerID {
			continue
		}
		addr := server.Addr
		if p, ok := peers[server.ID]; ok {
			addr = p.NodeAddr
		}
		wait.Go(func() {
			reply, err := s.transport.hello(ctx, addr, helloRequest{Op: opPromise, Cluster: own.Promised, Servers: own.Mint})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil || reply.ServerID != server.ID:
				if time.Since(later(s.heard[server.ID], s.began)) > goneAfter {
					s.log.Warn("a server on the list is gone: making another list", "node", server.Name)
					yield = true
				}
				s.say("waiting for a node's promise", "node", server.Name, "addr", addr, "error", err)
			case reply.Granted:
				granted++
			default:
				s.say("a node does not promise", "node", server.Name, "reason", reply.Refused)
				// Of two minters that hold each other's promises the one with the smaller id goes on.
				yield = yield || reply.ClusterID != "" || reply.Minter != "" && reply.Minter < own.ServerID
			}
		})
	}
	wait.Wait()
	switch {
	case yield:
		return s.giveUp(ctx, own, peers)
	case granted < len(own.Mint):
		return nil
	}
	final := false
	err := s.dir.update(func(n *identity) {
		if final = n.Promised == own.Promised && n.Minter == n.ServerID; final {
			n.ClusterID, n.Bootstrapping = own.Promised, true
		}
	})
	if final && err == nil {
		s.log.Info("all promises are there: the cluster is founded", "cluster", own.Promised)
	}
	return err
}

// giveUp forgets the list. Who promised hears it now, or asks later.
func (s *search) giveUp(ctx context.Context, own identity, peers map[string]helloReply) error {
	if err := s.release(own.ServerID, own.Promised); err != nil {
		return err
	}
	var wait sync.WaitGroup
	for _, server := range own.Mint {
		if p, ok := peers[server.ID]; ok {
			wait.Go(func() { _, _ = s.transport.hello(ctx, p.NodeAddr, helloRequest{Op: opRelease, Cluster: own.Promised}) })
		}
	}
	wait.Wait()
	return nil
}

// release takes back a promise, if it still stands.
func (m *membership) release(minter, clusterID string) error {
	return m.dir.update(func(n *identity) {
		if n.ClusterID == "" && n.Minter == minter && n.Promised == clusterID {
			n.Promised, n.Minter, n.Mint = "", "", nil
		}
	})
}

// promise answers a minter. It is on disk before it is given. A minter that hears of a smaller one gives up its own list.
func (m *membership) promise(minter string, req helloRequest) (granted bool, refused string) {
	listed := slices.ContainsFunc(req.Servers, func(s mintServer) bool { return s.ID == m.dir.identity().ServerID })
	if req.Cluster == "" || !listed {
		return false, "the list does not name this node"
	}
	err := m.dir.update(func(n *identity) {
		switch {
		case n.Removed:
			refused = "this node was removed from its cluster"
		case n.ClusterID == req.Cluster:
			granted = true
		case n.ClusterID != "":
			refused = fmt.Sprintf("this node belongs to cluster %s", n.ClusterID)
		case n.Promised == "" || n.Minter == minter || n.Minter == n.ServerID && minter < n.ServerID:
			n.Promised, n.Minter, n.Mint = req.Cluster, minter, nil
			granted = true
		default:
			refused = fmt.Sprintf("this node has promised to be in cluster %s, minted by %s", n.Promised, n.Minter)
		}
	})
	if err != nil {
		m.stop(fmt.Errorf("%w: writing a promise down: %w", ErrStorage, err))
		return false, "this node's disk failed"
	}
	return granted, refused
}
