// Package client is the Go client of the fleet's REST API, one method per route, with the root package's documents.
//
// A call goes to one of the addresses and moves on to the next when a node can't be reached or has no leader. A call
// that changes something carries one Idempotency-Key through all of its attempts, so that a lost answer never means
// that it was done twice. What the cluster refuses is a *fleet.Error: test it with errors.Is(err, fleet.StaleEpoch).
// A Client is safe for use by many goroutines at once.
//
// Start with client.go, then jobs.go. Claims (claims.go) gives a factory its jobs and keeps their leases alive, Events
// (feed.go) follows what happens. How a call is retried is call.go, how reports share a request gathering.go.
package client
