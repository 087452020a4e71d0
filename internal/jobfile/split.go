package jobfile

// This file takes a Markdown file apart into its head and its body.

import (
	"bytes"
	"fmt"
	"strings"
)

// maxHead is the most bytes that a head may have.
const maxHead = 64 << 10

var (
	bom   = []byte("\uFEFF")
	fence = []byte("---")
)

// A head is the YAML between two fences, or a table of one row.
type head struct {
	yaml  []byte
	cells []cell // if it is a table
	line  int    // of the file, on which it starts
}

// A cell is one column of a table head: its name and its value, each with its place.
type cell struct {
	name, value           string
	nameColumn, valColumn int
}

// split finds the head; without one, all of the file is the body. The head ends at the first closing fence, so a body
// may start with a fence itself.
func split(src []byte) (h head, body []byte, problem *Problem) {
	text := bytes.TrimPrefix(src, bom)
	first, rest := line(text)
	switch {
	case bytes.Equal(first, fence):
		for at := rest; len(at) > 0; {
			l, next := line(at)
			if !bytes.Equal(l, fence) {
				at = next
				continue
			}
			h = head{yaml: rest[:len(rest)-len(at)], line: 2}
			if len(h.yaml) > maxHead {
				return head{}, nil, &Problem{Line: 1, Column: 1, Detail: fmt.Sprintf("the head has %d bytes; at most %d are read", len(h.yaml), maxHead)}
			}
			return h, next, nil
		}
		return head{}, nil, &Problem{Line: 1, Column: 1, Detail: "the head that starts here has no end: put --- on a line of its own after it"}
	case bytes.HasPrefix(first, []byte("|")):
		rule, afterRule := line(rest)
		if !isRule(rule) {
			return head{}, src, nil
		}
		row, body := line(afterRule)
		names, values := columns(first), columns(row)
		if len(names) != len(values) {
			return head{}, nil, &Problem{Line: 3, Column: 1, Detail: fmt.Sprintf("the table has %d columns, this row has %d", len(names), len(values))}
		}
		h = head{line: 1}
		for i := range names {
			h.cells = append(h.cells, cell{names[i].text, values[i].text, names[i].column, values[i].column})
		}
		return h, body, nil
	}
	return head{}, src, nil
}

// line cuts the first line off, and white space off its end.
func line(text []byte) (first, rest []byte) {
	first, rest, _ = bytes.Cut(text, []byte("\n"))
	return bytes.TrimRight(first, " \t\r"), rest
}

// isRule reports whether a line is what stands below the names of a Markdown table.
func isRule(l []byte) bool {
	return bytes.HasPrefix(l, []byte("|")) && bytes.Contains(l, []byte("-")) && len(bytes.Trim(l, "|-: \t")) == 0
}

type column struct {
	text   string
	column int
}

// columns are the cells of one row of a table, where \| is a bar that separates nothing.
func columns(row []byte) (found []column) {
	text := strings.TrimPrefix(string(row), "|")
	start := 1
	add := func(raw string) {
		trimmed := strings.TrimLeft(raw, " \t")
		found = append(found, column{
			text:   strings.ReplaceAll(strings.TrimSpace(raw), `\|`, "|"),
			column: start + len(raw) - len(trimmed) + 1,
		})
		start += len(raw) + 1
	}
	for from := 0; ; {
		i := strings.IndexByte(text[from:], '|')
		if i < 0 {
			break
		}
		if i += from; i > 0 && text[i-1] == '\\' {
			from = i + 1
			continue
		}
		add(text[:i])
		text, from = text[i+1:], 0
	}
	if strings.TrimSpace(text) != "" {
		add(text)
	}
	return found
}
