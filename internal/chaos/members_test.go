package chaos

// This file is the parts about who belongs to the cluster: nodes replaced, removed, restarted, two of five lost.

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"
)

// exitRemoved is the status of a node that was removed from its cluster.
const exitRemoved = 7

// A node comes back with an empty disk, and later with its old one; nodes are removed, the leader too, and come back as new ones (F15, F19).
func TestChaosMembers(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "members", p.seed, Config{Nodes: 3, Timing: "local"}, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var joined times
	for range p.times(1) {
		leader := r.AwaitLeader(t, leaderWait)
		n := r.Nodes[r.others(leader)[0]]
		old := n.Dir + ".old"
		r.fault("returns with an empty disk")
		n.Kill()
		must(os.Rename(n.Dir, old))
		began := time.Now()
		r.back(n)
		joined = append(joined, time.Since(began))

		r.fault("its old disk returns")
		n.Kill()
		young := n.Dir + ".new"
		must(os.Rename(n.Dir, young))
		must(os.Rename(old, n.Dir))
		must(n.Start())
		r.ends(n, 30*time.Second, exitRemoved)
		must(n.Start())
		r.ends(n, 30*time.Second, exitRemoved) // and stays out
		must(os.RemoveAll(n.Dir))
		must(os.Rename(young, n.Dir))
		r.back(n)

		for _, which := range []string{"a follower", "the leader", "a dead node"} {
			leader := r.AwaitLeader(t, leaderWait)
			n := r.Nodes[leader]
			at := r.Nodes[r.others(leader)[0]]
			if which != "the leader" {
				n, at = at, n
			}
			r.fault("removed: " + which)
			if which == "a dead node" {
				n.Kill()
			}
			if status := r.remove(at, n.Name); status != http.StatusOK {
				t.Fatalf("removing %s, %s: status %d: %s", which, n.Name, status, r.members())
			}
			if status := r.remove(at, n.Name); status != http.StatusNotFound {
				t.Errorf("removing %s again: status %d, want %d", which, status, http.StatusNotFound)
			}
			if which == "a dead node" {
				must(n.Start())
			}
			r.ends(n, 30*time.Second, exitRemoved)
			must(n.Start())
			r.ends(n, 30*time.Second, exitRemoved)
			r.writeAfter(time.Now())
			must(os.RemoveAll(n.Dir))
			began := time.Now()
			r.back(n)
			joined = append(joined, time.Since(began))
		}
	}
	write(t, "members: an empty node was ready after: "+joined.String())
	r.End()
}

