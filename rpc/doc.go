// Package rpc is a node's REST surface: JSON over HTTP in, commands and reads of a cluster.Node out.
//
// Every route is one row of the table in routes.go: a method, a path, who may call it, which query parameters it
// takes, and a handler. A handler knows no HTTP and no rule: it turns a decoded call into a command or a read. What a
// command comes to is for package fsm to say; who is asking, what was sent and how it is answered is for handle.go,
// which does it the same way for all of them: authenticate (auth.go), decode strictly (decode.go, query.go,
// headers.go), call, answer (answer.go) or refuse (problem.go), count (metrics.go) and log.
//
// Start with routes.go, then handle.go. Live feeds are sse.go, the listener with its time-outs is server.go, and
// openapi.json describes all of it to machines.
package rpc
