package fsm

// This file holds snapshots to what a backup must be: complete, the same bytes every time, and refused when damaged.

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

func restored(t fataler, file []byte) *Machine {
	m := New()
	if err := m.Restore(bytes.NewReader(file)); err != nil {
		t.Fatalf("restoring: %v", err)
	}
	return m
}

// A replica restored at every index of a history has the same tables and indexes, and goes on alike.
func TestRestoreAtEveryIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, m := newDraws(t), New()
		for i, e := range d.log(40) {
			replica := restored(t, snapshotOf(t, m))
			if replica.Hash() != m.Hash() {
				t.Fatalf("restored before entry %d, a replica differs at once", i)
			}
			replay(t, m, []*Entry{e}, i)
			replay(t, replica, []*Entry{e}, i)
			if replica.Hash() != m.Hash() || !bytes.Equal(snapshotOf(t, replica), snapshotOf(t, m)) {
				t.Fatalf("restored before entry %d, %T, a replica differs after it", i, e.Proposals[0].Command)
			}
		}
	})
}

// furnished is a machine that has something in every table.
func furnished(t fataler) *Machine {
	m := New()
	caps := fleet.Strings{"go"}
	job := func(s fleet.Submission) fleet.Submission { s.Normalize(); return s }
	long := strings.Repeat("instructions ", 20)
	for i, c := range []Command{
		&Bootstrap{ClusterID: "c"},
		&PutServer{Server: Server{ID: "s", Name: "n"}},
		&CreateToken{ID: "t1", Hash: bytes.Repeat([]byte("1"), 32), Request: fleet.TokenRequest{Roles: []fleet.Role{fleet.RoleAdmin}, ExpiresAt: epoch.Add(900)}},
		&CreateToken{ID: "t2", Hash: bytes.Repeat([]byte("2"), 32)},
		&DeleteToken{ID: "t2"},
		&PutProfile{ProductID: "p", Name: "prof", Snapshot: `{"a":1}`},
		&Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f", Capabilities: &caps}},
		&Submit{ProductID: "p", JobID: "group", Submission: job(fleet.Submission{Kind: fleet.Composite})},
		&Submit{ProductID: "p", JobID: "j1", Submission: job(fleet.Submission{BodyMd: long, Capabilities: []string{"go"}, ParentID: "group", Profile: "prof"})},
		&Submit{ProductID: "p", JobID: "j2", Submission: job(fleet.Submission{BodyMd: long, Deps: []string{"j1"}})},
		&Submit{ProductID: "p", JobID: "j3", Submission: job(fleet.Submission{BodyMd: "b", NotBefore: epoch.Add(50)})},
		&Submit{ProductID: "p", JobID: "j4", Submission: job(fleet.Submission{BodyMd: "b"})},
		&Cancel{ProductID: "p", JobID: "j4"},
		&Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 60},
		&AddArtifact{ProductID: "p", JobID: "j1", Request: fleet.ArtifactRequest{Name: "a", Kind: "log", URI: "u"}},
	} {
		p := Proposal{Caller: Caller{ActorRoot}, Key: fmt.Sprint("k", i), Request: "r", Command: c}
		if c.role() == "" {
			p.Caller.Actor, p.Key = ActorFleet, ""
		}
		answers, _ := m.Apply(uint64(i+1), &Entry{Stamp: epoch, Proposals: []Proposal{p}})
		if answers[0].Err != nil {
			t.Fatalf("%T: %v", c, answers[0].Err)
		}
	}
	return m
}

func TestSnapshotRefusesDamage(t *testing.T) {
	file := snapshotOf(t, furnished(t))
	refused := func(what string, b []byte) {
		t.Helper()
		m := furnished(t)
		before := m.Hash()
		if err := m.Restore(bytes.NewReader(b)); !errors.Is(err, fleet.InvalidSnapshot) {
			t.Errorf("%s: got %v, want %v", what, err, fleet.InvalidSnapshot)
		} else if m.Hash() != before {
			t.Errorf("%s: the state changed", what)
		}
	}
	reject := func(what string, b []byte) {
		t.Helper()
		if _, err := readSnapshot(bytes.NewReader(b), inTurn); !errors.Is(err, fleet.InvalidSnapshot) {
			t.Fatalf("%s: got %v, want %v", what, err, fleet.InvalidSnapshot)
		}
	}
	for i := range file {
		reject(fmt.Sprintf("cut to %d bytes", i), file[:i])
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		reject(fmt.Sprintf("bit %d of byte %d flipped", i%8, i), bad)
	}
	newer := bytes.Clone(file)
	newer[len(snapshotMagic)] = MaxLevel + 1
	refused("a newer format", newer)
	refused("a byte too many", append(bytes.Clone(file), 0))
	refused("nothing", nil)
	refused("an unknown record", withRecord(file, 200, nil))
	refused("a record that promises too much", append(bytes.Clone(file[:len(snapshotMagic)+1]), byte(recordBody), 0xff, 0xff, 0xff, 0x7f))
	refused("a record of a job without a job", withRecord(file, recordRun, nil))
}

