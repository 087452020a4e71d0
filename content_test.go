package fleet

// This file says which submissions ask for the same.

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
)

func decodeSubmission(t testing.TB, text string) *Submission {
	t.Helper()
	var s Submission
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &s
}

func TestContentHash(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"defaults spelled out", `{"bodyMd":"b"}`, `{"bodyMd":"b","manifestSnapshot":{},"kind":"leaf","priority":"medium","capabilities":[],"deps":[],"depsMode":"hard","labels":{},"budget":{},"checkpoint":{}}`, true},
		{"the key", `{"bodyMd":"b","idempotencyKey":"1"}`, `{"bodyMd":"b","idempotencyKey":"2"}`, true},
		{"order of members", `{"manifestSnapshot":{"b":{"y":1,"x":2},"a":[3]}}`, `{"manifestSnapshot":{"a":[3],"b":{"x":2,"y":1}}}`, true},
		{"order in arrays of objects", `{"manifestSnapshot":{"a":[{"y":1,"x":2},{}]}}`, `{"manifestSnapshot":{"a":[{"x":2,"y":1},{}]}}`, true},
		{"white space", `{"manifestSnapshot":{ "a" : [ 1 , 2 ] }}`, `{"manifestSnapshot":{"a":[1,2]}}`, true},
		{"escapes", `{"manifestSnapshot":{"A\/":"\ud83d\ude00\n"}}`, `{"manifestSnapshot":{"\u0041/":"😀\u000a"}}`, true},
		{"a set", `{"bodyMd":"b","capabilities":["go","linux"]}`, `{"bodyMd":"b","capabilities":["linux","go","go"]}`, true},
		{"labels' order", `{"bodyMd":"b","labels":{"a":"1","b":"2"}}`, `{"bodyMd":"b","labels":{"b":"2","a":"1"}}`, true},
		{"retry's defaults", `{"bodyMd":"b","retry":{}}`, `{"bodyMd":"b","retry":{"max":0,"backoff":0,"on":[],"maxLeaseLosses":5}}`, true},
		{"an instant in two zones", `{"bodyMd":"b","notBefore":"2026-01-31T09:00:00Z"}`, `{"bodyMd":"b","notBefore":"2026-01-31T10:00:00.000+01:00"}`, true},
		{"a retry and none", `{"bodyMd":"b"}`, `{"bodyMd":"b","retry":{}}`, false},
		{"numbers' text", `{"manifestSnapshot":{"a":1}}`, `{"manifestSnapshot":{"a":1.0}}`, false},
		{"digits", `{"manifestSnapshot":{"a":9007199254740993}}`, `{"manifestSnapshot":{"a":9007199254740992}}`, false},
		{"order of an array", `{"manifestSnapshot":{"a":[1,2]}}`, `{"manifestSnapshot":{"a":[2,1]}}`, false},
		{"a number and a string", `{"manifestSnapshot":{"a":1}}`, `{"manifestSnapshot":{"a":"1"}}`, false},
		{"null and nothing", `{"bodyMd":"b","manifestSnapshot":{"a":null}}`, `{"bodyMd":"b","manifestSnapshot":{}}`, false},
		{"names that move a border", `{"manifestSnapshot":{"a":"","b":""}}`, `{"manifestSnapshot":{"a\":\"\",\"b":""}}`, false},
		{"order of deps", `{"bodyMd":"b","deps":["x","y"]}`, `{"bodyMd":"b","deps":["y","x"]}`, false},
		{"no bound and a bound of 0", `{"bodyMd":"b"}`, `{"bodyMd":"b","budget":{"usd":0}}`, false},
	} {
		a, b := decodeSubmission(t, c.a), decodeSubmission(t, c.b)
		if same := a.ContentHash() == b.ContentHash(); same != c.same {
			t.Errorf("%s: got same %t, want %t:\n%s\n%s", c.name, same, c.same, c.a, c.b)
		}
	}
}

