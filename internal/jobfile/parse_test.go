package jobfile

// This file tests what files mean, and what is said of files that mean nothing.

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lysnrai/fleet"
)

const all = `---
title: Fix the flaky test
key: fix-flaky-42
capabilities: [go, linux]
engine: codex
priority: high
deps: [key:schema-41]
retry: {max: 2, backoff: 30, on: [tests_red]}
budget: {usd: 5}
labels: {team: api, no: no}
timeout: 45m
yolo: yes
cwd: ./services/api
manifest: {anything: goes, country: no, big: 12345678901234567890.5, list: [1, {a: null}]}
---
Body
`

func TestParse(t *testing.T) {
	five, wall := fleet.USD(5e9), int64(2700)
	want := fleet.Submission{
		IdempotencyKey: "fix-flaky-42", Capabilities: []string{"go", "linux"}, EngineClass: "codex", Priority: fleet.High,
		Deps: []string{"key:schema-41"}, Retry: &fleet.Retry{Max: 2, Backoff: 30, On: []string{"tests_red"}},
		Budget: &fleet.Budget{USD: &five, Wall: &wall}, Labels: fleet.LabelsOf(map[string]string{"team": "api", "no": "no"}),
		ManifestSnapshot: `{"title":"Fix the flaky test","yolo":true,"cwd":"./services/api","anything":"goes","country":"no",` +
			`"big":12345678901234567890.5,"list":[1,{"a":null}]}`,
		BodyMd: "Body\n",
	}
	for name, src := range map[string]string{
		"plain": all,
		"CRLF":  strings.ReplaceAll(strings.TrimSuffix(all, "Body\n"), "\n", "\r\n") + "Body\n",
		"BOM":   "\uFEFF" + all,
	} {
		got, err := Parse("a.md", []byte(src))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestHeads(t *testing.T) {
	wall := int64(18000)
	for _, c := range []struct {
		name, path, src string
		want            fleet.Submission
	}{
		{"no head", "a.md", "# Do it\r\n", fleet.Submission{BodyMd: "# Do it\r\n"}},
		{"a body that starts with a fence", "a.md", "---\nkey: k\n---\n---\nx: 1\n---\n", fleet.Submission{IdempotencyKey: "k", BodyMd: "---\nx: 1\n---\n"}},
		{"an empty head", "a.md", "---\n---\nx", fleet.Submission{BodyMd: "x"}},
		{"a table", "a.md", "| engine | cwd | yolo | timeout | capabilities |\n|---|:---|---|---|---|\n| devin | ./a\\|b | true | 5h | go, linux |\n\nBody", fleet.Submission{
			EngineClass: "devin", Budget: &fleet.Budget{Wall: &wall}, Capabilities: []string{"go", "linux"},
			ManifestSnapshot: `{"cwd":"./a|b","yolo":true}`, BodyMd: "\nBody",
		}},
		{"a table with a YAML list and an empty cell", "a.md", "| deps | key |\n|---|---|\n| [key:a, key:b] | |\nB", fleet.Submission{Deps: []string{"key:a", "key:b"}, BodyMd: "B"}},
		{"YAML", "a.job.yaml", "key: k\nbody: |\n  one\n  two\n", fleet.Submission{IdempotencyKey: "k", BodyMd: "one\ntwo\n"}},
		{"its own names", "a.md", "---\nidempotencyKey: k\nbudget: {wall: 18000}\nmanifestSnapshot: {title: t}\n---\n", fleet.Submission{
			IdempotencyKey: "k", Budget: &fleet.Budget{Wall: &wall}, ManifestSnapshot: `{"title":"t"}`,
		}},
	} {
		got, err := Parse(c.path, []byte(c.src))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      []string
	}{
		{"unknown keys, all at once", "---\nkey: a\ncapabilites: [go]\nretry: {maxx: 1}\npriority: hihg\n---\nx", []string{
			`a.md:3:1: unknown key "capabilites" (did you mean "capabilities"?)`,
			`a.md:4:9: unknown key "maxx" (did you mean "max"?)`,
			`a.md:5:11: priority: there is no "hihg" (did you mean "high"?)`,
		}},
		{"both forms", "---\nengine: a\nengineClass: b\nkey: k\nkey: k\n---\nx", []string{
			`a.md:3:1: engineClass is given twice: as engine on line 2`,
			`a.md:5:1: key is given twice: first on line 4`,
		}},
		{"both forms, nested", "---\ntimeout: 1m\nbudget: {wall: 60}\ntitle: t\nmanifest: {title: t}\n---\nx", []string{
			`a.md:3:10: wall is given twice: as timeout on line 2`,
			`a.md:5:12: title is given twice: first on line 4`,
		}},
		{"lock", "---\nkey: k\nlock: common\n---\nx", []string{
			`a.md:3:7: lock needs limits, which this version does not have; until then give the jobs that exclude each other to a factory with one seat`,
		}},
		{"values", "---\nyolo: maybe\ntimeout: 1.5s\ncapabilities: go\nnotBefore: tomorrow\nbudget: {usd: -1, tokens: many}\n---\nx", []string{
			`a.md:2:7: yolo must be true or false`,
			`a.md:3:10: timeout must be whole seconds, or a duration such as 45m or 1h30m`,
			`a.md:4:15: capabilities must be a list such as [a, b]`,
			`a.md:5:12: notBefore: "tomorrow" is not an RFC 3339 time such as "2026-01-31T09:00:00Z"`,
			`a.md:6:15: budget.usd must be a number of dollars from 0 to 1000000000 with at most 9 decimals`,
			`a.md:6:27: budget.tokens must be a whole number`,
		}},
		{"no end", "---\nkey: k\n", []string{`a.md:1:1: the head that starts here has no end: put --- on a line of its own after it`}},
		{"no YAML", "---\nkey: k\n\tx: 1\n---\nx", []string{`a.md:3:1: this is no YAML: found a tab character that violates indentation`}},
		{"no value", "---\nkey:\n---\nx", []string{`a.md:2:1: key has no value; leave the key out if it has none`}},
		{"an alias", "---\nmanifest: {a: &x 1, b: *x}\n---\nx", []string{`a.md:2:24: manifest: anchors and aliases are not read; write the value out`}},
		{"a table of two widths", "| a | b |\n|---|---|\n| 1 |\n", []string{`a.md:3:1: the table has 2 columns, this row has 1`}},
		{"a table's cell", "| engin | key |\n|---|---|\n| x | k |\nx", []string{`a.md:1:3: unknown key "engin" (did you mean "engine"?)`}},
		{"nothing to do", "---\nkey: k\n---\n", []string{`a.md:1:1: bodyMd: a leaf has at least one of bodyMd and manifestSnapshot`}},
	} {
		_, err := Parse("a.md", []byte(c.src))
		var got []string
		if err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// What Validate finds is placed where the field was written.
func TestPlaces(t *testing.T) {
	_, err := Parse("a.md", []byte("---\nengine: x\ntimeout: 0\nretry:\n  max: 5000\ncapabilities: [go, \"a\\tb\"]\n---\nx"))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 3 {
		t.Fatalf("got %v, want 3 problems", err)
	}
	for i, want := range []struct {
		line, column int
		prefix       string
	}{{3, 1, "timeout: "}, {5, 3, "retry.max: "}, {6, 20, "capabilities[1]: "}} {
		p := problems[i]
		if p.Line != want.line || p.Column != want.column || !strings.HasPrefix(p.Detail, want.prefix) {
			t.Errorf("problem %d: got %v, want %d:%d: %s…", i, p, want.line, want.column, want.prefix)
		}
	}
}

func TestHeadLimit(t *testing.T) {
	_, err := Parse("a.md", []byte("---\n#"+strings.Repeat("x", maxHead)+"\n---\nx"))
	if err == nil || !strings.Contains(err.Error(), "at most 65536 are read") {
		t.Errorf("got %v, want a refusal for the size of the head", err)
	}
}
