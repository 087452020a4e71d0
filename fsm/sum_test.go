package fsm

// This file holds the hash that is kept with every change to the one that is counted anew.

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

func always() bool { return true }

// verify counts the machine's hash anew.
func verify(t fataler, m *Machine, when string, args ...any) uint64 {
	h := m.Handle()
	if err := h.Verify(always); err != nil {
		t.Fatalf(when+": %v", append(args, err)...)
	}
	return h.StateHash()
}

// kept is the hash without the time, which moves on whatever an entry comes to.
func kept(m *Machine) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.st.fork()
	st.now = 0
	return st.digest()
}

// After each entry of any log the kept hash is that of the documents, on a replica that was restored in between too, and
// refusals leave it alone.
func TestSumFollowsEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newDraws(t).log(60)
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		m, replica := New(), New()
		for i, e := range log {
			if i == cut {
				replica = restored(t, snapshotOf(t, m))
				if a, b := verify(t, m, "at the cut"), verify(t, replica, "restored"); a != b {
					t.Fatalf("restored before entry %d: got hash %016x, want %016x", i, b, a)
				}
			}
			before := kept(m)
			answers, _ := m.Apply(uint64(i+1), e)
			refused := true
			for _, a := range answers {
				refused = refused && a.Err != nil
			}
			hash := verify(t, m, "after entry %d, %T", i, e.Proposals[0].Command)
			if refused && kept(m) != before {
				t.Fatalf("entry %d, %T: a refusal changed the hash", i, e.Proposals[0].Command)
			}
			if i >= cut {
				if replica.Apply(uint64(i+1), e); verify(t, replica, "restored, after entry %d", i) != hash {
					t.Fatalf("after entry %d, %T, replicas have different hashes", i, e.Proposals[0].Command)
				}
			}
		}
	})
}

// A backup that is raised begins with the hash of what it was raised to.
func TestSumOfARaisedBackup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, into := New(), New()
		replay(t, m, newDraws(t).log(40), 0)
		replay(t, into, newDraws(t).log(10), 0)
		replay(t, into, []*Entry{{Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Level{To: MaxLevel}}}}}, 10) // every backup's
		file := snapshotOf(t, m)
		b, err := ReadBackup(bytes.NewReader(file))
		if err != nil {
			t.Fatalf("reading the backup: %v", err)
		}
		r, err := into.Raise(b, 0, epoch.Add(1_000_000))
		if err != nil {
			t.Fatalf("raising: %v", err)
		}
		a := restored(t, append(r.Front(), file...))
		hash := verify(t, a, "raised")
		if again := restored(t, snapshotOf(t, a)); verify(t, again, "raised and restored again") != hash {
			t.Fatalf("a snapshot of a raised state has another hash")
		}
	})
}

// A handle keeps the hash that the state had, whatever comes after it.
func TestSumOfAHandle(t *testing.T) {
	m := furnished(t)
	h := m.Handle()
	hash := h.StateHash()
	m.Apply(100, &Entry{Stamp: epoch.Add(1000), Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Reap{Limit: 1000}}}})
	if err := h.Verify(always); err != nil || h.StateHash() != hash {
		t.Errorf("a handle, later: got %016x, %v, want %016x", h.StateHash(), err, hash)
	}
	if verify(t, m, "after the handle") == hash {
		t.Errorf("a Reap that expires a lease leaves the hash as it was")
	}
	if err := h.Verify(func() bool { return false }); err != nil {
		t.Errorf("given up: got %v, want nil", err)
	}
}

