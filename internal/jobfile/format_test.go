package jobfile

// This file tests that what was written as a file is read back as the same submission.

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lysnrai/fleet"
)

func TestFormat(t *testing.T) {
	s, err := Parse("a.md", []byte(all))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Format(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `---
title: Fix the flaky test
cwd: ./services/api
yolo: true
key: fix-flaky-42
priority: high
capabilities: [go, linux]
engine: codex
deps: ['key:schema-41']
budget: {usd: 5, wall: 2700}
retry: {max: 2, backoff: 30, on: [tests_red]}
labels: {no: no, team: api}
manifest:
  anything: goes
  country: no
  big: 12345678901234567890.5
  list:
    - 1
    - a: null
---
Body
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Whatever may be submitted comes back from its file as the same content.
func TestFormatRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anySubmission().Draw(t, "submission")
		if len(want.Validate("")) > 0 {
			t.Skip("not a legal submission")
		}
		src, err := Format(want)
		if err != nil {
			if strings.Contains(err.Error(), "the head would have") {
				t.Skip("too long for a head")
			}
			t.Fatal(err)
		}
		got, err := Parse("a.md", src)
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		want.Normalize()
		got.Normalize()
		if !got.ManifestSnapshot.Equal(want.ManifestSnapshot) {
			t.Fatalf("got the manifest %s, want %s\n%s", got.ManifestSnapshot, want.ManifestSnapshot, src)
		}
		got.ManifestSnapshot = want.ManifestSnapshot
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got)\n%s\n%s", diff, src)
		}
	})
}

// awkward is text that YAML reads as something else unless it is written with care.
var awkward = rapid.OneOf(
	rapid.SampledFrom([]string{"", "no", "~", "null", "---", "a: b", "# x", "2026-01-31", "0x10", "1e3", "&x", "*x", "!t", " x ", "a\nb\n", "\ta", "'", `"`, "|", "é", "\u2028", "\uFEFF", "\u0085", "\x7f", "🙂"}),
	rapid.String(),
)

func anySubmission() *rapid.Generator[fleet.Submission] {
	return rapid.Custom(func(t *rapid.T) fleet.Submission {
		name := rapid.SampledFrom([]string{"", "a", "key:b", "no", "1.20", "x y", "null"})
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "key:b", "no", "1.20", "x, y"}), 0, 3)
		s := fleet.Submission{
			BodyMd: awkward.Draw(t, "body"), IdempotencyKey: name.Draw(t, "key"), TrackerItemID: name.Draw(t, "item"),
			ParentID: name.Draw(t, "parent"), Kind: rapid.SampledFrom([]fleet.Kind{"", fleet.Leaf, fleet.Composite}).Draw(t, "kind"),
			Priority: rapid.SampledFrom(append(fleet.Priorities[:], "")).Draw(t, "priority"), Capabilities: names.Draw(t, "capabilities"),
			EngineClass: name.Draw(t, "engine"), Profile: name.Draw(t, "profile"), Deps: names.Draw(t, "deps"),
			DepsMode:  rapid.SampledFrom([]fleet.DepsMode{"", fleet.Hard, fleet.Soft}).Draw(t, "mode"),
			NotBefore: fleet.Time(rapid.Int64Range(0, 4e18).Draw(t, "not before")),
		}
		if rapid.Bool().Draw(t, "manifest?") {
			b, err := json.Marshal(rapid.MapOfN(rapid.OneOf(awkward, rapid.SampledFrom([]string{"title", "cwd", "yolo"})), anyValue(2), 0, 4).Draw(t, "manifest"))
			if err != nil {
				t.Fatal(err)
			}
			s.ManifestSnapshot = fleet.JSON(b)
		}
		if rapid.Bool().Draw(t, "labels?") {
			s.Labels = fleet.LabelsOf(rapid.MapOfN(name, name, 0, 3).Draw(t, "labels"))
		}
		if rapid.Bool().Draw(t, "checkpoint?") {
			s.Checkpoint = &fleet.Checkpoint{WipBranch: name.Draw(t, "branch"), WipBase: name.Draw(t, "base"), WipCommit: name.Draw(t, "commit")}
		}
		if rapid.Bool().Draw(t, "budget?") {
			usd, tokens, wall := fleet.USD(rapid.Int64Range(0, 1e12).Draw(t, "usd")), rapid.Int64Range(0, 1<<50).Draw(t, "tokens"), rapid.Int64Range(1, 9999).Draw(t, "wall")
			s.Budget = &fleet.Budget{USD: &usd, Tokens: &tokens, Wall: &wall}
		}
		if rapid.Bool().Draw(t, "retry?") {
			losses := rapid.Int64Range(1, 9).Draw(t, "losses")
			s.Retry = &fleet.Retry{Max: rapid.Int64Range(0, 9).Draw(t, "max"), On: names.Draw(t, "on"), MaxLeaseLosses: &losses}
		}
		return s
	})
}

func anyValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 5
		if depth == 0 {
			kinds = 3
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return awkward.Draw(t, "text")
		case 1:
			return rapid.SampledFrom([]any{nil, true, false}).Draw(t, "word")
		case 2:
			return json.Number(rapid.SampledFrom([]string{"0", "-0", "1e400", "0.10", "12345678901234567890123", "-1.5E-7", "1E5"}).Draw(t, "number"))
		case 3:
			return rapid.SliceOfN(anyValue(depth-1), 0, 3).Draw(t, "list")
		}
		return rapid.MapOfN(awkward, anyValue(depth-1), 0, 3).Draw(t, "object")
	})
}
