package fsm

// This file tests that what is encoded is read back as it was, and that nothing else is ever accepted or costs much.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

func TestEntriesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDraws(t)
		e := d.entry()
		copy(e.Group[:], "0123456789abcdef")
		b, err := AppendEntry(nil, e)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		got, err := DecodeEntry(b)
		if err != nil {
			t.Fatalf("decoding: %v", err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Fatalf("got %+v, want %+v", got, e)
		}
	})
}

// Every command and every result has a number, and comes back under it.
func TestNumbersAreUnique(t *testing.T) {
	seen := map[uint16]bool{}
	for _, row := range commands {
		b, err := AppendProposal(nil, &Proposal{Command: row.new()})
		if err != nil {
			t.Fatal(err)
		}
		p, rest, err := DecodeProposal(append(b, "rest"...))
		if err != nil || string(rest) != "rest" || reflect.TypeOf(p.Command) != reflect.TypeOf(row.new()) {
			t.Errorf("command %d: got %T, %q, %v", row.number, p, rest, err)
		}
		if seen[row.number] {
			t.Errorf("command number %d is used twice", row.number)
		}
		seen[row.number] = true
	}
	clear(seen)
	for _, row := range results {
		b, err := AppendAnswer(nil, &Answer{Result: row.new(), Index: 7, Replayed: true})
		if err != nil {
			t.Fatal(err)
		}
		a, rest, err := DecodeAnswer(append(b, "rest"...))
		if err != nil || string(rest) != "rest" || a.Index != 7 || !a.Replayed || reflect.TypeOf(a.Result) != reflect.TypeOf(row.new()) {
			t.Errorf("result %d: got %+v, %q, %v", row.number, a, rest, err)
		}
		if seen[row.number] {
			t.Errorf("result number %d is used twice", row.number)
		}
		seen[row.number] = true
	}
}

func TestRefusalsComeBack(t *testing.T) {
	want := Answer{Index: 3, Err: &fleet.Error{
		Code: fleet.DependencyCycle, Detail: "d", Fields: []fleet.FieldError{{Field: "f", Detail: "g"}},
		Cycle: []string{"a", "b", "a"}, CurrentEpoch: 9, RetryAfterSeconds: 60,
	}}
	b, err := AppendAnswer(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	got, rest, err := DecodeAnswer(b)
	if err != nil || len(rest) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %q, %v, want %+v", got, rest, err, want)
	}
}

func sampleEntry(t testing.TB) []byte {
	s := fleet.Submission{BodyMd: "b", Capabilities: []string{"go"}}
	s.Normalize()
	b, err := AppendEntry(nil, &Entry{Stamp: epoch, Proposals: []Proposal{
		{Caller: Caller{ActorRoot}, Key: "k", Request: "r", Command: &SubmitBatch{ProductID: "p", JobIDs: []string{"j"}, Submissions: []fleet.Submission{s}}},
		{Caller: Caller{ActorFleet}, Command: &Reap{Limit: 9}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A newer format or an unknown command stops the node; damage is told from both.
func TestDecodeTellsNewerFromDamaged(t *testing.T) {
	good := sampleEntry(t)
	newer := bytes.Clone(good)
	newer[0] = MaxLevel + 1
	unknown := append([]byte{MaxLevel}, make([]byte, 16)...)
	unknown = append(unknown, 0, 1, MaxLevel, 0, 0, 0)
	unknown = binary.AppendUvarint(unknown, 9999)
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"a newer format", newer, ErrFormat},
		{"an unknown command", unknown, ErrFormat},
		{"nothing", nil, ErrCorrupt},
		{"format 0", []byte{0}, ErrCorrupt},
		{"a byte too many", append(bytes.Clone(good), 0), ErrCorrupt},
	} {
		if _, err := DecodeEntry(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	for i := range good {
		if _, err := DecodeEntry(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: got %v, want %v", i, err, ErrCorrupt)
		}
	}
}

// A header that promises much allocates nothing for it.
func TestDecodeBoundsAllocation(t *testing.T) {
	promise := []byte{MaxLevel, 0, 0, 0, 2} // a SubmitBatch
	doc := []byte{0x81, 0xab}
	doc = append(doc, "Submissions"...)
	doc = append(doc, 0xdd, 0x7f, 0xff, 0xff, 0xff) // an array of 2³¹-1
	for range 50_000 {
		doc = append(doc, 0x80)
	}
	b := append(binary.AppendUvarint(promise, uint64(len(doc))), doc...)
	few := bytes.Clone(b)
	i := bytes.IndexByte(few, 0xdd)
	binary.BigEndian.PutUint32(few[i+1:], 50_000) // as many as there are bytes
	for name, b := range map[string][]byte{"more than there is": b, "the least of objects": few} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := DecodeProposal(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want %v", name, err, ErrCorrupt)
		}
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(16*len(b)); got > most {
			t.Errorf("%s: got %d bytes allocated for %d, want at most %d", name, got, len(b), most)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(sampleEntry(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want %v or %v", err, ErrFormat, ErrCorrupt)
			}
			return
		}
		first, err := AppendEntry(nil, e)
		if err != nil {
			t.Fatalf("encoding what was decoded: %v", err)
		}
		again, err := DecodeEntry(first)
		if err != nil {
			t.Fatalf("decoding it again: %v", err)
		}
		// Bytes, not values: a load may be NaN.
		if second, err := AppendEntry(nil, again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("got %x, %v, want %x", second, err, first)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range []Answer{
		{Result: &fleet.Claim{Job: &fleet.Job{ID: "j"}, Lease: &fleet.Lease{}, Run: &fleet.Run{}}, Index: 1},
		{Err: fleet.InvalidField("f", "d"), Replayed: true},
	} {
		b, err := AppendAnswer(nil, &a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, rest, err := DecodeAnswer(b)
		if err != nil {
			return
		}
		if len(rest) > len(b) {
			t.Errorf("got %d bytes left of %d", len(rest), len(b))
		}
		if _, err := AppendAnswer(nil, &a); err != nil {
			t.Errorf("encoding what was decoded: %v", err)
		}
	})
}

// Whatever bytes are an entry can be applied, and mean the same to two replicas.
func FuzzApply(f *testing.F) {
	f.Add(sampleEntry(f))
	logs := rapid.Custom(func(t *rapid.T) []*Entry { return newDraws(t).log(20) })
	for seed := range 20 {
		all := &Entry{Stamp: epoch.Add(7)}
		for _, e := range logs.Example(seed) {
			all.Proposals = append(all.Proposals, e.Proposals...)
		}
		b, err := AppendEntry(nil, all)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	file := snapshotOf(f, furnished(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		var hashes [2][32]byte
		for i := range hashes {
			e, err := DecodeEntry(b)
			if err != nil {
				return
			}
			m := restored(t, file)
			answers, _ := m.Apply(100, e)
			for _, a := range answers {
				if _, err := AppendAnswer(nil, &a); err != nil {
					t.Errorf("encoding an answer: %v", err)
				}
			}
			m.Apply(101, &Entry{Stamp: e.Stamp.Add(7 * 24 * 3601), Proposals: []Proposal{{Caller: Caller{ActorFleet}, Command: &Reap{RetentionSeconds: 1}}}})
			hashes[i] = restored(t, snapshotOf(t, m)).Hash()
			if hashes[i] != m.Hash() {
				t.Errorf("restored, a replica differs")
			}
		}
		if hashes[0] != hashes[1] {
			t.Errorf("two replicas of one entry differ")
		}
	})
}
