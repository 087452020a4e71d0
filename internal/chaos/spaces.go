package chaos

// This file gives each node a network of its own: a namespace, joined to the others by a router in another one, and what goes wrong in
// it below TCP. It needs root, ip, iptables and tc.

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Spaces are the network namespaces of a cluster's nodes.
type Spaces struct {
	name  string
	ten   int // 10.ten.i.0/24 is the i-th node's
	nodes int
}

// NewSpaces makes namespaces for the time of the test, and skips it where that is not possible.
func NewSpaces(t testing.TB, nodes int) *Spaces {
	t.Helper()
	for _, command := range []string{"ip", "iptables", "tc"} {
		if _, err := exec.LookPath(command); err != nil || os.Geteuid() != 0 {
			lacking(t, "network namespaces need root and the command %s", command)
		}
	}
	s := &Spaces{name: fmt.Sprintf("chaos%d", os.Getpid()%100_000), ten: 60 + os.Getpid()%60, nodes: nodes}
	t.Cleanup(s.remove)
	for _, line := range s.plan() {
		if out, err := run(line); err != nil {
			lacking(t, "network namespaces can't be made here: %s: %v: %s", line, err, out)
		}
	}
	for _, err := range []error{s.Lose(0, 0.01), s.Refuse(0, 1, "tcp-reset"), s.Refuse(0, 1, "icmp-host-prohibited"), s.Narrow(0), s.Heal()} {
		if err != nil { // of the kernel's modules, some may not be there
			lacking(t, "faults below TCP can't be made here: %v", err)
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
		fmt.Sprintf("ip addr add 10.%d.250.1/24 dev %s", s.ten, link(25)), "ip link set " + link(25) + " up",
		fmt.Sprintf("ip -n %s addr add 10.%d.250.2/24 dev out", router, s.ten), "ip -n " + router + " link set out up",
		fmt.Sprintf("ip route add 10.%d.0.0/16 via 10.%d.250.2", s.ten, s.ten),
	}
	for i := range s.nodes {
		ns := s.space(i)
		plan = append(plan,
			"ip netns add "+ns, "ip -n "+ns+" link set lo up",
			fmt.Sprintf("ip -n %s link add n%d type veth peer name eth netns %s", router, i, ns),
			fmt.Sprintf("ip -n %s addr add 10.%d.%d.1/24 dev n%d", router, s.ten, i, i),
			fmt.Sprintf("ip -n %s link set n%d up", router, i),
			fmt.Sprintf("ip -n %s addr add 10.%d.%d.2/24 dev eth", ns, s.ten, i), "ip -n "+ns+" link set eth up",
			fmt.Sprintf("ip -n %s route add default via 10.%d.%d.1", ns, s.ten, i),
		)
	}
	return plan
}

func (s *Spaces) space(i int) string { return fmt.Sprintf("%sn%d", s.name, i) }

func (s *Spaces) within(i int) []string { return []string{"ip", "netns", "exec", s.space(i)} }

func (s *Spaces) addresses(i int) [3]string {
	host := fmt.Sprintf("10.%d.%d.2", s.ten, i)
	return [3]string{host + ":8400", host + ":8401", host + ":8402"}
}

// CutOneWay drops what one node sends to another; with a word back to the sender if it is prohibited.
func (s *Spaces) CutOneWay(from, to int, prohibited bool) error {
	kind := "blackhole"
	if prohibited {
		kind = "prohibit"
	}
	return explained(run(fmt.Sprintf("ip -n %s route replace %s 10.%d.%d.0/24", s.space(from), kind, s.ten, to)))
}

// Unplug takes a node's link down: nothing goes in or out.
func (s *Spaces) Unplug(i int) error {
	return explained(run("ip -n " + s.space(i) + " link set eth down"))
}

// Lose drops packets from and to a node, each with a probability. The router does it: the sender is told nothing, as of a packet that is
// lost far away.
func (s *Spaces) Lose(i int, probability float64) error {
	for _, side := range []string{"-i", "-o"} {
		if err := explained(run(fmt.Sprintf("ip netns exec %sr iptables -w -A FORWARD %s n%d -m statistic --mode random --probability %.3f -j DROP",
			s.name, side, i, probability))); err != nil {
			return err
		}
	}
	return nil
}

// Refuse makes a node's port for other nodes refuse whatever one of them sends there, with a word of a kind that iptables knows. What that
// one has accepted goes on.
func (s *Spaces) Refuse(from, at int, with string) error {
	_, port, _ := net.SplitHostPort(s.addresses(at)[1])
	return explained(run(fmt.Sprintf("ip netns exec %s iptables -w -A INPUT -s 10.%d.%d.2 -p tcp --dport %s -j REJECT --reject-with %s",
		s.space(at), s.ten, from, port, with)))
}

// Narrow makes a node's link one of 10 Mbit/s, both ways, with a short queue.
func (s *Spaces) Narrow(i int) error { return s.queue(i, "tbf rate 10mbit burst 16kb latency 50ms") }

// queue is what both ends of a node's link send by.
func (s *Spaces) queue(i int, discipline string) error {
	for _, end := range []string{s.space(i) + " qdisc replace dev eth", fmt.Sprintf("%sr qdisc replace dev n%d", s.name, i)} {
		if err := explained(run("tc -n " + end + " root " + discipline)); err != nil {
			return err
		}
	}
	return nil
}

// Heal mends all links.
func (s *Spaces) Heal() error {
	if err := explained(run("ip netns exec " + s.name + "r iptables -w -F")); err != nil {
		return err
	}
	for i := range s.nodes {
		if err := explained(run("ip netns exec " + s.space(i) + " iptables -w -F")); err != nil {
			return err
		}
		if err := s.queue(i, "noqueue"); err != nil { // as it was
			return err
		}
		if err := explained(run("ip -n " + s.space(i) + " link set eth up")); err != nil {
			return err
		}
		if err := explained(run(fmt.Sprintf("ip -n %s route replace default via 10.%d.%d.1", s.space(i), s.ten, i))); err != nil {
			return err
		}
		for k := range s.nodes {
			if k != i {
				for _, kind := range []string{"blackhole", "prohibit"} {
					_, _ = run(fmt.Sprintf("ip -n %s route del %s 10.%d.%d.0/24", s.space(i), kind, s.ten, k)) // mostly there is none
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
