package fsm

// This file tests what keyed calls are answered when they are repeated, and what it costs to remember that.

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// caller applies one command an entry.
type caller struct {
	t     *testing.T
	m     *Machine
	actor string
	now   fleet.Time
	index uint64
}

func newCaller(t *testing.T) *caller {
	return &caller{t: t, m: New(), actor: ActorRoot, now: epoch}
}

func (c *caller) propose(key string, command Command) Answer {
	c.index++
	p := Proposal{Caller: Caller{c.actor}, Key: key, Request: "r", Command: command}
	if command.role() == "" {
		p.Caller.Actor = ActorFleet
	}
	answers, _ := c.m.Apply(c.index, &Entry{Stamp: c.now, Proposals: []Proposal{p}})
	return answers[0]
}

// must proposes what may not be refused.
func (c *caller) must(key string, command Command) Result {
	c.t.Helper()
	a := c.propose(key, command)
	if a.Err != nil {
		c.t.Fatalf("%T: %v", command, a.Err)
	}
	return a.Result
}

func (c *caller) submit(key, id, body string) Answer {
	s := fleet.Submission{BodyMd: body}
	s.Normalize()
	return c.propose(key, &Submit{ProductID: "p", JobID: id, Submission: s})
}

func (c *caller) memory() *memory {
	p, ok := c.m.st.products.Get("p")
	if !ok {
		c.t.Fatal("there is no product p")
	}
	return p.memory
}

// A claim's answer comes back whole, its long texts too, also from a restored replica.
func TestRepeatIsAnsweredWhole(t *testing.T) {
	c := newCaller(t)
	long := strings.Repeat("do this\n", 100)
	c.must("", &PutProfile{ProductID: "p", Name: "prof", Snapshot: fleet.JSON(`{"x":"` + strings.Repeat("y", 200) + `"}`)})
	s := fleet.Submission{BodyMd: long, ManifestSnapshot: fleet.JSON(`{"m":"` + strings.Repeat("n", 200) + `"}`), Profile: "prof"}
	s.Normalize()
	c.must("k0", &Submit{ProductID: "p", JobID: "j1", Submission: s})
	c.must("", &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f"}})
	claim := &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60}
	want := c.must("k1", claim)
	if n := c.memory().bodies.Len(); n != 3 {
		t.Errorf("got %d bodies, want the 3 different ones", n)
	}
	for range 2 {
		got := c.propose("k1", claim)
		if !got.Replayed || !reflect.DeepEqual(got.Result, want) {
			t.Errorf("got %+v, want a replay of %+v", got, want)
		}
		c.m = restored(t, snapshotOf(t, c.m))
	}
	c.m.View(func(v View) {
		a, ok := v.Remembered(&Proposal{Caller: Caller{ActorRoot}, Key: "k1", Request: "r", Command: claim})
		if !ok || !a.Replayed || a.Index != c.index {
			t.Errorf("Remembered: got %+v, %t, want a replay at index %d", a, ok, c.index)
		}
		if a, ok := v.Remembered(&Proposal{Caller: Caller{ActorRoot}, Key: "k1", Request: "other", Command: claim}); !ok || a.Err == nil || a.Err.Code != fleet.IdempotencyKeyReused {
			t.Errorf("another request: got %+v, %t, want %v", a, ok, fleet.IdempotencyKeyReused)
		}
		if a, ok := v.Remembered(&Proposal{Caller: Caller{ActorAnonymous}, Key: "k1", Request: "r", Command: claim}); ok {
			t.Errorf("another caller: got %+v, want nothing", a)
		}
	})
}