// What changed in memory without a command is found by counting anew, in whatever table it is; and a command that then
// replaces it takes out what it finds, not what was put in, so that the difference stays and shows at the next checkpoint.
func TestVerifyFindsWhatRotted(t *testing.T) {
	for what, flip := range map[string]func(st *state, p *product){
		"server":     func(st *state, _ *product) { must(st.servers.Get("s")).HTTPAddr = "x" },
		"token":      func(st *state, _ *product) { must(st.tokens.Get("t1")).doc.Name = "x" },
		"secret":     func(st *state, _ *product) { must(st.tokens.Get("t1")).hash = "x" },
		"revoked":    func(st *state, _ *product) { st.revoked.Map.Delete("t2") },
		"deadline":   func(st *state, _ *product) { st.deadlines.BTreeG.PopMin() },
		"ended":      func(st *state, _ *product) { st.ended.BTreeG.PopMin() },
		"next event": func(_ *state, p *product) { p.nextEvent++ },
		"next seq":   func(_ *state, p *product) { p.nextSeq++ },
		"purged":     func(_ *state, p *product) { p.purged++ },
		"profile":    func(_ *state, p *product) { must(p.profiles.Get("prof"))[0].Snapshot = "{}" },
		"factory":    func(_ *state, p *product) { must(p.factories.Get("f")).doc.SeatLimit++ },
		"owner":      func(_ *state, p *product) { must(p.factories.Get("f")).owner = "x" },
		"endings":    func(_ *state, p *product) { p.endings.Scan(func(_ int64, n *endings) bool { n.failed++; return true }) },
		"job":        func(_ *state, p *product) { must(p.jobs.Get("j1")).job.Attempt++ },
		"body":       func(_ *state, p *product) { j := must(p.jobs.Get("j1")).job; j.BodyMd = "I" + j.BodyMd[1:] },
		"manifest":   func(_ *state, p *product) { must(p.jobs.Get("j1")).job.ManifestSnapshot = `{"a":2}` },
		"result":     func(_ *state, p *product) { must(p.jobs.Get("j1")).job.Result = "2" },
		"lease":      func(_ *state, p *product) { must(p.jobs.Get("j1")).lease.TTLSeconds++ },
		"content":    func(_ *state, p *product) { must(p.jobs.Get("j1")).content[7] ^= 4 },
		"unmet":      func(_ *state, p *product) { must(p.jobs.Get("j2")).unmet = 0 },
		"waiting":    func(_ *state, p *product) { must(p.jobs.Get("j3")).waiting.until++ },
		"group":      func(_ *state, p *product) { must(p.jobs.Get("group")).group.descendants++ },
		"run":        func(_ *state, p *product) { must(p.jobs.Get("j1")).runs()[0].StartedAt++ },
		"run's text": func(_ *state, p *product) { must(p.jobs.Get("j1")).runs()[0].ProfileSnapshot = "{}" },
		"event":      func(_ *state, p *product) { must(p.jobs.Get("j1")).events[0].Actor = "x" },
		"artifact":   func(_ *state, p *product) { must(p.jobs.Get("j1")).artifacts[0].URI = "x" },
		"lost event": func(_ *state, p *product) { r := must(p.jobs.Get("j1")); r.events = r.events[1:] },
		"lost job":   func(_ *state, p *product) { p.jobs.Delete("j4") },
		"text": func(_ *state, p *product) {
			hash, text, _ := p.memory.bodies.Min()
			p.memory.bodies.Map.Set(hash, text+"x")
		},
		"answer": func(_ *state, p *product) {
			n, k, _ := p.memory.answers.Min()
			last := len(k.open().answer) - 1
			at := strings.Index(string(k), k.open().answer) + last
			p.memory.answers.Map.Set(n, k[:at]+memo([]byte{k[at] ^ 1})+k[at+1:])
		},
	} {
		m := furnished(t)
		verify(t, m, "%s, before", what)
		p, _ := m.st.products.Get("p")
		flip(m.st, p)
		if err := m.Handle().Verify(always); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: got %v, want %v", what, err, ErrDiverged)
		}
	}

	a, b := furnished(t), furnished(t)
	must(must(b.st.products.Get("p")).jobs.Get("j1")).job.Failures = 7 // would be back at 0 below
	for _, m := range []*Machine{a, b} {
		m.Apply(50, &Entry{Stamp: epoch, Proposals: []Proposal{
			{Caller: Caller{ActorRoot}, Command: &Cancel{ProductID: "p", JobID: "j1"}},
			{Caller: Caller{ActorRoot}, Command: &Requeue{ProductID: "p", JobID: "j1"}},
		}})
	}
	if got := must(must(b.st.products.Get("p")).jobs.Get("j1")).job.Failures; got != 0 {
		t.Fatalf("failures after a requeue: got %d, want 0", got)
	}
	if a.Handle().StateHash() == b.Handle().StateHash() {
		t.Errorf("a document that rotted and was replaced leaves no trace in the hash")
	}
}

// A job whose long texts did not change is summed without a look at them: that is what keeps a patch cheap.
func TestLongTextsAreSummedOnce(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", func(s *fleet.Submission) { s.BodyMd = strings.Repeat("x", 1<<20) })
	c := r.claim()
	r.patch("a", report(c.Job.LeaseEpoch, fleet.Building, ""))
	d := &digester{}
	d.jobOf(r.job("a"))
	if cap(d.b) > 1<<16 {
		t.Errorf("a job with a text of 1 MiB was hashed through a buffer of %d bytes", cap(d.b))
	}
	verify(t, r.m, "after patches")
}
