package fleet

// This file says how the binary form of the documents is made: by msgp, from the structs and their JSON names. What is
// only ever read from a node, never logged or stored, is left out.

//go:generate go tool -modfile=tools/go.mod msgp -tests=false -io=false -file . -o msgp_gen.go

//msgp:ignore Reason Why Stats NodeStatus ClusterStatus RestoreResult
