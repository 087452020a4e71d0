package fsm

// This file holds the restoring of a backup to what it must never do: turn back what fences, or what readers have seen.

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

// raised is a backup as a cluster with this machine restores it.
func raised(t fataler, m *Machine, file []byte, more uint64, now fleet.Time) []byte {
	b, err := ReadBackup(bytes.NewReader(file))
	if err != nil {
		t.Fatalf("verifying a backup: %v", err)
	}
	r, err := m.Raise(b, more, now)
	if err != nil {
		t.Fatalf("raising: %v", err)
	}
	return append(r.Front(), file...)
}

func bring(t fataler, m *Machine, stream []byte) {
	if err := m.Restore(bytes.NewReader(stream)); err != nil {
		t.Fatalf("restoring: %v", err)
	}
}

// Whatever happened after a backup, and whatever happens after it is restored: no epoch and no version falls, who held a
// job is fenced for ever, feeds grow strictly, and every replica comes to the same state.
func TestRestoredBackupTurnsNothingBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newDraws(t).log(60)
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		end := rapid.IntRange(cut, len(log)).Draw(t, "end")
		m := replay(t, New(), log[:cut], 0)
		file := snapshotOf(t, m)
		replay(t, m, log[cut:end], cut)
		epochs, versions := map[string]uint64{}, map[string]versioned{}
		check(t, m, epochs)
		checkVersions(t, m, versions, nil)
		before := m.Handle().st
		zombies := holders(m)
		next := nextEvents(m)

		stream := raised(t, m, file, 0, m.Now())
		replica := replay(t, New(), log, 0)
		bring(t, m, stream)
		bring(t, replica, stream)
		if m.Hash() != replica.Hash() {
			t.Fatalf("two replicas that were given one stream differ")
		}
		if again := restored(t, snapshotOf(t, m)); again.Hash() != m.Hash() {
			t.Fatalf("a snapshot of what was restored says something else")
		}
		for key := range versions { // a job's id comes again only in this test
			kind, id, _ := strings.Cut(key, " ")
			if _, there := m.st.record("p", strings.Split(id, "-")[0]); !there && kind != "factory" {
				delete(versions, key)
				delete(epochs, id)
				delete(zombies, id)
			}
		}
		check(t, m, epochs)
		checkVersions(t, m, versions, nil)
		if n := len(holders(m)); n != 0 {
			t.Fatalf("%d leases are held after a restore", n)
		}
		m.st.products.Scan(func(id string, p *product) bool {
			if p.nextEvent < next[id]+raiseFeeds {
				t.Fatalf("the feed of %s goes on at %d, it was at %d", id, p.nextEvent, next[id])
			}
			delete(next, id)
			return true
		})
		if len(next) > 0 {
			t.Fatalf("these feeds begin anew: %v", next)
		}
		if m.st.clusterID != before.clusterID || m.st.servers.Len() != before.servers.Len() {
			t.Fatalf("the cluster did not keep what is about itself")
		}
		before.revoked.Scan(func(id string, _ revocation) bool {
			if _, valid := m.st.tokens.Get(id); valid {
				t.Fatalf("token %s was revoked, and is valid again", id)
			}
			return true
		})
		for i, e := range log[end:] {
			answers, _ := m.Apply(uint64(end+i+1), e)
			for job, epoch := range zombies {
				a, _ := m.Apply(uint64(end+i+1), &Entry{Proposals: []Proposal{{Caller: Caller{ActorRoot}, Command: &Renew{ProductID: "p", JobID: job, LeaseEpoch: epoch}}}})
				if a[0].Err == nil {
					t.Fatalf("who held %s at epoch %d before the restore holds it again", job, epoch)
				}
			}
			check(t, m, epochs)
			checkVersions(t, m, versions, answers)
		}
	})
}

// holders are the jobs of product p that somebody holds, with their epochs.
func holders(m *Machine) map[string]uint64 {
	held := map[string]uint64{}
	if p, ok := m.st.products.Get("p"); ok {
		p.held.Scan(func(e edge) bool { held[e.to] = must(p.jobs.Get(e.to)).job.LeaseEpoch; return true })
	}
	return held
}

func nextEvents(m *Machine) map[string]uint64 {
	next := map[string]uint64{}
	m.st.products.Scan(func(id string, p *product) bool { next[id] = p.nextEvent; return true })
	return next
}

