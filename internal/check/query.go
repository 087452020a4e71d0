package check

// This file is reads as values, so that the replay of the log can be asked what a client was answered.

import (
	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// Subject is what a Query reads.
type Subject string

// The documents that can be read.
const (
	Jobs      Subject = "job"
	Leases    Subject = "lease"
	Factories Subject = "factory"
)

// Query reads one document.
type Query struct {
	Product string
	Subject Subject
	ID      string
}

// Of answers the query in a state.
func (q Query) Of(v fsm.View) fsm.Answer {
	var result fsm.Result
	found := false
	switch q.Subject {
	case Jobs:
		result, found = erase(v.Job(q.Product, q.ID))
	case Leases:
		result, found = erase(v.Lease(q.Product, q.ID))
	case Factories:
		result, found = erase(v.Factory(q.Product, q.ID))
	}
	if !found {
		return fsm.Answer{Err: fleet.Errorf(fleet.NotFound, "there is no %s %s", q.Subject, q.ID), Index: v.Index()}
	}
	return fsm.Answer{Result: result, Index: v.Index()}
}

func erase[D fsm.Result](doc D, found bool) (fsm.Result, bool) { return doc, found }
