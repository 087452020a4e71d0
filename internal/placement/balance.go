package placement

// This file is what a balancer would do: move leaders, which costs a few milliseconds each, and products, which costs their bytes.

import "slices"

// worth is the least that a step must take off the higher of the two loads it concerns, in parts of the mean: less is not worth the unrest.
const worth = 0.02

// MoveLeaders hands leadership over, one group after another, always the one that takes most off the busiest node that can be helped,
// until nothing is worth it. It returns how many it moved.
func (c *Cluster) MoveLeaders() (moved int) {
	for {
		loads := c.loads()
		mean := 0.0
		for _, load := range loads {
			mean += load / float64(len(loads))
		}
		best, to, gain := -1, -1, worth*mean
		for i := range c.groups {
			g := &c.groups[i]
			if g.leader < 0 {
				continue
			}
			shift := (1 - followerCost) * g.load()
			for _, n := range g.on {
				if n == g.leader || !c.up[n] {
					continue
				}
				before := max(loads[g.leader], loads[n])
				after := max(loads[g.leader]-shift, loads[n]+shift)
				if before-after > gain {
					best, to, gain = i, n, before-after
				}
			}
		}
		if best < 0 {
			return moved
		}
		c.groups[best].leader = to
		moved++
	}
}

// even is how far above the mean the busiest group may be: nothing is moved to get below.
const even = 1.1

// MoveProducts moves products from the busiest group to the idlest, each time the one that evens the two out most, until they are even or
// nothing helps. It returns how many it moved, and their part of all load.
func (c *Cluster) MoveProducts() (moved int, load float64) {
	for {
		from, to := 0, 0
		for i := range c.groups {
			if c.groups[i].load() > c.groups[from].load() {
				from = i
			}
			if c.groups[i].load() < c.groups[to].load() {
				to = i
			}
		}
		high, low := c.groups[from].load(), c.groups[to].load()
		if high*float64(len(c.groups)) <= even {
			return moved, load
		}
		best, gain := -1, 0.0
		for i, l := range c.groups[from].products {
			if g := high - max(high-l, low+l); g > gain {
				best, gain = i, g
			}
		}
		if best < 0 {
			return moved, load
		}
		l := c.groups[from].products[best]
		c.groups[from].products = slices.Delete(c.groups[from].products, best, best+1)
		c.groups[to].products = append(c.groups[to].products, l)
		moved, load = moved+1, load+l
	}
}