// The story of a zombie: epoch 1 was saved, epochs 2 and 3 were given out, then the backup came back.
func TestRestoreFencesBothGenerations(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", func(s *fleet.Submission) { s.Checkpoint = &fleet.Checkpoint{WipCommit: "c0ffee"} })
	r.claim()
	r.patch("a", report(1, fleet.Building, ""))
	file := snapshotOf(t, r.m)
	r.now += 100e9
	must1[*Reaped](r, &Reap{})
	r.heartbeat("f1", 1)
	r.claim()
	saved := restored(t, file).st
	want, lease := must(must(saved.products.Get("p")).jobs.Get("a")), saved.now
	old := r.m.Now()

	stream := raised(t, r.m, file, 0, r.now)
	bring(t, r.m, stream)
	j := r.job("a")
	if j.Stage != fleet.Queued || j.LeaseEpoch != 1_000_001 || j.LeaseLosses != 0 || j.Checkpoint == nil || j.Version != want.job.Version+1_000_000 {
		t.Errorf("after the restore: got %+v", j)
	}
	rec, _ := r.m.st.record("p", "a")
	if l := rec.lease; l.Status != fleet.LeaseExpired || l.LeaseEpoch != 1_000_001 || l.Version != want.lease.Version+1_000_000 || l.HolderFactoryID != "" {
		t.Errorf("lease after the restore: got %+v", l)
	}
	if run := rec.runs()[0]; run.Outcome != fleet.OutcomeLeaseExpired || run.EndedAt != lease || run.Version != want.runs()[0].Version+1_000_000 {
		t.Errorf("run after the restore: got %+v", run)
	}
	last := rec.events[len(rec.events)-1]
	if last.Type != fleet.EventLeaseExpired || last.Index < raiseFeeds || last.Actor != ActorFleet {
		t.Errorf("last event: got %+v", last)
	}
	if now, since := r.m.Now(), r.m.LeaderSince(); now != old || since != old {
		t.Errorf("time: got %s, leader since %s, want %s", now, since, old)
	}
	c := r.claim()
	if c.Job == nil || c.Job.LeaseEpoch != 1_000_002 || c.Run.ID != "a-2" {
		t.Fatalf("claim after the restore: got %+v", c)
	}
	for _, zombie := range []uint64{1, 2, 3, 1_000_001} {
		if err := r.refused(&Renew{ProductID: "p", JobID: "a", LeaseEpoch: zombie}, fleet.StaleEpoch); err.CurrentEpoch != 1_000_002 {
			t.Errorf("epoch %d: it is told %d, want 1000002", zombie, err.CurrentEpoch)
		}
	}
	r.patch("a", report(1_000_002, fleet.Shipped, ""))
}

// A time that ran ahead ends with a restore.
func TestRestoreSetsTimeBack(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	file := snapshotOf(t, r.m)
	bring(t, r.m, raised(t, r.m, file, 0, start-3600e9))
	if got := r.m.Now(); got != start-3600e9 {
		t.Errorf("now: got %s, want %s", got, start-3600e9)
	}
}