// withRecord is a stream with correct checksums that has only this record.
func withRecord(file []byte, kind recordKind, payload []byte) []byte {
	b := bytes.Clone(file[:len(snapshotMagic)+1])
	seal := func(kind recordKind, payload []byte) {
		start := len(b)
		b = append(binary.AppendUvarint(append(b, byte(kind)), uint64(len(payload))), payload...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	}
	seal(kind, payload)
	sum := sha256.Sum256(b)
	seal(recordEnd, append([]byte{1}, sum[:]...))
	return b
}

// Records dropped, swapped or doubled have good checksums of their own; the end tells.
func TestSnapshotRefusesMissingRecords(t *testing.T) {
	file := snapshotOf(t, furnished(t))
	start := len(snapshotMagic) + 1
	n, used := binary.Uvarint(file[start+1:])
	end := start + 1 + used + int(n) + 4
	for what, b := range map[string][]byte{
		"the first record dropped": append(bytes.Clone(file[:start]), file[end:]...),
		"the first record twice":   append(bytes.Clone(file[:end]), file[start:]...),
	} {
		if _, err := readSnapshot(bytes.NewReader(b), inTurn); !errors.Is(err, fleet.InvalidSnapshot) {
			t.Errorf("%s: got %v, want %v", what, err, fleet.InvalidSnapshot)
		}
	}
}

// A handle keeps the state as it was, whatever is applied after it.
func TestHandleIsFrozen(t *testing.T) {
	m := furnished(t)
	want := snapshotOf(t, m)
	h := m.Handle()
	var got bytes.Buffer
	done := make(chan error)
	go func() { // while entries are applied
		n, err := h.WriteTo(&got)
		if err == nil && n != int64(got.Len()) {
			err = fmt.Errorf("WriteTo counts %d bytes, it wrote %d", n, got.Len())
		}
		done <- err
	}()
	sub := fleet.Submission{BodyMd: "later"}
	sub.Normalize()
	for i := range 100 {
		m.Apply(uint64(100+i), &Entry{Stamp: epoch.Add(int64(i)), Proposals: []Proposal{
			{Caller: Caller{ActorRoot}, Key: fmt.Sprint("later", i), Request: "r", Command: &Submit{ProductID: "p", JobID: fmt.Sprint("later", i), Submission: sub}},
			{Caller: Caller{ActorFleet}, Command: &Reap{}},
		}})
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("a handle changed with what was applied after it")
	}
}

// The hash looks at indexes, not only at records.
func TestHashSeesIndexes(t *testing.T) {
	for name, spoil := range map[string]func(p *product){
		"queue":      func(p *product) { p.queue.Set(queued{signature: "x", job: "j9"}) },
		"signatures": func(p *product) { p.signatures.Set("x", &signature{}) },
		"bySeq":      func(p *product) { p.bySeq.Set(99, "j9") },
		"byKey":      func(p *product) { p.byKey.Set("x", "j9") },
		"stages":     func(p *product) { p.stages[3].Set(99, "j9") },
		"parked":     func(p *product) { p.parked.Set(99, "j9") },
		"children":   func(p *product) { p.children.Set(edge{"x", 1, "y"}) },
		"dependents": func(p *product) { p.dependents.Set(edge{"x", 1, "y"}) },
		"held":       func(p *product) { p.held.Set(edge{"x", 1, "y"}) },
		"feed":       func(p *product) { p.feed.Delete(1) },
		"memory":     func(p *product) { p.memory.dir.byKey["x"] = 99 },
	} {
		m := furnished(t)
		before, p := m.Hash(), m.st.writable("p")
		if spoil(p); m.Hash() == before {
			t.Errorf("%s: the hash does not see it", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(snapshotOf(f, furnished(f)))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := readSnapshot(bytes.NewReader(b), inTurn); err == nil {
			st.hash()
		} else if !errors.Is(err, fleet.InvalidSnapshot) {
			t.Errorf("got %v, want %v", err, fleet.InvalidSnapshot)
		}
	})
}
