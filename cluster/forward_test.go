package cluster

// This file tests the frames between a follower and its leader.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lysnrai/fleet/fsm"
)

func TestFrameRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	w := bufio.NewWriter(&wire)
	sent := []frame{{framePropose, 1, []byte("abc")}, {frameReadIndex, 1 << 60, nil}, {frameRemove, 3, bytes.Repeat([]byte("x"), 100_000)}}
	for _, f := range sent {
		if err := writeFrame(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(&wire)
	for i, want := range sent {
		got, err := readFrame(r)
		if err != nil || got.kind != want.kind || got.number != want.number || !bytes.Equal(got.payload, want.payload) {
			t.Errorf("frame %d: got kind %d number %d with %d bytes, %v; want kind %d number %d with %d bytes",
				i, got.kind, got.number, len(got.payload), err, want.kind, want.number, len(want.payload))
		}
	}
}

func TestFrameOverTheLimitIsRefused(t *testing.T) {
	_, err := readFrame(bufio.NewReader(strings.NewReader("\xff\xff\xff\xff" + strings.Repeat("\x00", 100))))
	if err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("reading a frame of 4 GiB: got %v, want a refusal", err)
	}
}

func FuzzProposalsFromTheWire(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodeProposals(b); err == nil && len(p.proposals) == 0 {
			t.Error("an empty frame was accepted")
		}
	})
}

// What a follower is told when its frame was turned away, and when nobody knows.
func TestAnswersTellWhetherItWasProposed(t *testing.T) {
	for _, want := range []error{errNotProposed, errUnknown} {
		p := newPending()
		p.finish(nil, want)
		if _, err := decodeAnswers(encodeAnswers(p), 1); !errors.Is(err, want) {
			t.Errorf("answers of a frame that ended with %v: got %v", want, err)
		}
	}
	if _, err := decodeAnswers([]byte{replyOK, 0xff}, 1); !errors.Is(err, errUnknown) {
		t.Errorf("answers that can't be read: got %v, want %v", err, errUnknown)
	}
}

func TestProposalsRoundTrip(t *testing.T) {
	group := []*pending{
		newPending(fsm.Proposal{Caller: fsm.Caller{Actor: "t1"}, Key: "k", Request: "r", Command: submit("j1")}),
		newPending(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit("j2")}),
	}
	payload, count, err := encodeProposals(frameID{1}, 7, group)
	if err != nil || count != 2 {
		t.Fatalf("encoding: got %d, %v, want 2", count, err)
	}
	got, err := decodeProposals(payload)
	if err != nil || len(got.proposals) != 2 || got.frame != (frameID{1}) || got.term != 7 {
		t.Fatalf("decoding: got %+v, %v", got, err)
	}
	if p := got.proposals[0]; p.Caller.Actor != "t1" || p.Key != "k" || p.Request != "r" || p.Command.(*fsm.Submit).JobID != "j1" {
		t.Errorf("the first: got %+v, want the caller's own identity and key", p)
	}
}

// A follower can't speak as the leader.
func TestProposalsAsTheLeaderAreRefused(t *testing.T) {
	payload, _, err := encodeProposals(frameID{1}, 7, []*pending{newPending(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorFleet}, Command: &fsm.Noop{}})})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeProposals(payload); err == nil {
		t.Error("got no error, want a refusal")
	}
}

// Calls of all nodes go through one leader, with one hop; what is the leader's own never leaves it; a frame of another term is
// turned away, and so is a question to a node that doesn't lead.
func TestCallsMakeOneHop(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		nodes := threeMembers(t, NewMemoryNetwork())
		leader, follower := nodes[0], nodes[1]
		for i, n := range nodes {
			a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit(fmt.Sprintf("j%d", i))})
			if err != nil || a.Err != nil {
				t.Errorf("submitting at node %d: got %v, %v", i, err, a.Err)
			}
		}
		if _, err := follower.proposeInternal(t.Context(), &fsm.Noop{}); !errors.Is(err, errNotProposed) {
			t.Errorf("a follower proposes an internal command: got %v, want %v", err, errNotProposed)
		}
		to, _ := follower.leader()
		for _, kind := range []byte{frameReadIndex, frameRemove, frameTransfer} {
			if got := follower.serveAsk(frame{kind: kind}); got[0] != replyNotProposed {
				t.Errorf("asking a follower with kind %d: got %d, want %d", kind, got[0], replyNotProposed)
			}
			l, err := nodes[2].forwarder.connect(to)
			if err != nil || !l.alive() {
				t.Fatalf("the link to the leader: got %v, want it to be alive", err)
			}
		}
		old := newPending(fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit("late")})
		old.frame, old.term = frameID{1}, to.term-1
		leader.proposer.enqueue(old)
		if <-old.done; !errors.Is(old.err, errNotProposed) {
			t.Errorf("a frame of an earlier term: got %v, want %v", old.err, errNotProposed)
		}
	})
}

// A claim at a follower is judged where the state is newest: it makes one hop for a job that the follower does not have yet, and where
// there is nothing it writes nothing.
func TestClaimAtAFollowerMakesOneHop(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		network := NewMemoryNetwork()
		nodes := threeMembers(t, network)
		leader, follower := nodes[0], nodes[1]
		register(t, leader, "f1", 5)
		const away = 5 * time.Millisecond
		for _, other := range nodes[1:] {
			network.Delay(leader.Name(), other.Name(), away)
		}
		time.Sleep(time.Second)
		must(t, follower, submit("j1"))
		granted := claim(t, follower, "f1", 0)
		<-granted.done
		if granted.job() != "j1" || granted.took >= 5*away { // there, to a follower and back, and back
			t.Errorf("got job %q, %v after %v, want j1 after one hop", granted.job(), granted.err, granted.took)
		}
		time.Sleep(time.Second)
		before := leader.machine.Index()
		nothing := claim(t, follower, "f1", 0)
		<-nothing.done
		if nothing.job() != "" || nothing.err != nil || nothing.answer.Err != nil || leader.machine.Index() != before {
			t.Errorf("got %+v, %v with %d entries written, want nothing and none", nothing.answer, nothing.err, leader.machine.Index()-before)
		}
	})
}
