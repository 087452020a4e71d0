// Package chaos runs real nodes, real sockets and real disks under faults that are drawn from a seed, and has package check judge all
// that clients were told.
//
// A Cluster is processes of the fleet-node binary (node.go), built with the tag chaos, which gives it small segments and a proxy on
// every link to another node (link.go). Clients call over HTTP (call.go), through a front that can lose answers (front.go),
// and follow the feed of each node (feed.go). A Run puts faults on all that (faults.go, disk.go) and ends with the verdict
// (verdict.go): the nodes' states and logs are the same, the log replayed from nothing gives every answer, and the models accept it.
//
// The parts are tests (chaos_test.go). make chaos runs them all; FLEET_SEED repeats a run's draws, though not the machine's timing.
package chaos
