package fleet

// This file holds each limit of a submission to both of its sides.

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// leaf is a submission that is as good as it is small.
func leaf(change func(s *Submission)) Submission {
	s := Submission{BodyMd: "do it"}
	change(&s)
	return s
}

func of[T any](v T) *T { return &v }

func long(n int) string { return strings.Repeat("x", n) }

func repeat(n int, s string) []string {
	l := make([]string, n)
	for i := range l {
		l[i] = s
	}
	return l
}

func labels(n int) Labels {
	l := make(Labels, n)
	for i := range l {
		l[i] = Label{long(i + 1), "v"}
	}
	return l
}

func TestSubmissionLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *Submission)
		want   string // the field that is refused, empty for none
	}{
		{"body alone", func(s *Submission) {}, ""},
		{"manifest alone", func(s *Submission) { s.BodyMd, s.ManifestSnapshot = "", `{"a":1}` }, ""},
		{"neither", func(s *Submission) { s.BodyMd = "" }, "bodyMd"},
		{"neither, spelled out", func(s *Submission) { s.BodyMd, s.ManifestSnapshot = "", `{ }` }, "bodyMd"},
		{"composite with neither", func(s *Submission) { s.BodyMd, s.Kind = "", Composite }, ""},
		{"composite with deps", func(s *Submission) { s.Kind, s.Deps = Composite, []string{"j"} }, "deps"},
		{"manifest of another type", func(s *Submission) { s.ManifestSnapshot = `[]` }, "manifestSnapshot"},
		{"manifest null", func(s *Submission) { s.ManifestSnapshot = `null` }, "manifestSnapshot"},
		{"body of no UTF-8", func(s *Submission) { s.BodyMd = "\xff" }, "bodyMd"},
		{"kind", func(s *Submission) { s.Kind = "Leaf" }, "kind"},
		{"priority", func(s *Submission) { s.Priority = "urgent" }, "priority"},
		{"depsMode", func(s *Submission) { s.DepsMode = "weak" }, "depsMode"},
		{"depsMode soft", func(s *Submission) { s.DepsMode = Soft }, ""},
		{"longest key", func(s *Submission) { s.IdempotencyKey = long(MaxName) }, ""},
		{"key too long", func(s *Submission) { s.IdempotencyKey = long(MaxName + 1) }, "idempotencyKey"},
		{"key with a control character", func(s *Submission) { s.IdempotencyKey = "a\x7f" }, "idempotencyKey"},
		{"key of no UTF-8", func(s *Submission) { s.IdempotencyKey = "a\xc0" }, "idempotencyKey"},
		{"key beyond ASCII", func(s *Submission) { s.IdempotencyKey = "größe 42 ✓" }, ""},
		{"tracker item", func(s *Submission) { s.TrackerItemID = "a\n" }, "trackerItemId"},
		{"parent", func(s *Submission) { s.ParentID = long(MaxName + 1) }, "parentId"},
		{"engine class", func(s *Submission) { s.EngineClass = "a\tb" }, "engineClass"},
		{"checkpoint", func(s *Submission) { s.Checkpoint = &Checkpoint{WipBase: long(MaxName + 1)} }, "checkpoint.wipBase"},
		{"profile", func(s *Submission) { s.Profile = "coder" }, ""},
		{"profile with a version", func(s *Submission) { s.Profile = "coder@3" }, ""},
		{"profile without a name", func(s *Submission) { s.Profile = "@3" }, "profile"},
		{"profile with no version", func(s *Submission) { s.Profile = "coder@" }, "profile"},
		{"profile with version 0", func(s *Submission) { s.Profile = "coder@0" }, "profile"},
		{"profile with a sign", func(s *Submission) { s.Profile = "coder@+1" }, "profile"},
		{"profile with two versions", func(s *Submission) { s.Profile = "coder@1@2" }, "profile"},
		{"most capabilities", func(s *Submission) { s.Capabilities = repeat(MaxCapabilities, "go") }, ""},
		{"too many capabilities", func(s *Submission) { s.Capabilities = repeat(MaxCapabilities+1, "go") }, "capabilities"},
		{"empty capability", func(s *Submission) { s.Capabilities = []string{"go", ""} }, "capabilities[1]"},
		{"most deps", func(s *Submission) { s.Deps = repeat(MaxDeps, "key:a") }, ""},
		{"too many deps", func(s *Submission) { s.Deps = repeat(MaxDeps+1, "j") }, "deps"},
		{"longest dep by key", func(s *Submission) { s.Deps = []string{"key:" + long(MaxName)} }, ""},
		{"dep by key too long", func(s *Submission) { s.Deps = []string{"key:" + long(MaxName+1)} }, "deps[0]"},
		{"dep by no key", func(s *Submission) { s.Deps = []string{"j", "key:"} }, "deps[1]"},
		{"no money", func(s *Submission) { s.Budget = &Budget{USD: of(USD(0))} }, ""},
		{"most money", func(s *Submission) { s.Budget = &Budget{USD: of(MaxUSD)} }, ""},
		{"too much money", func(s *Submission) { s.Budget = &Budget{USD: of(MaxUSD + 1)} }, "budget.usd"},
		{"negative money", func(s *Submission) { s.Budget = &Budget{USD: of(USD(-1))} }, "budget.usd"},
		{"no tokens", func(s *Submission) { s.Budget = &Budget{Tokens: of(int64(0))} }, ""},
		{"most tokens", func(s *Submission) { s.Budget = &Budget{Tokens: of(int64(MaxCount))} }, ""},
		{"too many tokens", func(s *Submission) { s.Budget = &Budget{Tokens: of(int64(MaxCount + 1))} }, "budget.tokens"},
		{"negative tokens", func(s *Submission) { s.Budget = &Budget{Tokens: of(int64(-1))} }, "budget.tokens"},
		{"shortest wall", func(s *Submission) { s.Budget = &Budget{Wall: of(int64(1))} }, ""},
		{"no wall", func(s *Submission) { s.Budget = &Budget{Wall: of(int64(0))} }, "budget.wall"},
		{"longest wall", func(s *Submission) { s.Budget = &Budget{Wall: of(int64(31_536_000))} }, ""},
		{"wall too long", func(s *Submission) { s.Budget = &Budget{Wall: of(int64(31_536_001))} }, "budget.wall"},
		{"smallest retry", func(s *Submission) { s.Retry = &Retry{MaxLeaseLosses: of(int64(1))} }, ""},
		{"largest retry", func(s *Submission) {
			s.Retry = &Retry{Max: 1000, Backoff: 3600, On: repeat(256, "red"), MaxLeaseLosses: of(int64(1000))}
		}, ""},
		{"negative retries", func(s *Submission) { s.Retry = &Retry{Max: -1} }, "retry.max"},
		{"too many retries", func(s *Submission) { s.Retry = &Retry{Max: 1001} }, "retry.max"},
		{"negative backoff", func(s *Submission) { s.Retry = &Retry{Backoff: -1} }, "retry.backoff"},
		{"backoff too long", func(s *Submission) { s.Retry = &Retry{Backoff: 3601} }, "retry.backoff"},
		{"no losses", func(s *Submission) { s.Retry = &Retry{MaxLeaseLosses: of(int64(0))} }, "retry.maxLeaseLosses"},
		{"too many losses", func(s *Submission) { s.Retry = &Retry{MaxLeaseLosses: of(int64(1001))} }, "retry.maxLeaseLosses"},
		{"empty reason", func(s *Submission) { s.Retry = &Retry{On: []string{""}} }, "retry.on[0]"},
		{"too many reasons", func(s *Submission) { s.Retry = &Retry{On: repeat(257, "red")} }, "retry.on"},
		{"most labels", func(s *Submission) { s.Labels = labels(MaxLabels) }, ""},
		{"too many labels", func(s *Submission) { s.Labels = labels(MaxLabels + 1) }, "labels"},
		{"longest label", func(s *Submission) { s.Labels = Labels{{long(MaxName), long(MaxText)}} }, ""},
		{"label's key too long", func(s *Submission) { s.Labels = Labels{{long(MaxName + 1), ""}} }, "labels." + long(MaxName+1)},
		{"label's value too long", func(s *Submission) { s.Labels = Labels{{"k", long(MaxText + 1)}} }, "labels.k"},
		{"label without a key", func(s *Submission) { s.Labels = Labels{{"", "v"}} }, "labels."},
		{"label given twice", func(s *Submission) { s.Labels = Labels{{"k", "a"}, {"k", "b"}} }, "labels.k"},
		{"not before 1970", func(s *Submission) { s.NotBefore = -1 }, "notBefore"},
	} {
		s := leaf(c.change)
		got := s.Validate("jobs[1].")
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: got %v, want no refusal", c.name, got)
		case c.want != "" && (len(got) != 1 || got[0].Field != "jobs[1]."+c.want || got[0].Detail == ""):
			t.Errorf("%s: got %v, want jobs[1].%s refused", c.name, got, c.want)
		}
	}
}