// Every submitted field but the key counts.
func TestContentHashCoversEveryField(t *testing.T) {
	plain := decodeSubmission(t, `{"bodyMd":"b"}`).ContentHash()
	for _, field := range []string{
		`"manifestSnapshot":{"a":1}`, `"trackerItemId":"t"`, `"parentId":"p"`, `"kind":"composite"`, `"priority":"high"`,
		`"checkpoint":{"wipBranch":"w"}`, `"checkpoint":{"wipBase":"w"}`, `"checkpoint":{"wipCommit":"w"}`,
		`"capabilities":["go"]`, `"engineClass":"e"`, `"profile":"p"`, `"deps":["j"]`, `"depsMode":"soft"`,
		`"budget":{"usd":1}`, `"budget":{"tokens":1}`, `"budget":{"wall":1}`,
		`"retry":{"max":1}`, `"retry":{"backoff":1}`, `"retry":{"on":["r"]}`, `"retry":{"maxLeaseLosses":1}`,
		`"labels":{"k":"v"}`, `"notBefore":"2026-01-31T09:00:00Z"`,
	} {
		if decodeSubmission(t, `{"bodyMd":"b",`+field+`}`).ContentHash() == plain {
			t.Errorf("%s: got the hash of a submission without it", field)
		}
	}
	if decodeSubmission(t, `{"bodyMd":"c"}`).ContentHash() == plain {
		t.Error("bodyMd: got the hash of another body")
	}
}

// The canonical form is JSON that anybody can write.
func TestContentHashIsOfCanonicalJSON(t *testing.T) {
	s := decodeSubmission(t, `{"priority":"low","bodyMd":"a\"b\n","manifestSnapshot":{"z":1e2,"a":{"c":[true,{}],"b":null}},
		"budget":{"wall":60,"usd":1.50,"tokens":7},"retry":{"on":["red"],"max":2,"backoff":30,"maxLeaseLosses":3},
		"labels":{"team":"api"},"notBefore":"2026-01-31T09:00:00Z","checkpoint":{"wipCommit":"c","wipBranch":"w"},"capabilities":["go"]}`)
	want := `{"bodyMd":"a\"b\u000a","budget":{"tokens":7,"usd":1.5,"wall":60},"capabilities":["go"],` +
		`"checkpoint":{"wipBranch":"w","wipCommit":"c"},"labels":{"team":"api"},` +
		`"manifestSnapshot":{"a":{"b":null,"c":[true,{}]},"z":1e2},"notBefore":"2026-01-31T09:00:00.000Z","priority":"low",` +
		`"retry":{"backoff":30,"max":2,"maxLeaseLosses":3,"on":["red"]}}`
	if s.ContentHash() != sha256.Sum256([]byte(want)) {
		t.Errorf("got another hash than that of %s", want)
	}
}

// A text that is no JSON can't be sent, but must not stop a node.
func TestContentHashOfNonsense(t *testing.T) {
	for _, text := range []string{`{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":[`, `{"a":[1`, `{"a":"\`, `{"a":"\u12`, `{"a":"\ud800"}`, `{"a":"\x"}`, `{}}`, strings.Repeat(`{"a":`, 1e6)} {
		a, b := Submission{ManifestSnapshot: JSON(text)}, Submission{ManifestSnapshot: JSON(text + " ")}
		if a.ContentHash() == b.ContentHash() {
			t.Errorf("%.20q: got one hash for two texts", text)
		}
	}
}

// Canonical form, once reached, stays; and it is the same value.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{`{"b":1,"a":[{"d":"\u0041","c":null}]}`, `"\ud83d\ude00"`, `[ 1e5 , -0.0 ]`, `{"":{"":{}}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c, again canonical
		c.free(JSON(text))
		again.free(JSON(c.buf))
		if string(again.buf) != string(c.buf) {
			t.Fatalf("got %q at first and %q then", c.buf, again.buf)
		}
		if json.Valid([]byte(text)) != json.Valid(c.buf) {
			t.Fatalf("%q became %q", text, c.buf)
		}
	})
}

func sample() *Submission {
	s := &Submission{
		BodyMd:           strings.Repeat("Fix the flaky test in the scheduler.\n", 16),
		ManifestSnapshot: `{"title":"Fix the flaky test","cwd":"./services/api","yolo":true,"steps":["build","test","lint"],"env":{"GOFLAGS":"-count=1","CI":"true"}}`,
		IdempotencyKey:   "fix-flaky-42",
		Capabilities:     []string{"go", "linux"},
		EngineClass:      "codex",
		Priority:         High,
		Deps:             []string{"key:schema-41"},
		Budget:           &Budget{Wall: of(int64(2700))},
		Retry:            &Retry{Max: 2, Backoff: 30, On: []string{"tests_red"}},
		Labels:           Labels{{"team", "api"}},
	}
	s.Normalize()
	return s
}

func BenchmarkContentHash(b *testing.B) {
	s := sample()
	b.ReportAllocs()
	for b.Loop() {
		s.ContentHash()
	}
}

func BenchmarkValidate(b *testing.B) {
	s := sample()
	b.ReportAllocs()
	for b.Loop() {
		s.Validate("")
	}
}
