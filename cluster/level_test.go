package cluster

// This file tests that no member meets what it can't read, and that one that does says so and ends.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

func atLevel(want int, nodes ...*Node) func() bool {
	return func() bool {
		for _, n := range nodes {
			if n.machine.Level() != want {
				return false
			}
		}
		return true
	}
}

// A new cluster is at the newest level at once.
func TestNewClusterReachesTheNewestLevel(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		began := time.Now()
		alone := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1})
		eventually(t, "one node is at the newest level", atLevel(fsm.MaxLevel, alone))
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("one node alone: it took %s, want a second or two", took)
		}
		nodes := threeMembers(t, NewMemoryNetwork())
		began = time.Now()
		eventually(t, "three nodes are", atLevel(fsm.MaxLevel, nodes...))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("three nodes: it took %s, want a few seconds", took)
		}
	})
}

// Whatever asks for it, nothing above the level gets into the log: not from a caller, not from a follower, not from the leader itself.
func TestNothingAboveTheLevelIsProposed(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var nodes []*Node
		for i := range 3 {
			nodes = append(nodes, member(t, n, Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, MaxLevel: 1}))
		}
		eventually(t, "all three are known", func() bool { return leaderOf(nodes) != nil && len(known(nodes[0])) == 3 })
		leader := leaderOf(nodes)
		time.Sleep(2 * time.Minute) // they have greeted each other twice
		index := leader.machine.Index()
		raise := &fsm.Level{To: 2}
		for _, node := range nodes {
			_, err := node.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: raise})
			if !errors.Is(err, fleet.Internal) {
				t.Errorf("%s was asked by a caller: got %v, want %v", node.Name(), err, fleet.Internal)
			}
		}
		if _, err := leader.proposeInternal(t.Context(), raise); !errors.Is(err, fleet.Internal) {
			t.Errorf("the leader raises the level to one that it does not know: got %v, want %v", err, fleet.Internal)
		}
		frame := newPending(
			fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit("a")},
			fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: raise})
		frame.frame, frame.term = frameID{1}, leader.raft.CurrentTerm()
		leader.proposer.enqueue(frame)
		if <-frame.done; !errors.Is(frame.err, errRefused) || frame.answers[0].Err != nil || !errors.Is(frame.answers[1].Err, fleet.Internal) {
			t.Errorf("a follower's frame: got %v, %+v, want the second refused", frame.err, frame.answers)
		}
		if got := leader.machine.Index(); got != index || leader.machine.Level() != 1 {
			t.Errorf("got index %d and level %d, want %d and 1: nothing was proposed", got, leader.machine.Level(), index)
		}
	})
}

// A node that would join and knows too little ends and says why; one that knows the level gets in.
func TestNodeBelowTheLevelIsNotLetIn(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		eventually(t, "the level has risen", atLevel(fsm.MaxLevel, nodes...))
		old := member(t, n, Config{Name: "old", Join: three, MaxLevel: 1, Version: "v1.0.0"})
		select {
		case <-old.Done():
		case <-time.After(time.Minute):
			t.Fatal("it runs after a minute")
		}
		err := old.Err()
		if !errors.Is(err, ErrTooOld) || errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), "v1.0.0") || !strings.Contains(err.Error(), "level 2") {
			t.Errorf("it ended with %v, want %v, its release and the level", err, ErrTooOld)
		}
		if len(known(nodes[0])) != 3 || len(nodes[0].configuration()) != 3 {
			t.Errorf("the cluster has %v, want the three", known(nodes[0]))
		}
		// The release before does not read the answer's level: it is refused for as long as it asks, in words that it logs.
		from := greeter{ServerID: "0123", Name: "older", NodeAddr: "older:8401", Level: 1}
		for _, node := range nodes {
			if granted, refused := node.membership.joined(from.ServerID, from, false); granted || refused == "" {
				t.Errorf("%s: got %t, %q, want a refusal with words", node.Name(), granted, refused)
			}
		}
		member(t, n, Config{Name: "new", Join: three})
		eventually(t, "a node that knows the level has joined", func() bool { id := known(nodes[0])["new"]; return id != "" && votes(nodes[0], id) })
	})
}

// A server that was written into the table before the level rose, and that knows less, is not let into the configuration.
func TestAdmittedNodeBelowTheLevelIsNotAdded(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		nodes := threeMembers(t, n)
		eventually(t, "the level has risen", atLevel(fsm.MaxLevel, nodes...))
		m := nodes[0].membership
		old := member(t, n, Config{Name: "old", MaxLevel: 1})
		if err := old.dir.update(func(i *identity) { i.ClusterID = nodes[0].dir.identity().ClusterID }); err != nil {
			t.Fatal(err)
		}
		row := fsm.Server{ID: old.id, Name: "old", NodeAddr: "old:8401"}
		eventually(t, "it answers", func() bool {
			_, err := m.transport.hello(t.Context(), row.NodeAddr, helloRequest{Op: opWho})
			return err == nil
		})
		if added, err := m.add(t.Context(), row); added || err == nil || !strings.Contains(err.Error(), "level 1") {
			t.Errorf("got %t, %v, want an error that says the level", added, err)
		}
	})
}

