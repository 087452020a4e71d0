// Package cluster is one node of the replicated cluster: it puts commands into the Raft log, applies the log to an
// fsm.Machine, and answers from it.
//
// A write is proposed (propose.go): on the leader whatever is waiting shares one log entry under one stamp (clock.go); a follower
// forwards what is waiting to the leader (forward.go). A read says how fresh it must be (read.go). One port carries Raft, forwarding and
// the greeting of strangers, all over mutual TLS (transport.go). Who belongs to the cluster is membership.go and bootstrap.go; gossip.go
// only suggests addresses. What is durable is store.go: any error there ends the node.
//
// Nothing here knows HTTP or JSON. Start with node.go.
package cluster
