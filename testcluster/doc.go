// Package testcluster runs real fleet nodes in one process, for tests: of this module, and of programs that use it.
//
// Start gives a cluster over an in-memory network and in-memory disks. In a testing/synctest bubble all of it runs in
// virtual time, so that an hour of leases and elections takes seconds; nothing else changes. StartReal gives a cluster over loopback
// sockets and real disks. Nodes can be killed, shut down and restarted with what was on their disks, wiped, paused, added, and cut
// off from each other. HTTPClient and Addresses reach the nodes' HTTP API in either, with Token as the root token.
//
//	synctest.Test(t, func(t *testing.T) {
//		c := testcluster.Start(t, 3)
//		c.Submit(t, fleet.Submission{BodyMd: "hello", Capabilities: []string{"go"}})
//		claim := c.Factory(t, "f1", "go").Claim(t, time.Minute)
//		c.Kill(t, c.Leader(t))
//		…
//	})
package testcluster