// The level waits for a server that is down, and for one that says it knows less than it did.
func TestLevelWaitsForEveryServer(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		m := nodes[0].membership
		servers := nodes[0].configuration()
		others := map[string]helloReply{nodes[1].id: {greeter: greeter{Level: 2}}, nodes[2].id: {greeter: greeter{Level: 2}}}
		if got := m.lowest(servers, others); got != 2 {
			t.Errorf("all know level 2: got %d", got)
		}
		others[nodes[2].id] = helloReply{greeter: greeter{Level: 1}}
		if got := m.lowest(servers, others); got != 1 {
			t.Errorf("one knows level 1: got %d", got)
		}
		delete(others, nodes[2].id)
		if got := m.lowest(servers, others); got != 0 {
			t.Errorf("one says nothing: got %d, want 0", got)
		}
	})
}

// A backup above the cluster's level is refused in words before anything stops for it; one below is welcome, and the level stays.
func TestRestoreAboveTheLevel(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		newer := threeMembers(t, NewMemoryNetwork())
		eventually(t, "the level has risen", atLevel(fsm.MaxLevel, newer...))
		submitTo(t, newer[0], "a")
		file := backupOf(t, newer[0])

		older := member(t, NewMemoryNetwork(), Config{Name: "n1", BootstrapExpect: 1, MaxLevel: 1})
		eventually(t, "it leads", older.IsLeader)
		submitTo(t, older, "b")
		term := older.raft.CurrentTerm()
		index := older.machine.Index()
		_, err := older.Restore(t.Context(), bytes.NewReader(file), 0)
		if !errors.Is(err, fleet.InvalidSnapshot) || !strings.Contains(err.Error(), "level 2") {
			t.Errorf("a backup of level 2 at level 1: got %v, want %v and the level", err, fleet.InvalidSnapshot)
		}
		if got := has(older, "a", "b"); got != "b" || older.machine.Index() != index || older.raft.CurrentTerm() != term || !clean(t, older) {
			t.Errorf("after it there is %q at index %d, want b at %d and nothing to have stopped", got, older.machine.Index(), index)
		}

		low := backupOf(t, older)
		if _, err := newer[1].Restore(t.Context(), bytes.NewReader(low), 0); err != nil {
			t.Fatalf("a backup of level 1 at level 2: %v", err)
		}
		for _, n := range newer {
			eventually(t, "all have it and keep their level", func() bool { return has(n, "a", "b") == "b" && n.machine.Level() == fsm.MaxLevel })
		}
	})
}

// An entry of a newer level ends the node before it is acknowledged, with what to do.
func TestEntryOfANewerLevelEndsTheNode(t *testing.T) {
	head := envelope{term: 1}
	unknown := logged(t, 1, 1, head, submit("j1"))
	unknown.Data[len(head.append(nil))] = fsm.MaxLevel + 1
	unknown.Extensions = checksum(unknown)
	for what, c := range map[string]struct {
		known int
		entry *raft.Log
	}{
		"newer than the build":           {fsm.MaxLevel, unknown},
		"newer than it was told to know": {1, logged(t, 1, 1, head, &fsm.Level{To: 2})},
	} {
		a := newApplier(fsm.New())
		a.level = c.known
		var why error
		a.fatal = func(err error) { why = err }
		a.Apply(c.entry)
		if !errors.Is(why, ErrStorage) || !errors.Is(why, fsm.ErrFormat) || !strings.Contains(why.Error(), "start that release") {
			t.Errorf("%s: the node stopped with %v, want %v and what to do", what, why, fsm.ErrFormat)
		}
		if a.Apply(logged(t, 2, 1, head, submit("j2"))); a.machine.Index() != 0 {
			t.Errorf("%s: after it got index %d, want nothing to be applied any more", what, a.machine.Index())
		}
	}
}

// So does a snapshot, whether it lies on the disk or a leader sends it.
func TestSnapshotOfANewerLevelEndsTheNode(t *testing.T) {
	m := fsm.New()
	m.Apply(1, &fsm.Entry{Proposals: []fsm.Proposal{{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Level{To: fsm.MaxLevel}}}})
	var file bytes.Buffer
	if _, err := m.Handle().WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	unknown := bytes.Clone(file.Bytes())
	unknown[8] = fsm.MaxLevel + 1
	for what, c := range map[string]struct {
		known int
		file  []byte
	}{
		"newer than the build": {fsm.MaxLevel, unknown}, "newer than it was told to know": {1, file.Bytes()},
	} {
		a := newApplier(fsm.New())
		a.level = c.known
		var why error
		a.fatal = func(err error) { why = err }
		if err := a.Restore(io.NopCloser(bytes.NewReader(c.file))); err == nil {
			t.Errorf("%s: it was restored", what)
		}
		if !errors.Is(why, ErrStorage) || !errors.Is(why, fsm.ErrFormat) || !strings.Contains(why.Error(), "start that release") {
			t.Errorf("%s: the node stopped with %v, want %v and what to do", what, why, fsm.ErrFormat)
		}
	}
}
