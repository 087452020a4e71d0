package rpc

// This file sends bodies that must be refused, and some that must survive as they are.

import (
	"errors"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

func TestDecodeRefuses(t *testing.T) {
	deep := func(n int) string {
		return `{"jobs":[{"manifestSnapshot":` + strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) + `}]}`
	}
	for _, c := range []struct {
		name, body string
		code       fleet.Code
		want       string // the field of invalid, or a part of invalid_json's detail
	}{
		{"empty", "", fleet.InvalidJSON, "offset 0"},
		{"white space", " \n", fleet.InvalidJSON, "offset 0"},
		{"null", "null", fleet.InvalidJSON, "JSON object"},
		{"array", "[]", fleet.InvalidJSON, "JSON object"},
		{"string", `"x"`, fleet.InvalidJSON, "JSON object"},
		{"cut short", `{"jobs":[`, fleet.InvalidJSON, "offset 9"},
		{"trailing", `{"jobs":[]} x`, fleet.InvalidJSON, "offset 12"},
		{"two documents", `{}{}`, fleet.InvalidJSON, "offset 2"},
		{"byte order mark", "\ufeff{}", fleet.InvalidJSON, "offset 0"},
		{"NaN", `{"jobs":NaN}`, fleet.InvalidJSON, "offset 8"},
		{"single quotes", `{'jobs':[]}`, fleet.InvalidJSON, "offset 1"},
		{"comment", `{"jobs":[] /* none */}`, fleet.InvalidJSON, "offset 11"},
		{"duplicate", `{"jobs":[],"jobs":[]}`, fleet.InvalidJSON, `"jobs"`},
		{"duplicate in free form", `{"jobs":[{"manifestSnapshot":{"a":1,"a":2}}]}`, fleet.InvalidJSON, `"jobs[0].manifestSnapshot.a"`},
		{"invalid UTF-8", "{\"jobs\":[{\"bodyMd\":\"\xff\"}]}", fleet.InvalidJSON, "UTF-8"},
		{"lone surrogate", `{"jobs":[{"bodyMd":"\ud800"}]}`, fleet.InvalidJSON, "surrogate"},
		{"too deep", deep(62), fleet.InvalidJSON, "nesting"},
		{"far too deep", deep(9000), fleet.InvalidJSON, "nesting"},
		{"unknown field", `{"jops":[]}`, fleet.Invalid, "jops"},
		{"wrong case", `{"jobs":[{},{"Priority":"low"}]}`, fleet.Invalid, "jobs[1].Priority"},
		{"object for an array", `{"jobs":{}}`, fleet.Invalid, "jobs"},
		{"number for a string", `{"jobs":[{},{"priority":1}]}`, fleet.Invalid, "jobs[1].priority"},
		{"string for a number", `{"jobs":[{"budget":{"tokens":"5"}}]}`, fleet.Invalid, "jobs[0].budget.tokens"},
		{"fraction", `{"jobs":[{"budget":{"tokens":1.5}}]}`, fleet.Invalid, "jobs[0].budget.tokens"},
		{"out of range", `{"jobs":[{"retry":{"max":9223372036854775808}}]}`, fleet.Invalid, "jobs[0].retry.max"},
		{"too precise", `{"jobs":[{"budget":{"usd":0.0000000001}}]}`, fleet.Invalid, "jobs[0].budget.usd"},
		{"in an array", `{"jobs":[{"capabilities":["go",7]}]}`, fleet.Invalid, "jobs[0].capabilities[1]"},
		{"a label", `{"jobs":[{"labels":{"7":8}}]}`, fleet.Invalid, "jobs[0].labels.7"},
		{"no time", `{"jobs":[{"notBefore":"tomorrow"}]}`, fleet.Invalid, "jobs[0].notBefore"},
		{"null member", `{"jobs":[{"priority":null}]}`, fleet.Invalid, "jobs[0].priority"},
		{"null labels", `{"jobs":[{"labels":null}]}`, fleet.Invalid, "jobs[0].labels"},
		{"null document", `{"jobs":[{"budget":null}]}`, fleet.Invalid, "jobs[0].budget"},
		{"no job", `{"jobs":[null]}`, fleet.Invalid, "jobs[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var into batch
			err := decode([]byte(c.body), &into)
			var e *fleet.Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if c.code == fleet.InvalidJSON && !strings.Contains(e.Detail, c.want) {
				t.Errorf("detail: got %q, want %q in it", e.Detail, c.want)
			}
			if c.code == fleet.Invalid && (len(e.Fields) != 1 || e.Fields[0].Field != c.want || e.Fields[0].Detail == "") {
				t.Errorf("errors: got %v, want one about %s", e.Fields, c.want)
			}
		})
	}
	var into batch
	if err := decode([]byte(deep(61)), &into); err != nil {
		t.Errorf("64 levels: got %v, want none refused", err)
	}
}

func TestDecodeKeepsFreeFormValues(t *testing.T) {
	var s submission
	body := `{"manifestSnapshot": {"n": 1.50, "big": 123456789012345678901234567890, "e": 1e400, "z": null}, "labels": {"b":"2","a":"1"}}`
	if err := decode([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if want := fleet.JSON(`{"n":1.50,"big":123456789012345678901234567890,"e":1e400,"z":null}`); s.ManifestSnapshot != want {
		t.Errorf("manifestSnapshot: got %s, want %s", s.ManifestSnapshot, want)
	}
	if v, _ := s.Labels.Get("a"); v != "1" || len(s.Labels) != 2 {
		t.Errorf("labels: got %v, want a and b", s.Labels)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"jobs":[{"priority":"low"}]}`, `{"jobs":[`, "\xff", `{"a":{"b":[1e9,null]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var into batch
		err := decode(body, &into)
		var e *fleet.Error
		if err != nil && (!errors.As(err, &e) || e.Code != fleet.Invalid && e.Code != fleet.InvalidJSON) {
			t.Errorf("got %v, want invalid or invalid_json", err)
		}
	})
}
