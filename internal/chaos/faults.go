package chaos

// This file is the faults that are drawn one after the other: of processes, and of what lies between them.

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// victim is a node that runs, every other time the leader.
func (r *Run) victim() int {
	if r.rnd.IntN(2) == 0 {
		if leader := r.Leader(); leader >= 0 {
			return leader
		}
	}
	for {
		if i := r.rnd.IntN(len(r.Nodes)); r.Nodes[i].Up() {
			return i
		}
	}
}

// others are all nodes but one, in any order.
func (r *Run) others(i int) (all []int) {
	for _, k := range r.rnd.Perm(len(r.Nodes)) {
		if k != i {
			all = append(all, k)
		}
	}
	return all
}

// Kill kills one node, two, or all, at once, and starts them again after a moment (F1).
func (r *Run) Kill() {
	who := []int{r.victim()}
	switch n := r.rnd.IntN(10); {
	case n < 3:
		who = r.rnd.Perm(len(r.Nodes))
	case n < 5:
		who = append(who, r.others(who[0])[0])
	}
	done := make(chan struct{}, len(who))
	for _, i := range who {
		r.fault("kill -9")
		go func() { r.Nodes[i].Kill(); done <- struct{}{} }()
	}
	for range who {
		<-done
	}
	r.sleep(0, 300*time.Millisecond)
	for _, i := range who {
		if err := r.Nodes[i].Start(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Trouble is one fault of the network or of a process that is only silent, drawn at random (F2–F5, F22). Some of it lasts until the next heal.
func (r *Run) Trouble() {
	v := r.victim()
	others := r.others(v)
	cut := func(w *weather) { w.cut = true }
	mend := func(w *weather) { w.cut = false }
	switch kind := r.rnd.IntN(12); kind {
	case 0:
		r.fault("isolated")
		for _, o := range others {
			r.links.both(v, o, cut)
		}
	case 1:
		r.fault("cut one way")
		r.links.set(v, others[0], cut)
	case 2:
		r.fault("can send, can't receive")
		for _, o := range others {
			r.links.set(o, v, cut)
		}
	case 3:
		r.fault("bridge")
		r.links.both(v, others[0], cut)
	case 4:
		for range 3 + r.rnd.IntN(4) {
			r.fault("flap")
			for _, o := range others {
				r.links.both(v, o, cut)
			}
			r.sleep(100*time.Millisecond, time.Second)
			for _, o := range others {
				r.links.both(v, o, mend)
			}
			r.sleep(100*time.Millisecond, time.Second)
		}
	case 5:
		r.fault("delay")
		d := time.Duration(1+r.rnd.IntN(250)) * time.Millisecond
		for _, o := range others {
			r.links.both(v, o, func(w *weather) { w.delay, w.jitter = d, d })
		}
	case 6:
		r.fault("loss")
		loss := 0.01 + 0.29*r.rnd.Float64()
		for _, o := range others {
			r.links.both(v, o, func(w *weather) { w.loss = loss })
		}
	case 7:
		r.fault("10 Mbit/s")
		for _, o := range others {
			r.links.both(v, o, func(w *weather) { w.rate = 10e6 / 8 })
		}
	case 8:
		r.fault("reset")
		for _, o := range others {
			r.links.reset(v, o)
		}
	case 9: // clog one by one, unclog in another order
		n := len(r.Nodes)
		for _, k := range r.rnd.Perm(n * n) {
			if k/n != k%n && r.rnd.IntN(3) > 0 {
				r.fault("swizzle")
				r.links.set(k/n, k%n, cut)
				r.sleep(0, 100*time.Millisecond)
			}
		}
		for _, k := range r.rnd.Perm(n * n) {
			r.links.set(k/n, k%n, mend)
			r.sleep(0, 100*time.Millisecond)
		}
	case 10:
		r.fault("SIGSTOP")
		r.Nodes[v].Pause()
		if r.rnd.IntN(4) == 0 {
			r.sleep(6*time.Second, 20*time.Second)
		} else {
			r.sleep(time.Second, 4*time.Second)
		}
		r.Nodes[v].Resume()
	case 11:
		for range 10 + r.rnd.IntN(20) {
			r.fault("transfer")
			r.transfer(r.Nodes[r.rnd.IntN(len(r.Nodes))])
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// transfer asks a node to have leadership handed over. It may well be refused.
func (r *Run) transfer(n *Node) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if response, err := n.Do(ctx, http.MethodPost, "/cluster/leader/transfer", "{}"); err == nil {
		_ = response.Body.Close()
	}
}

// remove removes a server by its name, and returns the status.
func (r *Run) remove(at *Node, name string) int {
	r.t.Helper()
	status, err := at.remove(name)
	if err != nil {
		r.t.Fatalf("removing %s: %v", name, err)
	}
	return status
}

// remove asks this node to remove a server.
func (n *Node) remove(name string) (status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	response, err := n.Do(ctx, http.MethodDelete, "/cluster/servers/"+name, "")
	if err != nil {
		return 0, err
	}
	_ = response.Body.Close()
	return response.StatusCode, nil
}

// ends waits until a node has ended by itself with a status, and has said some words.
func (r *Run) ends(n *Node, limit time.Duration, want int) {
	r.t.Helper()
	status, ended := n.Wait(limit)
	if !ended || status != want {
		r.t.Fatalf("%s: ended %t, with status %d, want %d within %s: %s", n.Name, ended, status, want, limit, n.LastWords())
	}
}

// back starts a node and waits until all are ready.
func (r *Run) back(n *Node) {
	r.t.Helper()
	if err := n.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.Ready(r.t, convergeWait)
}

// members is what the leader says of the cluster.
func (r *Run) members() string {
	s, err := r.Nodes[r.AwaitLeader(r.t, leaderWait)].Status()
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, n := range s.Nodes {
		text += fmt.Sprintf("%s %s voter %t; ", n.Name, n.ID, n.Voter)
	}
	return text
}
