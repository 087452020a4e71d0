package placement_test

// This file holds the simulation to what must be true of any placement, and prints its table.

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lysnrai/fleet/internal/placement"
)

// Whatever is moved, no group loses its leader, and nothing gets worse.
func TestMovesNeverMakeItWorse(t *testing.T) {
	for seed := range uint64(200) {
		c := placement.New(placement.Config{Nodes: 3 + int(seed%7), Groups: 1 + int(seed%40), Products: 1 + int(seed*7%500), Skew: float64(seed%3) / 2, Seed: seed})
		check := func(what string, do func()) {
			before, hot := c.Peak(), c.HottestGroup()
			do()
			if after := c.Peak(); after > before+1e-9 {
				t.Errorf("seed %d: %s made the busiest node's load %.3f of the mean, from %.3f", seed, what, after, before)
			}
			if after := c.HottestGroup(); after > hot+1e-9 {
				t.Errorf("seed %d: %s made the busiest group's load %.3f of the mean, from %.3f", seed, what, after, hot)
			}
			if n := c.Leaderless(); n > 0 {
				t.Errorf("seed %d: after %s %d groups have no leader", seed, what, n)
			}
		}
		check("moving leaders", func() { c.MoveLeaders() })
		if again := c.MoveLeaders(); again != 0 {
			t.Errorf("seed %d: a second round moved %d leaders more, want it to rest", seed, again)
		}
		c.Lose(0)
		check("moving leaders without a node", func() { c.MoveLeaders() })
		c.Return(0)
		check("moving leaders to a node that came back", func() { c.MoveLeaders() })
		before := c.HottestGroup()
		c.MoveProducts()
		if after := c.HottestGroup(); after > before+1e-9 || after < c.LargestProduct()-1e-9 {
			t.Errorf("seed %d: moving products made the busiest group's load %.3f, from %.3f; the largest product alone is %.3f", seed, after, before, c.LargestProduct())
		}
	}
}

// With one node of three lost each group still has a leader; with two, none has.
func TestGroupsNeedAMajority(t *testing.T) {
	c := placement.New(placement.Config{Nodes: 3, Groups: 12, Products: 100})
	c.Lose(0)
	if n := c.Leaderless(); n != 0 {
		t.Errorf("with one of three nodes lost %d groups have no leader, want none", n)
	}
	c.Lose(1)
	if n := c.Leaderless(); n != 12 {
		t.Errorf("with two of three nodes lost %d groups have no leader, want all 12", n)
	}
	c.Return(0)
	if n := c.Leaderless(); n != 0 {
		t.Errorf("with two nodes back %d groups have no leader, want none", n)
	}
}

// TestTable prints what docs/scaling.md quotes: the median of 101 draws for each row.
func TestTable(t *testing.T) {
	const draws = 101
	var b strings.Builder
	fmt.Fprintln(&b, "nodes groups products  skew | busiest node ÷ mean: elected  moved (transfers) | node lost  moved (transfers) | back, moved (transfers) | busiest group ÷ mean: hashed  moved (products, load) largest product")
	for _, c := range []placement.Config{
		{Nodes: 3, Groups: 3, Products: 200, Skew: 0.8},
		{Nodes: 3, Groups: 12, Products: 200, Skew: 0.8},
		{Nodes: 5, Groups: 20, Products: 200, Skew: 0.8},
		{Nodes: 9, Groups: 36, Products: 200, Skew: 0.8},
		{Nodes: 9, Groups: 36, Products: 2000, Skew: 0.8},
		{Nodes: 9, Groups: 36, Products: 2000, Skew: 0},
		{Nodes: 9, Groups: 36, Products: 2000, Skew: 1.2},
		{Nodes: 9, Groups: 144, Products: 2000, Skew: 0.8},
	} {
		columns := make([][]float64, 12)
		for seed := range uint64(draws) {
			c.Seed = seed
			var row []float64
			add := func(values ...float64) { row = append(row, values...) }
			cl := placement.New(c)
			add(cl.Peak(), float64(cl.MoveLeaders()), cl.Peak())
			cl.Lose(0)
			add(cl.Peak(), float64(cl.MoveLeaders()), cl.Peak())
			cl.Return(0)
			add(float64(cl.MoveLeaders()), cl.Peak(), cl.HottestGroup())
			moved, load := cl.MoveProducts()
			add(float64(moved), 100*load, cl.HottestGroup())
			for i, v := range row {
				columns[i] = append(columns[i], v)
			}
		}
		median := make([]float64, len(columns))
		for i, column := range columns {
			slices.Sort(column)
			median[i] = column[draws/2]
		}
		largest := placement.New(c).LargestProduct()
		fmt.Fprintf(&b, "%5d %6d %8d %5.1f | %28.2f  %5.2f (%.0f) | %9.2f  %5.2f (%.0f) | %11.2f (%.0f) | %28.2f  %5.2f (%.0f, %.0f %%) %.2f\n",
			c.Nodes, c.Groups, c.Products, c.Skew, median[0], median[2], median[1], median[3], median[5], median[4], median[7], median[6], median[8], median[11], median[9], median[10], largest)
	}
	t.Log("\n" + b.String())
}
