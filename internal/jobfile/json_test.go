package jobfile

// This file tests what is said of JSON that is no job, and where.

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblemsOfJSON(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      []string
	}{
		{"an unknown key", "{\n  \"bodyMd\": \"x\",\n  \"priorty\": \"high\"\n}", []string{`a.json:3:3: unknown key "priorty" (did you mean "priority"?)`}},
		{"a value of one job", "{\n  \"bodyMd\": \"x\",\n  \"priority\": \"hihg\"\n}", []string{`a.json:3:3: priority: "hihg" is none of critical, high, medium, low`}},
		{"a value of a list", "[\n{\"bodyMd\": \"x\"},\n{\"bodyMd\": \"x\", \"priority\": \"hihg\"}]", []string{`a.json:3:17: jobs[1].priority: "hihg" is none of critical, high, medium, low`}},
		{"a value of a batch", "{\"jobs\": [\n{\"bodyMd\": \"x\"},\n{\"bodyMd\": \"x\", \"priority\": \"hihg\"}]}", []string{`a.json:3:17: jobs[1].priority: "hihg" is none of critical, high, medium, low`}},
		{"a type", `{"bodyMd": 1}`, []string{`a.json:1:12: bodyMd can't be a JSON number`}},
		{"a type within a list", `[{"bodyMd": "x", "deps": [3]}]`, []string{`a.json:1:27: [0].deps[0] can't be a JSON number`}},
		{"no JSON", `{"bodyMd": `, []string{`a.json:1:12: this is no JSON: unexpected EOF`}},
	} {
		_, err := ParseJSON("a.json", []byte(c.src))
		var got []string
		if err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}
