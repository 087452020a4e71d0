// Package placement simulates products sharded over several Raft groups: where the groups' leaders are, what moves when a node is lost
// or comes back, and what can't be evened out. It is the evidence of docs/scaling.md; nothing in the product imports it yet.
//
// Start with cluster.go (what is where, and what it costs), then balance.go (what a balancer would do).
package placement