func TestMemoryFadesAfterTenMinutes(t *testing.T) {
	c := newCaller(t)
	for i := range 1500 {
		c.submit(fmt.Sprint("k", i), fmt.Sprint("j", i), strings.Repeat("b", 100))
	}
	c.now += 600e9
	if a := c.submit("k0", "x0", strings.Repeat("b", 100)); !a.Replayed {
		t.Errorf("after 10 minutes: got %+v, want a replay", a)
	}
	c.now++
	c.index++
	p := Proposal{Caller: Caller{ActorRoot}, Key: "k1", Request: "r", Command: &Requeue{ProductID: "p", JobID: "none"}}
	c.m.Apply(c.index, &Entry{Stamp: c.now, Proposals: []Proposal{p, p}})
	if n := c.memory().answers.Len(); n != 1500 {
		t.Errorf("after refusals %d answers are left, want 1500", n)
	}
	for _, want := range []int{501, 2, 3} {
		if a := c.submit(fmt.Sprint("new", want), fmt.Sprint("y", want), "b"); a.Replayed || a.Err != nil {
			t.Fatalf("got %+v, want a new job", a)
		}
		if n := c.memory().answers.Len(); n != want {
			t.Errorf("got %d answers left, want %d", n, want)
		}
	}
	if m := c.memory(); m.bodies.Len() != 0 || m.directory().total.documents != 3 {
		t.Errorf("got %d bodies and %d documents, want 0 and 3", m.bodies.Len(), m.directory().total.documents)
	}
}

// A call that comes again when its answer has faded, but is still there, is done again, though both answers have the same texts.
func TestTextsOfAFadedAnswer(t *testing.T) {
	c := newCaller(t)
	long := strings.Repeat("long ", 50)
	comment := &Comment{ProductID: "p", JobID: "j", Data: fleet.JSON(fmt.Sprintf(`{"text":%q}`, long))}
	c.submit("", "j", "x")
	c.must("k", comment)
	c.now = c.now.Add(rememberSeconds + 1)
	for range 2 {
		a := c.propose("k", comment)
		if a.Err != nil || a.Replayed || string(a.Result.(*fleet.Event).Data) != string(comment.Data) {
			t.Fatalf("a comment that was made 10 minutes ago under the same key: got %+v, want a second one", a)
		}
		if a = c.propose("k", comment); !a.Replayed || string(a.Result.(*fleet.Event).Data) != string(comment.Data) {
			t.Fatalf("its repeat: got %+v, want the same answer", a)
		}
		c.now = c.now.Add(rememberSeconds + 1)
	}
	if m := c.memory(); m.bodies.Len() != 1 || m.answers.Len() != 1 {
		t.Errorf("got %d texts of %d answers, want one of one", m.bodies.Len(), m.answers.Len())
	}
}

// Over a caller's quarter its own oldest go, but none of the last minute: then its submits are refused, and nobody else's.
func TestMemoryIsBounded(t *testing.T) {
	defer func(n int64) { maxMemoryDocuments = n }(maxMemoryDocuments)
	maxMemoryDocuments = 40
	c := newCaller(t)
	for i := range 11 {
		if a := c.submit(fmt.Sprint("k", i), fmt.Sprint("j", i), "b"); a.Err != nil {
			t.Fatalf("submit %d: %v", i, a.Err)
		}
	}
	before := c.m.Hash()
	c.now += 20e9
	a := c.submit("k11", "j11", "b")
	if !errors.Is(error(a.Err), fleet.RateLimited) || a.Err.RetryAfterSeconds != 40 {
		t.Fatalf("over the bound: got %+v, want %v after 40 s", a.Err, fleet.RateLimited)
	}
	if a := c.submit("k3", "j3", "b"); !a.Replayed {
		t.Errorf("a repeat over the bound: got %+v, want a replay", a)
	}
	if a := c.submit("", "j12", "b"); a.Err != nil {
		t.Errorf("without a key: got %v, want a job", a.Err)
	}
	if a := c.propose("c1", &Cancel{ProductID: "p", JobID: "j1"}); a.Err != nil {
		t.Errorf("a call that is no submit: got %v, want an answer", a.Err)
	}
	c.actor = ActorAnonymous
	if a := c.submit("k11", "j13", "b"); a.Err != nil {
		t.Errorf("another caller: got %v, want a job", a.Err)
	}
	c.actor = ActorRoot
	c.now += 40e9
	if a := c.submit("k11", "j14", "b"); a.Err != nil {
		t.Errorf("a minute later: got %v, want a job", a.Err)
	}
	if s := c.memory().directory().lines[ActorRoot].share; s.documents > 10 {
		t.Errorf("got %d documents of one caller, want at most 10", s.documents)
	}
	if a := c.submit("k0", "j15", "b"); a.Replayed {
		t.Error("the oldest answer is still there")
	}
	if c.m.Hash() == before {
		t.Error("the hash does not see the memory")
	}
}