func TestValidateBatch(t *testing.T) {
	jobs := []Submission{
		leaf(func(s *Submission) { s.IdempotencyKey = "a" }),
		leaf(func(s *Submission) { s.Priority = "x" }),
		leaf(func(s *Submission) { s.IdempotencyKey = "a" }),
	}
	var got []string
	for _, e := range ValidateBatch(jobs) {
		got = append(got, e.Field)
	}
	if want := []string{"jobs[1].priority", "jobs[2].idempotencyKey"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	many := make([]Submission, MaxBatch+1)
	for i := range many {
		many[i].BodyMd = "b"
	}
	if got := ValidateBatch(many[:MaxBatch]); len(got) != 0 {
		t.Errorf("%d jobs: got %v, want no refusal", MaxBatch, got)
	}
	if got := ValidateBatch(many); len(got) != 1 || got[0].Field != "jobs" {
		t.Errorf("%d jobs: got %v, want jobs refused", MaxBatch+1, got)
	}
}

func TestNormalize(t *testing.T) {
	capabilities := []string{"linux", "go", "linux"}
	s := Submission{
		BodyMd:       "b",
		Capabilities: capabilities,
		Checkpoint:   &Checkpoint{},
		Budget:       &Budget{},
		Retry:        &Retry{Max: 1},
		Labels:       Labels{{"z", "1"}, {"a", "2"}},
	}
	s.Normalize()
	want := Submission{
		ManifestSnapshot: "{}",
		BodyMd:           "b",
		Kind:             Leaf,
		Priority:         Medium,
		Capabilities:     []string{"go", "linux"},
		Deps:             []string{},
		DepsMode:         Hard,
		Retry:            &Retry{Max: 1, On: []string{}},
		Labels:           Labels{{"a", "2"}, {"z", "1"}},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if want := []string{"linux", "go", "linux"}; !reflect.DeepEqual(capabilities, want) {
		t.Errorf("the caller's slice: got %q, want %q as it was", capabilities, want)
	}
	again := s
	if again.Normalize(); !reflect.DeepEqual(again, s) {
		t.Errorf("a second time: got %+v, want %+v", again, s)
	}
}

// Whatever the bytes, a submission that decodes is judged without a panic, and one that is accepted keeps its hash and
// its verdict through Normalize and through JSON.
func FuzzSubmission(f *testing.F) {
	f.Add([]byte(`{"bodyMd":"b","capabilities":["go"],"labels":{"k":"v"},"budget":{"usd":1.5},"notBefore":"2026-01-31T09:00:00Z"}`))
	f.Add([]byte(`{"manifestSnapshot":{"b":[1,2.0],"a":{"z":null,"\u0041":"\ud83d\ude00"}},"retry":{"max":1},"deps":["key:a"]}`))
	f.Add([]byte(`{"kind":"composite","profile":"p@1","priority":"low"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Submission
		if json.Unmarshal(b, &s) != nil || len(s.Validate("")) > 0 {
			return
		}
		hash := s.ContentHash()
		s.Normalize()
		if got := s.Validate(""); len(got) > 0 {
			t.Fatalf("refused after Normalize: %v", got)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Submission
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := back.ContentHash(); got != hash {
			t.Fatalf("the hash changed by Normalize or JSON: %s", text)
		}
	})
}