// Generations add up so that no two of them share epochs, whichever cluster a file came from.
func TestGenerations(t *testing.T) {
	r := newReplica(t)
	r.heartbeat("f1", 1)
	r.submit("a", nil)
	r.claim()
	file := snapshotOf(t, r.m)
	restore := func(m *Machine, file []byte, more, generation, epoch uint64) []byte {
		t.Helper()
		bring(t, m, raised(t, m, file, more, start))
		rec, _ := m.st.record("p", "a")
		if m.st.generation != generation || rec.job.LeaseEpoch != epoch {
			t.Errorf("got generation %d and epoch %d, want %d and %d", m.st.generation, rec.job.LeaseEpoch, generation, epoch)
		}
		return snapshotOf(t, m)
	}
	first, second := New(), New()
	fromFirst := restore(first, file, 0, 1, 1_000_001)
	restore(second, file, 1, 2, 2_000_001)
	restore(second, fromFirst, 0, 3, 3_000_001)
	restore(first, file, 0, 2, 2_000_001)
	restore(first, file, 0, 3, 3_000_001)

	b, err := ReadBackup(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []uint64{maxGeneration, 1<<64 - 1} {
		if _, err := first.Raise(b, more, start); !errors.Is(err, fleet.Invalid) {
			t.Errorf("raise by %d: got %v, want %s", more, err, fleet.Invalid)
		}
	}
}

// The cluster keeps what is about itself, and all else is the backup's.
func TestRestoreKeepsWhatIsTheClusters(t *testing.T) {
	own := newReplica(t)
	must1[*Done](own, &Bootstrap{ClusterID: "own"})
	must1[*Done](own, &PutServer{Server: Server{ID: "s1", Name: "n1"}})
	must1[*Done](own, &RemoveServer{ID: "s0"})
	for _, id := range []string{"t1", "gone"} {
		must1[*fleet.Token](own, &CreateToken{ID: id, Hash: bytes.Repeat([]byte(id[:1]), 32), Request: fleet.TokenRequest{Roles: []fleet.Role{fleet.RoleAdmin}}})
	}
	must1[*fleet.SubmitResult](own, &Submit{ProductID: "mine", JobID: "m", Submission: submission(nil)})
	must1[*Done](own, &DeleteToken{ID: "gone"})
	feed := nextEvents(own.m)["mine"]

	theirs := newReplica(t)
	must1[*Done](theirs, &Bootstrap{ClusterID: "theirs"})
	must1[*Done](theirs, &PutServer{Server: Server{ID: "x", Name: "x"}})
	for i, id := range []string{"gone", "t9"} {
		must1[*fleet.Token](theirs, &CreateToken{ID: id, Hash: bytes.Repeat([]byte{byte(i)}, 32), Request: fleet.TokenRequest{Roles: []fleet.Role{fleet.RoleAdmin}, ExpiresAt: start.Add(900)}})
	}
	theirs.submit("a", nil)
	file := snapshotOf(t, theirs.m)
	b, err := ReadBackup(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	r, err := own.m.Raise(b, 0, start)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Tokens(b); len(got) != 1 || got[0].ID != "t9" {
		t.Errorf("tokens that came: got %v, want t9", got)
	}
	bring(t, own.m, append(r.Front(), file...))
	st := own.m.st
	var servers []string
	st.servers.Scan(func(id string, s *Server) bool { servers = append(servers, fmt.Sprint(id, s.Removed)); return true })
	if got := strings.Join(servers, " "); st.clusterID != "own" || got != "s0true s1false" {
		t.Errorf("got cluster %s with servers %s", st.clusterID, got)
	}
	if st.tokens.Len() != 1 || st.hashes.Len() != 1 || st.deadlines.Len() != 1 {
		t.Errorf("got %d tokens, %d hashes, %d deadlines, want t9's", st.tokens.Len(), st.hashes.Len(), st.deadlines.Len())
	}
	if _, ok := st.record("mine", "m"); ok {
		t.Error("a job that is not in the backup is still there")
	}
	if got := nextEvents(own.m)["mine"]; got != feed+raiseFeeds {
		t.Errorf("the feed of a product that the backup lacks goes on at %d, want %d", got, feed+raiseFeeds)
	}
	if st.index < own.index {
		t.Errorf("the index fell to %d, it was %d", st.index, own.index)
	}
}

// What is in front of a backup is as well guarded as the backup, and a backup never brings it along.
func TestRaisedStreamRefusesDamage(t *testing.T) {
	m := furnished(t)
	file := snapshotOf(t, m)
	stream := raised(t, m, file, 0, epoch)
	if !IsRaised(stream[:RaisedHead]) || IsRaised(file[:RaisedHead]) {
		t.Error("a raised stream can't be told from a backup by its head")
	}
	for i := range len(stream) - len(file) + len(snapshotMagic) + 2 {
		bad := bytes.Clone(stream)
		bad[i] ^= 1 << (i % 8)
		for what, b := range map[string][]byte{"cut": stream[:i], "flipped": bad} {
			if _, err := readSnapshot(bytes.NewReader(b), inTurn); !errors.Is(err, fleet.InvalidSnapshot) {
				t.Fatalf("%s at byte %d: got %v, want %v", what, i, err, fleet.InvalidSnapshot)
			}
		}
	}
	twice := append(bytes.Clone(stream[:len(stream)-len(file)]), stream...)
	for what, b := range map[string][]byte{"raised already": stream, "raised twice": twice, "nothing": nil} {
		if _, err := ReadBackup(bytes.NewReader(b)); !errors.Is(err, fleet.InvalidSnapshot) {
			t.Errorf("%s: got %v, want %v", what, err, fleet.InvalidSnapshot)
		}
	}
}

// A snapshot from before there were generations is of generation 0.
func TestSnapshotWithoutGeneration(t *testing.T) {
	meta := appendText(appendTime(appendTime([]byte{7}, epoch), 0), "c")
	if got := restored(t, withRecord(snapshotOf(t, New()), recordMeta, meta)); got.st.generation != 0 || got.st.clusterID != "c" || got.Index() != 7 {
		t.Errorf("got %+v", got.st)
	}
}
