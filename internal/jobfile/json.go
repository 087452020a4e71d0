package jobfile

// This file reads jobs that are written as JSON, as the API takes them.

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/nearest"
)

// ParseJSON reads a job, a list of jobs, or an object with the member jobs, which is such a list. The error, if any, is
// a Problems.
func ParseJSON(path string, src []byte) ([]fleet.Submission, error) {
	jobs, err := decodeJobs(bytes.TrimPrefix(src, bom))
	if err != nil {
		return nil, Problems{problemAt(path, src, int(offset(err)), said(err))}
	}
	if found := fleet.ValidateBatch(jobs); len(found) > 0 {
		var problems Problems
		for _, p := range found {
			field, at := placeJSON(src, p.Field)
			problems = append(problems, problemAt(path, src, at, field+": "+p.Detail))
		}
		return nil, problems.sorted()
	}
	return jobs, nil
}

func decodeJobs(src []byte) ([]fleet.Submission, error) {
	strict := json.RejectUnknownMembers(true)
	var jobs []fleet.Submission
	if text := bytes.TrimSpace(src); len(text) > 0 && text[0] == '[' {
		err := json.Unmarshal(src, &jobs, strict)
		return jobs, err
	}
	var batch struct {
		Jobs []fleet.Submission `json:"jobs"`
	}
	if json.Unmarshal(src, &batch, strict) == nil && batch.Jobs != nil {
		return batch.Jobs, nil
	}
	var job fleet.Submission
	if err := json.Unmarshal(src, &job, strict); err != nil {
		return nil, err
	}
	return []fleet.Submission{job}, nil
}

// problemAt is a problem at an offset of a file.
func problemAt(path string, src []byte, at int, detail string) Problem {
	at = min(max(at, 0), len(src))
	return Problem{path, bytes.Count(src[:at], []byte("\n")) + 1, at - bytes.LastIndexByte(src[:at], '\n'), detail}
}

// said is what is wrong in the words of the file, not of Go.
func said(err error) string {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntactic):
		return "this is no JSON: " + strings.TrimPrefix(syntactic.Err.Error(), "jsontext: ")
	case !errors.As(err, &semantic):
		return err.Error()
	}
	name := semantic.JSONPointer.LastToken()
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Sprintf("unknown key %q%s", name, nearest.Hint(name, submitted))
	case semantic.Err != nil:
		return fmt.Sprintf("%s: %v", pathOf(semantic.JSONPointer), semantic.Err)
	}
	return fmt.Sprintf("%s can't be a JSON %v", pathOf(semantic.JSONPointer), semantic.JSONKind)
}

// pathOf is a place in a document as the API writes it: jobs[1].deps[0].
func pathOf(p jsontext.Pointer) string {
	path := ""
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			path += "[" + token + "]"
		} else {
			path = strings.TrimPrefix(path+"."+token, ".")
		}
	}
	return cmp.Or(path, "a job")
}

// submitted is every field of a submission.
var submitted = func() (names []string) {
	for i, t := 0, reflect.TypeFor[fleet.Submission](); i < t.NumField(); i++ {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}()

var jobAt = regexp.MustCompile(`^jobs\[(\d+)\]\.?`)

// placeJSON is where in the file a field of ValidateBatch is, or the nearest part around it that is there; and the
// field's name in that file: without the job's number if it is the only one.
func placeJSON(src []byte, field string) (name string, at int) {
	path, name := field, field
	switch text := bytes.TrimSpace(bytes.TrimPrefix(src, bom)); {
	case len(text) > 0 && text[0] == '[':
		path = strings.TrimPrefix(path, "jobs")
	case jobAt.MatchString(field):
		if single := jobAt.ReplaceAllString(field, ""); !bytes.Contains(src, []byte(`"jobs"`)) {
			path, name = single, single
		}
	}
	wanted := strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(strings.TrimPrefix(path, "[")), ".")
	best := 0
	d := jsontext.NewDecoder(bytes.NewReader(src))
	for {
		start := int(d.InputOffset())
		if _, err := d.ReadToken(); err != nil {
			return name, at
		}
		here := 0
		for token := range d.StackPointer().Tokens() {
			if here == len(wanted) || token != wanted[here] {
				here = -1
				break
			}
			here++
		}
		if here > best {
			best, at = here, start+len(src[start:])-len(bytes.TrimLeft(src[start:], ",: \t\r\n"))
		}
	}
}

// offset is the byte at which an error was found.
func offset(err error) int64 {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return semantic.ByteOffset
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return syntactic.ByteOffset
	}
	return 0
}
