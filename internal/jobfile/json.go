package jobfile

// This file reads jobs that are written as JSON, as the API takes them.

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// ParseJSON reads a job, a list of jobs, or an object with the member jobs, which is such a list. The error, if any, is
// a Problems.
func ParseJSON(path string, src []byte) ([]fleet.Submission, error) {
	jobs, err := decodeJobs(bytes.TrimPrefix(src, bom))
	if err != nil {
		at := min(int(offset(err)), len(src))
		line := bytes.Count(src[:at], []byte("\n")) + 1
		column := at - bytes.LastIndexByte(src[:at], '\n')
		return nil, Problems{{path, line, column, err.Error()}}
	}
	if found := fleet.ValidateBatch(jobs); len(found) > 0 {
		var problems Problems
		for _, p := range found {
			problems = append(problems, Problem{path, 1, 1, p.Field + ": " + p.Detail})
		}
		return nil, problems
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
