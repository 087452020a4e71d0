package placement

// This file is what is where: products in groups, groups on nodes, and the load that follows from it.

import (
	"math"
	"math/rand/v2"
	"slices"
)

// replicas is how many nodes have a group.
const replicas = 3

// A node spends on a group it leads what the group's products ask for, and on one it follows this part of it: it stores and applies the
// same entries, but sends them to nobody and answers no forwarded call.
const followerCost = 0.5

// Config is a cluster to simulate.
type Config struct {
	Nodes    int     // at least 3
	Groups   int     // at least 1
	Products int     // at least 1
	Skew     float64 // exponent of Zipf's law: the n-th largest product has 1/n^Skew of the largest one's load; 0: all are alike
	Seed     uint64
}

// Cluster is products in groups on nodes. All products together have a load of 1.
type Cluster struct {
	random *rand.Rand
	up     []bool
	groups []group
}

// group is one Raft group.
type group struct {
	on       []int     // its nodes
	leader   int       // one of them; -1: a majority is down
	products []float64 // the load of each
}

func (g *group) load() (sum float64) {
	for _, l := range g.products {
		sum += l
	}
	return sum
}

// New places groups evenly, products by a hash, which knows nothing of their loads, and leaders by elections, which know nothing at all.
func New(c Config) *Cluster {
	random := rand.New(rand.NewPCG(c.Seed, 1))
	cl := &Cluster{random: random, up: make([]bool, c.Nodes), groups: make([]group, c.Groups)}
	has := make([]int, c.Nodes)
	for i := range cl.up {
		cl.up[i] = true
	}
	for i := range cl.groups {
		nodes := random.Perm(c.Nodes)
		slices.SortStableFunc(nodes, func(a, b int) int { return has[a] - has[b] })
		cl.groups[i].on = nodes[:replicas]
		for _, n := range cl.groups[i].on {
			has[n]++
		}
		cl.groups[i].leader = -1
		cl.elect(&cl.groups[i])
	}
	total := 0.0
	for n := range c.Products {
		total += math.Pow(float64(n+1), -c.Skew)
	}
	for n := range c.Products {
		g := &cl.groups[random.IntN(c.Groups)]
		g.products = append(g.products, math.Pow(float64(n+1), -c.Skew)/total)
	}
	return cl
}

// elect gives a group any leader of its nodes that are up, if they are a majority. One that leads goes on.
func (c *Cluster) elect(g *group) {
	var up []int
	for _, n := range g.on {
		if c.up[n] {
			up = append(up, n)
		}
	}
	switch {
	case len(up) <= replicas/2:
		g.leader = -1
	case !slices.Contains(up, g.leader):
		g.leader = up[c.random.IntN(len(up))]
	}
}

// Lose takes a node away.
func (c *Cluster) Lose(node int) { c.set(node, false) }

// Return brings a node back. It leads nothing yet, but where a majority was missing.
func (c *Cluster) Return(node int) { c.set(node, true) }

func (c *Cluster) set(node int, up bool) {
	c.up[node] = up
	for i := range c.groups {
		c.elect(&c.groups[i])
	}
}

// loads is what each node spends.
func (c *Cluster) loads() []float64 {
	loads := make([]float64, len(c.up))
	for i := range c.groups {
		g := &c.groups[i]
		load := g.load()
		for _, n := range g.on {
			switch {
			case !c.up[n]:
			case n == g.leader:
				loads[n] += load
			default:
				loads[n] += followerCost * load
			}
		}
	}
	return loads
}

// Peak is the load of the busiest node in parts of what a node has on average of those that are up: 1 is even.
func (c *Cluster) Peak() float64 {
	sum, most, up := 0.0, 0.0, 0
	for n, load := range c.loads() {
		if c.up[n] {
			sum, most, up = sum+load, max(most, load), up+1
		}
	}
	return most * float64(up) / sum
}

// HottestGroup is the load of the busiest group in parts of what a group has on average. One group is one log: it bounds the whole.
func (c *Cluster) HottestGroup() float64 {
	most := 0.0
	for i := range c.groups {
		most = max(most, c.groups[i].load())
	}
	return most * float64(len(c.groups))
}

// LargestProduct is the same of the busiest product: what no placement gets below, for a product is in one group.
func (c *Cluster) LargestProduct() float64 {
	most := 0.0
	for i := range c.groups {
		for _, load := range c.groups[i].products {
			most = max(most, load)
		}
	}
	return most * float64(len(c.groups))
}

// Leaderless is how many groups have lost their majority.
func (c *Cluster) Leaderless() (n int) {
	for i := range c.groups {
		if c.groups[i].leader < 0 {
			n++
		}
	}
	return n
}
