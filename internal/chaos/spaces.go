package chaos

// This file gives each node a network of its own: a namespace, joined to the others by a router in another one. It needs root and ip.

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Spaces are the network namespaces of a cluster's nodes.
type Spaces struct {
	name  string
	net   int // 10.net.i.0/24 is the i-th node's
	nodes int
}

// NewSpaces makes namespaces for the time of the test, and skips it where that is not possible.
func NewSpaces(t testing.TB, nodes int) *Spaces {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		lacking(t, "network namespaces need root and the command ip")
	}
	s := &Spaces{name: fmt.Sprintf("chaos%d", os.Getpid()%100_000), net: 60 + os.Getpid()%60, nodes: nodes}
	t.Cleanup(s.remove)
	for _, line := range s.plan() {
		if out, err := run(line); err != nil {
			lacking(t, "network namespaces can't be made here: %s: %v: %s", line, err, out)
		}
	}
	return s
}

// plan is what makes them: a router, with a link to this process's own network and to each node.
func (s *Spaces) plan() []string {
	router := s.name + "r"
	link := func(i int) string { return fmt.Sprintf("c%d%c", os.Getpid()%100_000, 'a'+i) }
	plan := []string{
		"ip netns add " + router,
		"ip netns exec " + router + " sysctl -qw net.ipv4.ip_forward=1",
		"ip link add " + link(25) + " type veth peer name out netns " + router,
		fmt.Sprintf("ip addr add 10.%d.250.1/24 dev %s", s.net, link(25)), "ip link set " + link(25) + " up",
		fmt.Sprintf("ip -n %s addr add 10.%d.250.2/24 dev out", router, s.net), "ip -n " + router + " link set out up",
		fmt.Sprintf("ip route add 10.%d.0.0/16 via 10.%d.250.2", s.net, s.net),
	}
	for i := range s.nodes {
		ns := s.space(i)
		plan = append(plan,
			"ip netns add "+ns, "ip -n "+ns+" link set lo up",
			fmt.Sprintf("ip -n %s link add n%d type veth peer name eth netns %s", router, i, ns),
			fmt.Sprintf("ip -n %s addr add 10.%d.%d.1/24 dev n%d", router, s.net, i, i),
			fmt.Sprintf("ip -n %s link set n%d up", router, i),
			fmt.Sprintf("ip -n %s addr add 10.%d.%d.2/24 dev eth", ns, s.net, i), "ip -n "+ns+" link set eth up",
			fmt.Sprintf("ip -n %s route add default via 10.%d.%d.1", ns, s.net, i),
		)
	}
	return plan
}

func (s *Spaces) space(i int) string { return fmt.Sprintf("%sn%d", s.name, i) }

func (s *Spaces) within(i int) []string { return []string{"ip", "netns", "exec", s.space(i)} }

func (s *Spaces) addresses(i int) [3]string {
	host := fmt.Sprintf("10.%d.%d.2", s.net, i)
	return [3]string{host + ":8400", host + ":8401", host + ":8402"}
}

// CutOneWay drops what one node sends to another; with a word back to the sender if it is prohibited.
func (s *Spaces) CutOneWay(from, to int, prohibited bool) error {
	kind := "blackhole"
	if prohibited {
		kind = "prohibit"
	}
	return explained(run(fmt.Sprintf("ip -n %s route replace %s 10.%d.%d.0/24", s.space(from), kind, s.net, to)))
}

// Unplug takes a node's link down: nothing goes in or out.
func (s *Spaces) Unplug(i int) error {
	return explained(run("ip -n " + s.space(i) + " link set eth down"))
}

// Heal mends all links.
func (s *Spaces) Heal() error {
	for i := range s.nodes {
		if err := explained(run("ip -n " + s.space(i) + " link set eth up")); err != nil {
			return err
		}
		if err := explained(run(fmt.Sprintf("ip -n %s route replace default via 10.%d.%d.1", s.space(i), s.net, i))); err != nil {
			return err
		}
		for k := range s.nodes {
			if k != i {
				for _, kind := range []string{"blackhole", "prohibit"} {
					_, _ = run(fmt.Sprintf("ip -n %s route del %s 10.%d.%d.0/24", s.space(i), kind, s.net, k)) // mostly there is none
				}
			}
		}
	}
	return nil
}

func (s *Spaces) remove() {
	for i := range s.nodes {
		_, _ = run("ip netns del " + s.space(i))
	}
	_, _ = run("ip netns del " + s.name + "r") // its links go with it
}

func run(line string) ([]byte, error) {
	words := strings.Fields(line)
	return exec.Command(words[0], words[1:]...).CombinedOutput()
}

func explained(out []byte, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