// Renewals, heartbeats and claims that found nothing leave no trace in the memory.
func TestWhatIsNotRemembered(t *testing.T) {
	c := newCaller(t)
	h := &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f"}}
	c.must("h", h)
	c.must("c", &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60})
	c.must("b", &ClaimBatch{ProductID: "p", FactoryID: "f", LeaseSeconds: 60, Max: 3})
	c.submit("", "j1", "b")
	c.must("", &Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60})
	c.must("r", &Renew{ProductID: "p", JobID: "j1", LeaseEpoch: 1})
	if n := c.memory().answers.Len(); n != 0 {
		t.Errorf("got %d answers remembered, want 0", n)
	}
}

// A text that looks like a reference is still a text.
func TestTextsThatLookLikeReferences(t *testing.T) {
	c := newCaller(t)
	for i, body := range []string{reference, reference + strings.Repeat("x", 32), strings.Repeat(reference, 100)} {
		want := c.submit(fmt.Sprint("k", i), fmt.Sprint("j", i), body)
		got := c.submit(fmt.Sprint("k", i), "other", body)
		if !got.Replayed || !reflect.DeepEqual(got.Result, want.Result) {
			t.Errorf("body %q: got %+v, want %+v", body, got.Result, want.Result)
		}
	}
}

// A state that was forked goes on twice: each side has the answers of before and its own, and neither those of the other.
func TestAnswersOfAFork(t *testing.T) {
	long := strings.Repeat("long ", 50)
	a := newCaller(t)
	for i := range 3 {
		a.submit(fmt.Sprint("k", i), fmt.Sprint("j", i), long)
	}
	b := *a
	b.m = &Machine{st: a.m.st.fork()}
	a.now = a.now.Add(rememberSeconds + 1) // what is done at a takes out the answers of before
	if r := a.submit("a", "ja", long); r.Err != nil || r.Replayed {
		t.Fatalf("at one side: got %+v, want a new job", r)
	}
	if n := a.memory().answers.Len(); n != 1 {
		t.Errorf("one side has %d answers, want its own alone", n)
	}
	for _, key := range []string{"k0", "k1", "k2"} { // nothing was written here since the fork
		if r := b.submit(key, "other", long); !r.Replayed || r.Result.(*fleet.SubmitResult).Job.BodyMd != long {
			t.Errorf("%s at the other side: got %+v, want a replay", key, r)
		}
	}
	if r := b.submit("a", "jb", long); r.Err != nil || r.Replayed {
		t.Errorf("the first side's key at the other: got %+v, want a new job", r)
	}
	if r := b.submit("k1", "other", long); !r.Replayed {
		t.Errorf("k1 once the other side has written: got %+v, want a replay", r)
	}
	for _, c := range []*caller{a, &b} {
		if again := restored(t, snapshotOf(t, c.m)); again.Hash() != c.m.Hash() {
			t.Error("a replica that was restored from one side differs from it")
		}
	}
}

// A snapshot in which two answers have one key, or an answer has a number that is yet to be given, is none.
func TestAnswersThatDoNotFit(t *testing.T) {
	for what, spoil := range map[string]func(m *memory, n uint64, k memo){
		"twice": func(m *memory, n uint64, k memo) {
			m.next++
			again := k.open()
			m.answers.Set(n+1, memo(appendRemembered(nil, &remembered{n: n + 1, at: again.at, caller: again.caller, key: again.key}, nil, 1, nil)))
		},
		"too early": func(m *memory, n uint64, _ memo) { m.next = n },
		"no text":   func(m *memory, _ uint64, _ memo) { m.bodies.Clear() },
		"cut":       func(m *memory, n uint64, k memo) { m.answers.Set(n, k[:len(k)-1]) },
	} {
		c := newCaller(t)
		c.submit("k", "j", strings.Repeat("b", 100))
		m := c.memory()
		n, k, _ := m.answers.Min()
		spoil(m, n, k)
		if err := New().Restore(strings.NewReader(string(snapshotOf(t, c.m)))); !errors.Is(err, fleet.InvalidSnapshot) {
			t.Errorf("%s: got %v, want %v", what, err, fleet.InvalidSnapshot)
		}
	}
}
