package cluster

// This file is what only the leader does about membership: it makes Raft's configuration follow the table of servers, one
// committed change at a time. Whatever another leader began, it finishes.

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
)

// When a non-voter has caught up (docs/decisions/002-raft-settings.md), and how the leader looks around.
const (
	promoteLag    = 100                    // entries behind the leader's log
	promoteStable = 250 * time.Millisecond // it has to be so twice, this far apart
	lookEvery     = 250 * time.Millisecond
	joinerWait    = 10 * time.Second // a joiner asks again every quarter of a second
	deadFor       = 2 * time.Second  // silence of the old server with a newcomer's name
)

// joiner is an empty node that has asked to be let in.
type joiner struct {
	greeter
	asked       time.Time
	silentSince time.Time // the server that has its name doesn't answer since then
	refused     string
}

// joined answers a request to join: granted once the node is in the table of servers. Only a leader takes new ones.
func (m *membership) joined(id string, from greeter, removed bool) (granted bool, refused string) {
	if removed {
		return false, "this server id was removed from the cluster: wipe the data directory, then it joins as a new one"
	}
	if refused := m.tooOld(from); refused != "" {
		return false, refused
	}
	if !m.leading.Load() {
		return false, ""
	}
	m.view(func(v fsm.View) { granted = rowOf(v, id).ID != "" })
	if granted {
		return true, ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.joiners[id]
	if j == nil {
		j = &joiner{}
		m.joiners[id] = j
	}
	j.greeter, j.asked = from, time.Now()
	j.ServerID = id
	return false, j.refused
}

// lead makes one change after the other until ctx ends with the leadership.
func (m *membership) lead(ctx context.Context) {
	m.mu.Lock()
	clear(m.joiners)
	clear(m.promoted)
	m.mu.Unlock()
	m.leading.Store(true)
	defer m.leading.Store(false)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if err := m.reconcile(ctx); err != nil && ctx.Err() == nil && m.seldom.allow(err.Error(), 10*time.Second) {
			m.log.Warn("changing the membership", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// reconcile makes the first change that is due.
func (m *membership) reconcile(ctx context.Context) error {
	own := m.dir.identity()
	rows := map[string]fsm.Server{}
	founded := false
	m.view(func(v fsm.View) {
		founded = v.ClusterID() != ""
		for _, s := range v.Servers() {
			rows[s.ID] = s
		}
	})
	if !founded {
		return m.propose(ctx, &fsm.Bootstrap{ClusterID: own.ClusterID})
	}
	servers, _ := m.configuration()
	in := map[string]bool{}
	for _, s := range servers {
		in[string(s.ID)] = true
		if changed, err := m.settle(ctx, s, rows[string(s.ID)]); changed || err != nil {
			return err
		}
	}
	for id, row := range rows {
		if !row.Removed && !in[id] {
			if changed, err := m.add(ctx, row); changed || err != nil {
				return err
			}
		}
	}
	for _, j := range m.waiting() {
		if err := m.admit(ctx, j, rows, servers); err != nil {
			return err
		}
	}
	return m.raiseLevel(ctx, servers)
}

// settle makes a server of the configuration and its row agree, and promotes it when it has caught up.
func (m *membership) settle(ctx context.Context, s raft.Server, row fsm.Server) (changed bool, err error) {
	id := string(s.ID)
	self := id == m.dir.identity().ServerID
	if row.Removed {
		if self {
			return true, m.raft().LeadershipTransfer().Error()
		}
		m.log.Info("finishing the removal of a server", "node", row.Name, "server", id)
		return true, m.change(ctx, func(r *raft.Raft, index uint64) raft.IndexFuture { return r.RemoveServer(s.ID, index, changeWait) })
	}
	var now greeter
	if self {
		now = m.transport.greeter()
	} else {
		m.mu.Lock()
		now = m.replies[id].greeter
		m.mu.Unlock()
		if now.ServerID == "" {
			return false, nil
		}
	}
	if !self && (rowFor(now) != row || now.NodeAddr != string(s.Address)) { // only what it says now counts
		reply, err := m.transport.hello(ctx, now.NodeAddr, helloRequest{Op: opWho})
		if err != nil || reply.ServerID != id {
			return false, nil
		}
		now = reply.greeter
	}
	if now.NodeAddr != string(s.Address) {
		if err := m.copied(ctx, s, now); err != nil {
			return false, err
		}
	}
	if rowFor(now) != row {
		return true, m.propose(ctx, &fsm.PutServer{Server: rowFor(now)})
	}
	if now.NodeAddr != string(s.Address) {
		return m.move(ctx, s, now)
	}
	if s.Suffrage != raft.Voter {
		return m.promote(ctx, s)
	}
	return false, nil
}

func rowFor(g greeter) fsm.Server {
	return fsm.Server{ID: g.ServerID, Name: g.Name, HTTPAddr: g.HTTPAddr, NodeAddr: g.NodeAddr, Version: g.Version}
}

// copied is an error if a server that says it lives elsewhere still says at its old address that it lives there.
func (m *membership) copied(ctx context.Context, s raft.Server, now greeter) error {
	reply, err := m.transport.hello(ctx, string(s.Address), helloRequest{Op: opWho})
	if err == nil && reply.ServerID == now.ServerID && reply.NodeAddr != now.NodeAddr {
		return fmt.Errorf("server %s answers at %s and at %s: a data directory was copied, stop one of the two", s.ID, s.Address, now.NodeAddr)
	}
	return nil
}

// move follows a server to another address.
func (m *membership) move(ctx context.Context, s raft.Server, now greeter) (bool, error) {
	m.log.Info("a server has moved", "node", now.Name, "from", s.Address, "to", now.NodeAddr)
	addr := raft.ServerAddress(now.NodeAddr)
	return true, m.change(ctx, func(r *raft.Raft, index uint64) raft.IndexFuture {
		if s.Suffrage == raft.Voter {
			return r.AddVoter(s.ID, addr, index, changeWait)
		}
		return r.AddNonvoter(s.ID, addr, index, changeWait)
	})
}

// promote makes a non-voter a voter once it has kept up for a while: a dead new voter would raise the quorum at once.
func (m *membership) promote(ctx context.Context, s raft.Server) (bool, error) {
	r, id := m.raft(), string(s.ID)
	reply, err := m.transport.hello(ctx, string(s.Address), helloRequest{Op: opStatus})
	up := err == nil && reply.ServerID == id && m.tooOld(reply.greeter) == "" && reply.Applied+promoteLag > r.LastIndex() &&
		reply.ContactMs >= 0 && reply.ContactMs < r.ReloadableConfig().HeartbeatTimeout.Milliseconds()
	m.mu.Lock()
	since, kept := m.promoted[id]
	switch {
	case !up:
		delete(m.promoted, id)
	case !kept:
		m.promoted[id] = time.Now()
	}
	m.mu.Unlock()
	if !up || !kept || time.Since(since) < promoteStable {
		return false, nil
	}
	m.log.Info("a server has caught up: it votes from now on", "server", id)
	return true, m.change(ctx, func(r *raft.Raft, index uint64) raft.IndexFuture {
		return r.AddVoter(s.ID, s.Address, index, changeWait)
	})
}

// add lets a server of the table into the configuration, without a vote, once it has understood which cluster it belongs to.
func (m *membership) add(ctx context.Context, row fsm.Server) (bool, error) {
	if !m.seldom.allow("add "+row.ID, time.Second) {
		return false, nil
	}
	reply, err := m.transport.hello(ctx, row.NodeAddr, helloRequest{Op: opWho})
	if err != nil || reply.ServerID != row.ID || reply.ClusterID != m.dir.identity().ClusterID {
		return false, nil
	}
	if why := m.tooOld(reply.greeter); why != "" {
		return false, fmt.Errorf("server %s of node %q can't be let in: %s", row.ID, row.Name, why)
	}
	m.log.Info("a server joins", "node", row.Name, "server", row.ID)
	return true, m.change(ctx, func(r *raft.Raft, index uint64) raft.IndexFuture {
		return r.AddNonvoter(raft.ServerID(row.ID), raft.ServerAddress(row.NodeAddr), index, changeWait)
	})
}

// waiting are the nodes that ask to be let in.
func (m *membership) waiting() (waiting []*joiner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, j := range m.joiners {
		if time.Since(j.asked) > joinerWait {
			delete(m.joiners, id)
			continue
		}
		waiting = append(waiting, j)
	}
	return waiting
}

// admit writes a newcomer into the table. If its name is another server's, that one must be dead, and must not be missed.
func (m *membership) admit(ctx context.Context, j *joiner, rows map[string]fsm.Server, servers []raft.Server) error {
	m.mu.Lock()
	now := j.greeter
	m.mu.Unlock()
	if _, known := rows[now.ServerID]; known {
		m.mu.Lock()
		delete(m.joiners, now.ServerID)
		m.mu.Unlock()
		return nil
	}
	if old := namesakes(now, rows, servers); len(old) > 0 { // one after the other
		row := old[0]
		if refused := m.replaceable(ctx, j, row, servers); refused != "" {
			m.mu.Lock()
			j.refused = refused
			m.mu.Unlock()
			return nil
		}
		m.log.Info("a server comes back with an empty disk: it replaces its old self", "node", row.Name, "old", row.ID, "new", now.ServerID)
		if err := m.propose(ctx, &fsm.RemoveServer{ID: row.ID}); err != nil {
			return err
		}
		return nil // the next rounds remove the old one from the configuration and let the new one in
	}
	for _, s := range servers {
		if row := rows[string(s.ID)]; row.Removed && (row.Name == now.Name || string(s.Address) == now.NodeAddr) {
			return nil // one change at a time
		}
	}
	return m.propose(ctx, &fsm.PutServer{Server: rowFor(now)})
}

// namesakes are the servers that a newcomer may be the new self of: those with its name, and those of the configuration at its address
// whose names nobody knows, because they were gone before the leader had met them.
func namesakes(now greeter, rows map[string]fsm.Server, servers []raft.Server) (old []fsm.Server) {
	for _, row := range rows {
		if row.Name == now.Name && !row.Removed {
			old = append(old, row)
		}
	}
	for _, s := range servers {
		if _, known := rows[string(s.ID)]; !known && string(s.Address) == now.NodeAddr {
			old = append(old, fsm.Server{ID: string(s.ID), Name: now.Name, NodeAddr: now.NodeAddr})
		}
	}
	return old
}

// replaceable says why the server that has a newcomer's name can't give way to it; empty if it can.
func (m *membership) replaceable(ctx context.Context, j *joiner, row fsm.Server, servers []raft.Server) string {
	if row.ID == m.dir.identity().ServerID || m.answers(ctx, row.ID, row.NodeAddr) {
		m.mu.Lock()
		j.silentSince = time.Time{}
		m.mu.Unlock()
		return fmt.Sprintf("two nodes with one name: %q is server %s already, and it answers; choose another name", row.Name, row.ID)
	}
	m.mu.Lock()
	if j.silentSince.IsZero() {
		j.silentSince = time.Now()
	}
	silent := time.Since(j.silentSince)
	m.mu.Unlock()
	if silent < deadFor {
		return fmt.Sprintf("%q is server %s already; waiting a moment whether it answers", row.Name, row.ID)
	}
	voters, healthy := 0, 0
	for _, s := range servers {
		switch {
		case s.Suffrage != raft.Voter || string(s.ID) == row.ID:
		case string(s.ID) == m.dir.identity().ServerID || m.answers(ctx, string(s.ID), string(s.Address)):
			healthy++
			fallthrough
		default:
			voters++
		}
	}
	if healthy <= voters/2 {
		return fmt.Sprintf("%q is server %s already, and only %d of the other %d voters are healthy: it can't be replaced now", row.Name, row.ID, healthy, voters)
	}
	return ""
}

// answers reports whether somebody answers under a server id, at its address or where it was last met.
func (m *membership) answers(ctx context.Context, id, addr string) bool {
	for _, a := range []string{addr, m.transport.metAt(id)} {
		if a == "" {
			continue
		}
		if reply, err := m.transport.hello(ctx, a, helloRequest{Op: opWho}); err == nil && reply.ServerID == id {
			return true
		}
	}
	return false
}
