package chaos

// This file puts nodes together: the binary, ports, links and directories, and what is waited for.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Config is what a Cluster is made of.
type Config struct {
	Nodes         int
	Timing        string   // of the nodes: local, lan or wan
	SegmentBytes  int      // 0: 64 KiB
	SnapshotBytes int64    // 0: the log is never compacted
	Dirs          []string // of nodes whose data is on a disk of their own; shorter or empty: below the cluster's directory
	Spaces        *Spaces  // network namespaces for the nodes, instead of a proxy on each link
	Direct        bool     // no proxies on the links
	Env           []string // more of it for the nodes
}

// Cluster is some nodes and what is between them.
type Cluster struct {
	Nodes []*Node
	Dir   string // logs and data

	config Config
	links  *links
	struck *counts
}

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("FLEET_CHAOS_BINARY"); path != "" {
		return path, nil
	}
	root, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "fleet-chaos-binary")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "fleet-node")
	build := exec.Command("go", "build", "-tags", "chaos", "-o", path, "./cmd/fleet-node")
	build.Dir = filepath.Dir(strings.TrimSpace(string(root)))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the nodes: %w\n%s", err, out)
	}
	return path, nil
})

// built is where binary has put it, empty before.
var built string

// New makes a cluster whose nodes don't run yet. The test's end stops what runs; its directory is kept if the test failed.
func New(t testing.TB, config Config) *Cluster {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fleet-chaos") //nolint:usetesting // it is kept if the test failed
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Dir: dir, config: config, links: newLinks(config.Nodes), struck: newCounts()}
	t.Cleanup(func() {
		c.close()
		if t.Failed() {
			t.Logf("logs and data directories are in %s", dir)
		} else {
			_ = os.RemoveAll(dir)
		}
	})
	addrs, err := config.addresses()
	if err != nil {
		t.Fatal(err)
	}
	var join []string
	for i := range config.Nodes {
		join = append(join, addrs[i][2])
	}
	for i := range config.Nodes {
		n := &Node{
			Name: fmt.Sprintf("n%d", i+1), HTTPAddr: addrs[i][0], NodeAddr: addrs[i][1], gossip: addrs[i][2],
			binary: path, log: filepath.Join(dir, fmt.Sprintf("n%d.log", i+1)), Dir: filepath.Join(dir, fmt.Sprintf("n%d", i+1)),
		}
		if i < len(config.Dirs) && config.Dirs[i] != "" {
			n.Dir = config.Dirs[i]
		}
		c.Nodes = append(c.Nodes, n)
		if n.Front, err = newFront(n.HTTPAddr, c.struck); err != nil {
			t.Fatal(err)
		}
		n.args = c.args(n, join)
		if config.Spaces != nil {
			n.within = config.Spaces.within(i)
		}
	}
	for i, n := range c.Nodes {
		var pairs []string
		for k, other := range c.Nodes {
			if k == i || config.Spaces != nil || config.Direct {
				continue
			}
			via, err := c.links.between(i, k, other.NodeAddr)
			if err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, other.NodeAddr+"="+via)
		}
		n.env = append(c.env(), "FLEET_CHAOS_LINKS="+strings.Join(pairs, ","))
	}
	return c
}

// args are those of a node's process.
func (c *Cluster) args(n *Node, join []string) []string {
	return []string{
		"agent", "--name", n.Name, "--data-dir", n.Dir, "--http-addr", n.HTTPAddr, "--node-addr", n.NodeAddr, "--gossip-addr", n.gossip,
		"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(c.config.Nodes), "--timing", c.config.Timing,
	}
}

func (c *Cluster) env() []string {
	segment, snapshot := c.config.SegmentBytes, c.config.SnapshotBytes
	if segment == 0 {
		segment = 64 << 10
	}
	if snapshot == 0 {
		snapshot = 1 << 50
	}
	return append([]string{
		"FLEET_ROOT_TOKEN=" + RootToken,
		fmt.Sprintf("FLEET_CHAOS_SEGMENT_BYTES=%d", segment), fmt.Sprintf("FLEET_CHAOS_SNAPSHOT_BYTES=%d", snapshot),
	}, c.config.Env...)
}

// Start starts all nodes and waits until they are ready.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	c.Ready(t, 30*time.Second)
}

// Ready waits until every node is.
func (c *Cluster) Ready(t testing.TB, limit time.Duration) {
	t.Helper()
	if why := within(limit, c.unready); why != "" {
		t.Fatalf("I15: waited %s in vain until all nodes are ready: %s", limit, why)
	}
}

// unready is why not all nodes are ready, empty if they are.
func (c *Cluster) unready() string {
	for _, n := range c.Nodes {
		if why := n.Unready(); why != "" {
			return n.Name + ": " + why + "; it said: " + n.LastWords()
		}
	}
	return ""
}

// within waits until nothing keeps a condition from being true, and returns what does at the end.
func within(limit time.Duration, why func() string) string {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		what := why()
		if what == "" || time.Now().After(end) {
			return what
		}
	}
}

// Leader is the index of the node that leads, -1 if none says so.
func (c *Cluster) Leader() int {
	for i, n := range c.Nodes {
		if n.Leads() {
			return i
		}
	}
	return -1
}

// AwaitLeader waits until a node leads that is none of these.
func (c *Cluster) AwaitLeader(t testing.TB, limit time.Duration, but ...int) int {
	t.Helper()
	leader := -1
	if why := within(limit, func() string {
		for i, n := range c.Nodes {
			excluded := false
			for _, b := range but {
				excluded = excluded || b == i
			}
			if !excluded && n.Leads() {
				leader = i
				return ""
			}
		}
		return "no other node leads"
	}); why != "" {
		t.Fatalf("I15: waited %s in vain: %s", limit, why)
	}
	return leader
}

// heal mends everything: links, fronts, pauses, and nodes that are down.
func (c *Cluster) heal(t testing.TB) {
	t.Helper()
	c.links.heal()
	for _, n := range c.Nodes {
		n.Front.Strike(0)
		n.Resume()
		if n.Pid() == 0 {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (c *Cluster) close() {
	var ends sync.WaitGroup
	for _, n := range c.Nodes {
		if n.Pid() != 0 {
			ends.Go(n.Kill)
		}
		n.Front.close()
	}
	c.links.close()
	ends.Wait()
}

// addresses are those of each node for HTTP, for other nodes and for gossip.
func (config Config) addresses() (all [][3]string, err error) {
	if config.Spaces != nil {
		for i := range config.Nodes {
			all = append(all, config.Spaces.addresses(i))
		}
		return all, nil
	}
	free, err := freePorts(3 * config.Nodes)
	for i := 0; i+2 < len(free); i += 3 {
		all = append(all, [3]string{local(free[i]), local(free[i+1]), local(free[i+2])})
	}
	return all, err
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// ports is where the search for free ports goes on: what one cluster was given and does not listen at yet is not for the next one.
var ports = struct {
	mu   sync.Mutex
	next int
}{next: os.Getpid() % 200 * 100}

// freePorts are ports that nobody has, for TCP and UDP. They lie below those that the system gives to connections, so that a node that
// is down finds its own again.
func freePorts(n int) (free []int, err error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for tries := 0; len(free) < n; tries++ {
		if tries > 1000 {
			return nil, errors.New("there are no free ports on loopback")
		}
		port := 10_000 + ports.next%20_000
		ports.next++
		l, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", local(port))
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = u.Close()
		free = append(free, port)
	}
	return free, nil
}
