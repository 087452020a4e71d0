package cluster

// This file is who gossip believes to be alive. memberlist's own list hands out what it goes on writing to; its events are called
// while nobody else writes, so that is when a copy is made.

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// gossipMember is a node that gossip believes to be alive, as it describes itself.
type gossipMember struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	NodeAddr string `json:"node"`
	HTTPAddr string `json:"http"`
	Version  string `json:"version"`
	address  string // its gossip address, ip:port
}

// gossipTable keeps the members, this node among them. All methods may be called at once.
type gossipTable struct {
	mu      sync.Mutex // guards members; memberlist holds its own lock when it calls, and is never called with this one held
	members map[string]gossipMember
}

var (
	_ memberlist.EventDelegate = (*gossipTable)(nil)
	_ memberlist.AliveDelegate = (*gossipTable)(nil)
)

// all are the members, by id.
func (t *gossipTable) all() []gossipMember {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.members), func(a, b gossipMember) int { return strings.Compare(a.ID, b.ID) })
}

// describes reads what a node says of itself. What is not of this form is no node of ours.
func describes(n *memberlist.Node) (m gossipMember, ok bool) {
	err := json.Unmarshal(n.Meta, &m)
	m.address = n.Address()
	return m, err == nil && m.ID == n.Name && m.NodeAddr != ""
}

// NotifyAlive refuses, before memberlist notes anything, what is no node of ours, and more nodes than a cluster has. That there is
// an AliveDelegate at all is also what makes memberlist look whether a node's versions are there before it indexes them.
func (t *gossipTable) NotifyAlive(n *memberlist.Node) error {
	if _, ok := describes(n); !ok {
		return errNotOurGossip
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.members[n.Name]; !known && len(t.members) >= maxGossipMembers {
		return fmt.Errorf("there are %d nodes already", maxGossipMembers)
	}
	return nil
}

// NotifyJoin and NotifyUpdate note what a node says of itself.
func (t *gossipTable) NotifyJoin(n *memberlist.Node) {
	m, ok := describes(n)
	if !ok {
		t.NotifyLeave(n)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members[m.ID] = m
}

// NotifyUpdate is NotifyJoin for a node that is known.
func (t *gossipTable) NotifyUpdate(n *memberlist.Node) { t.NotifyJoin(n) }

// NotifyLeave forgets a node that left or is believed dead.
func (t *gossipTable) NotifyLeave(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.members, n.Name)
}
