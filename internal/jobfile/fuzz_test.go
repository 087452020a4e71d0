package jobfile

// This file throws anything at the parser: it answers with a job that may be submitted, or with places in the file.

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/lysnrai/fleet"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(all), false)
	f.Add([]byte("| engine | cwd |\n|---|---|\n| devin | . |\n\nBody"), false)
	f.Add([]byte("key: k\nbody: |\n  one\nmanifest: {a: [1, 0x10, .inf, no, *x]}\n"), true)
	f.Add([]byte("---\nbudget: {usd: 1e3, wall: 5}\nretry: [\n---\n"), false)
	f.Fuzz(func(t *testing.T, src []byte, document bool) {
		path := "a.md"
		if document {
			path = "a.job.yaml"
		}
		job, err := Parse(path, src)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("got %T, want Problems", err)
			}
			lines := bytes.Count(src, []byte("\n")) + 2 // a parser may stop behind the end
			for _, p := range problems {
				if p.Line < 1 || p.Line > max(lines, 3) || p.Column < 1 {
					t.Errorf("%v: got a place that the file of %d lines does not have", p, lines)
				}
			}
			return
		}
		if problems := job.Validate(""); len(problems) > 0 {
			t.Errorf("got a submission with problems %v, want none", problems)
		}
		if m := job.ManifestSnapshot; m != "" && (!m.IsObject() || !json.Valid([]byte(m))) {
			t.Errorf("got the manifest %q, want a JSON object", m)
		}
		if !document && !bytes.HasSuffix(src, []byte(job.BodyMd)) {
			t.Errorf("got the body %q, want the end of the file", job.BodyMd)
		}
		var again fleet.Submission
		if text, err := json.Marshal(job); err != nil {
			t.Errorf("encoding: %v", err)
		} else if err := json.Unmarshal(text, &again); err != nil {
			t.Errorf("decoding: %v", err)
		}
	})
}
