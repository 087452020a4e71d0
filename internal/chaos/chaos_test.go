package chaos

// This file is the parts: which faults, on which cluster, for how long, and what must hold beside the verdict.

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// standard is how long all parts together take when make chaos asks for nothing else. Each part's share is its test's own.
const standard = 10 * time.Minute

// plan is how much is asked for.
type plan struct {
	seed  uint64
	scale float64 // of the standard run; 0: a smoke test
}

// drawn reads what is asked for: FLEET_CHAOS is a duration for all parts together, FLEET_SEED what repeats the draws.
func drawn(t *testing.T) plan {
	p := plan{seed: uint64(time.Now().UnixNano()) % 1_000_000}
	if s := os.Getenv("FLEET_SEED"); s != "" {
		var err error
		if p.seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("FLEET_SEED: %v", err)
		}
	}
	if s := os.Getenv("FLEET_CHAOS"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("FLEET_CHAOS: %v", err)
		}
		p.scale = float64(d) / float64(standard)
	}
	return p
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := Report(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// full skips a part that is not for a smoke test, and gives its share.
func full(t *testing.T) plan {
	p := drawn(t)
	if p.scale == 0 {
		t.Skip("make chaos runs this; FLEET_CHAOS=10m is how long all parts together take")
	}
	return p
}

func (p plan) lasts(d time.Duration) time.Duration { return time.Duration(float64(d) * p.scale) }

func (p plan) times(n int) int { return max(1, int(float64(n)*p.scale)) }

// A cluster whose nodes are killed again and again loses nothing (F1). One of the rounds compacts the log meanwhile.
func TestChaosKills(t *testing.T) {
	p := drawn(t)
	kills, rounds := p.times(105), 3
	if p.scale == 0 {
		if testing.Short() {
			t.Skip("it starts a cluster")
		}
		kills, rounds = 12, 1
	}
	for round := range rounds {
		config := Config{Nodes: 3, Timing: "local"}
		if round == 1 {
			config.SnapshotBytes = 512 << 10
		}
		t.Run(fmt.Sprintf("round%d", round), func(t *testing.T) {
			t.Parallel()
			r := Begin(t, fmt.Sprintf("kills, round %d", round), p.seed, config, 60)
			for r.faults.of("kill -9") < kills {
				u := r.rnd.Float64()
				time.Sleep(time.Duration(u * u * float64(2*time.Second)))
				r.Kill()
				if config.SnapshotBytes > 0 {
					for _, n := range r.Nodes {
						r.gather(n)
					}
				}
			}
			r.End()
		})
	}
}

// A cluster keeps its promises whatever its network does, to nodes and to clients (F2–F5, F22, F27).
func TestChaosNetwork(t *testing.T) {
	p := full(t)
	for round := range 2 {
		t.Run(fmt.Sprintf("round%d", round), func(t *testing.T) {
			t.Parallel()
			r := Begin(t, fmt.Sprintf("network, round %d", round), p.seed, Config{Nodes: 3 + 2*round, Timing: "lan"}, 60)
			for _, n := range r.Nodes {
				n.Front.Strike(10)
			}
			for end := time.Now().Add(p.lasts(50 * time.Second)); time.Now().Before(end); {
				r.Trouble()
				r.sleep(500*time.Millisecond, 3*time.Second)
				if r.rnd.IntN(3) > 0 {
					r.links.heal()
				}
				r.sleep(0, time.Second)
			}
			r.End()
		})
	}
}

// The same in real networks: routes that lead nowhere, links that are down or narrow, packets that are lost or refused (F3, F4).
func TestChaosNamespaces(t *testing.T) {
	p := full(t)
	t.Parallel()
	spaces := NewSpaces(t, 3)
	r := Begin(t, "namespaces", p.seed, Config{Nodes: 3, Timing: "lan", Spaces: spaces}, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	faults := []struct {
		kind string
		do   func(victim int, others []int)
	}{
		{"link down", func(v int, _ []int) { must(spaces.Unplug(v)) }},
		{"route prohibited", func(v int, others []int) { must(spaces.CutOneWay(v, others[0], true)) }},
		{"route to a black hole", func(v int, others []int) { must(spaces.CutOneWay(v, others[0], false)) }},
		{"isolated by black holes", func(v int, others []int) {
			for _, o := range others {
				must(spaces.CutOneWay(v, o, false))
				must(spaces.CutOneWay(o, v, false))
			}
		}},
		{"link flaps", func(v int, _ []int) {
			for range 3 {
				must(spaces.Unplug(v))
				r.sleep(100*time.Millisecond, time.Second)
				must(spaces.Heal())
				r.sleep(100*time.Millisecond, time.Second)
			}
		}},
		{"packets lost", func(v int, _ []int) { must(spaces.Lose(v, 0.01+0.29*r.rnd.Float64())) }},
		{"port resets", func(v int, others []int) { must(spaces.Refuse(others[0], v, "tcp-reset")) }},
		{"port prohibited", func(v int, others []int) { must(spaces.Refuse(others[0], v, "icmp-host-prohibited")) }},
		{"10 Mbit/s below TCP", func(v int, _ []int) { must(spaces.Narrow(v)) }},
	}
	var order []int
	for end := time.Now().Add(p.lasts(40 * time.Second)); time.Now().Before(end); order = order[1:] {
		if len(order) == 0 { // each comes in its turn
			order = r.rnd.Perm(len(faults))
		}
		v := r.victim()
		r.fault(faults[order[0]].kind)
		faults[order[0]].do(v, r.others(v))
		r.sleep(time.Second, 3*time.Second)
		if r.rnd.IntN(3) > 0 { // else it meets the next one
			must(spaces.Heal())
		}
		r.sleep(200*time.Millisecond, time.Second)
	}
	must(spaces.Heal())
	r.End()
}
