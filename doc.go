// Package fleet is the vocabulary of a coordinator for fleets of AI coding agents: the documents that its replicated
// state machine keeps, the words they use, and the errors it answers with.
//
// A Job is submitted, claimed by a Factory under a Lease with a fencing epoch, worked on in a Run, and ends shipped,
// failed or dead_letter; what happened to it is its Events, what it left behind its Artifacts. Everything here is
// plain data that imports nothing but the standard library and the runtime of the generated codec. A document is
// never changed once it is stored: a change stores a new copy, so a reader may keep what it was given for ever.
//
// Start with job.go, then stage.go and request.go. What a client may submit, and how it is checked, is submission.go;
// the limits are limits.go, the errors error.go. The rules that move these documents live in package fsm, the REST client in rpc/client.
package fleet