// Two changes of membership at once: each is done, one after the other, and no one is half done (F19). Two nodes are asked to remove one
// server each; two to remove the same one; two empty nodes join; one is removed while an empty one joins.
func TestChaosMembersAtOnce(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "members at once", p.seed, Config{Nodes: 5, Timing: "local"}, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	wipe := func(nodes ...*Node) {
		t.Helper()
		for _, n := range nodes {
			must(os.RemoveAll(n.Dir))
		}
	}
	remove := func(at, n *Node) <-chan string { // why it can't be removed
		why := make(chan string, 1)
		go func() {
			tries := 0
			why <- within(convergeWait, func() string {
				tries++
				status, err := at.remove(n.Name)
				switch {
				case status == http.StatusOK, status == http.StatusNotFound && tries > 1: // the first answer may have been lost
					return ""
				}
				time.Sleep(100 * time.Millisecond)
				return fmt.Sprintf("removing %s at %s: status %d, %v", n.Name, at.Name, status, err)
			})
		}()
		return why
	}
	done := func(whys ...<-chan string) {
		t.Helper()
		for _, why := range whys {
			if words := <-why; words != "" {
				t.Fatalf("F19: waited %s in vain: %s: %s", convergeWait, words, r.members())
			}
		}
	}
	// voters waits until exactly these are members, by name, and all may vote.
	voters := func(want ...*Node) {
		t.Helper()
		var names []string
		for _, n := range want {
			names = append(names, n.Name)
		}
		slices.Sort(names)
		if why := within(convergeWait, func() string {
			var got []string
			s, err := r.Nodes[r.AwaitLeader(t, leaderWait)].Status()
			if err != nil {
				return err.Error()
			}
			for _, n := range s.Nodes {
				if n.Voter {
					got = append(got, n.Name)
				} else {
					got = append(got, n.Name+" (no voter)")
				}
			}
			if slices.Sort(got); !slices.Equal(got, names) {
				return fmt.Sprintf("they are %s", got)
			}
			return ""
		}); why != "" {
			t.Fatalf("F19: waited %s in vain until the members are %s: %s", convergeWait, names, why)
		}
	}
	for round := range p.times(3) {
		voters(r.Nodes...)
		var n []*Node
		for _, i := range r.rnd.Perm(len(r.Nodes)) {
			n = append(n, r.Nodes[i])
		}
		if round%3 == 0 { // the leader is one of the two
			leader := slices.Index(n, r.Nodes[r.AwaitLeader(t, leaderWait)])
			n[0], n[leader] = n[leader], n[0]
		}
		r.fault("two removed at once")
		done(remove(n[2], n[0]), remove(n[3], n[1]))
		voters(n[2:]...)
		for _, gone := range n[:2] {
			r.ends(gone, 30*time.Second, exitRemoved)
		}
		r.writeAfter(time.Now())

		r.fault("two join at once")
		wipe(n[:2]...)
		must(n[0].Start())
		must(n[1].Start())
		r.Ready(t, convergeWait)
		voters(n...)

		r.fault("one removed twice at once")
		twice := make(chan int, 2)
		for _, at := range n[3:] {
			go func() {
				status, _ := at.remove(n[2].Name)
				twice <- status
			}()
		}
		first, second := <-twice, <-twice
		if first != http.StatusOK && second != http.StatusOK {
			t.Fatalf("F19: %s removed by two at once: status %d and %d, want one %d: %s", n[2].Name, first, second, http.StatusOK, r.members())
		}
		r.ends(n[2], 30*time.Second, exitRemoved)
		voters(n[0], n[1], n[3], n[4])

		r.fault("one removed while one joins")
		wipe(n[2])
		must(n[2].Start())
		done(remove(n[4], n[3]))
		r.ends(n[3], 30*time.Second, exitRemoved)
		voters(n[0], n[1], n[2], n[4])

		wipe(n[3])
		r.back(n[3])
	}
	voters(r.Nodes...)
	r.End()
}

// Two of five lost at once: the others go on (F16).
func TestChaosTwoOfFive(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "two of five", p.seed, Config{Nodes: 5, Timing: "local"}, 60)
	var resumed times
	for range p.times(5) {
		r.sleep(200*time.Millisecond, time.Second)
		one := r.victim()
		two := r.others(one)[0]
		r.fault("kill -9")
		r.fault("kill -9")
		r.Nodes[one].Signal(9)
		r.Nodes[two].Signal(9)
		killed := time.Now()
		r.Nodes[one].Kill()
		r.Nodes[two].Kill()
		r.AwaitLeader(t, leaderWait, one, two)
		resumed = append(resumed, r.writeAfter(killed.Add(50*time.Millisecond)))
		for _, i := range []int{one, two} {
			if err := r.Nodes[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		r.Ready(t, convergeWait)
	}
	write(t, "two of five: writes resumed after: "+resumed.String())
	r.End()
}

// A node that acknowledged a write forgets it with its disk, and the only other one that has it dies: there is no leader then, rather than
// one that has lost the write (F15).
func TestChaosAmnesia(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "amnesia", p.seed, Config{Nodes: 3, Timing: "local"}, 60)
	for range p.times(3) {
		leader := r.AwaitLeader(t, leaderWait)
		others := r.others(leader)
		forgets, lags := others[0], others[1]
		r.fault("one lags")
		for _, o := range []int{leader, forgets} {
			r.links.both(lags, o, func(w *weather) { w.cut = true })
		}
		r.writeAfter(time.Now().Add(time.Second))
		r.fault("the leader is killed, and one that has all of its writes loses its disk")
		r.Nodes[leader].Kill()
		r.Nodes[forgets].Kill()
		if err := os.RemoveAll(r.Nodes[forgets].Dir); err != nil {
			t.Fatal(err)
		}
		r.links.heal()
		if err := r.Nodes[forgets].Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if i := r.Leader(); i >= 0 {
				t.Fatalf("%s leads, though one of the two that have all writes is down and the other has forgotten them", r.Nodes[i].Name)
			}
		}
		if err := r.Nodes[leader].Start(); err != nil {
			t.Fatal(err)
		}
		r.Ready(t, convergeWait)
	}
	r.End()
}
