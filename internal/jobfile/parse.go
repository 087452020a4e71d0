package jobfile

// This file reads one file into a submission, and says where in the file each of its problems is.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lysnrai/fleet"
)

// IsYAML reports whether a path names a job that is written as YAML, with its body as one of its fields.
func IsYAML(path string) bool {
	return strings.HasSuffix(path, ".job.yaml") || strings.HasSuffix(path, ".job.yml")
}

// Parse reads a file: YAML if IsYAML(path), else Markdown. The error, if any, is a Problems. The submission has passed
// Validate; its defaults are not filled in.
func Parse(path string, src []byte) (fleet.Submission, error) {
	d := &decoder{path: path, places: map[string]place{}, shape: map[string]string{}}
	if IsYAML(path) {
		d.yaml(bytes.TrimPrefix(src, bom))
	} else {
		d.markdown(src)
	}
	d.finish()
	if len(d.problems) > 0 {
		return fleet.Submission{}, d.problems.sorted()
	}
	return d.job, nil
}

// A place is a line and a column of the file.
type place struct{ line, column int }

type decoder struct {
	path     string
	job      fleet.Submission
	manifest []member
	offset   int  // lines of the file before the YAML
	table    bool // values are the cells of a table
	document bool // the file is YAML, with a body of its own
	places   map[string]place
	shape    map[string]string // field → the name under which it was given
	problems Problems
}

// at adds a problem with the place of a node.
func (d *decoder) at(n *yaml.Node, format string, args ...any) {
	d.add(d.line(n), n.Column, format, args...)
}

func (d *decoder) add(line, column int, format string, args ...any) {
	d.problems = append(d.problems, Problem{d.path, max(line, 1), max(column, 1), fmt.Sprintf(format, args...)})
}

func (d *decoder) line(n *yaml.Node) int { return n.Line + d.offset }

func (d *decoder) markdown(src []byte) {
	h, body, problem := split(src)
	if problem != nil {
		d.add(problem.Line, problem.Column, "%s", problem.Detail)
		return
	}
	d.job.BodyMd = string(body)
	if h.cells != nil {
		d.table = true
		d.cells(h.cells)
		return
	}
	d.offset = h.line - 1
	if n := d.parse(h.yaml); n != nil {
		d.fields(n)
	}
}

func (d *decoder) yaml(src []byte) {
	d.document = true
	if n := d.parse(src); n != nil {
		d.fields(n)
	}
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parse is the mapping that the text is, nil if there is none.
func (d *decoder) parse(src []byte) *yaml.Node {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(src))
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		var second yaml.Node
		if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
			d.add(d.offset+1, 1, "there is more than one YAML document; a file is one job")
			return nil
		}
	}
	if err != nil {
		line, detail := 1, err.Error()
		if m := yamlLine.FindStringSubmatch(detail); m != nil {
			line, _ = strconv.Atoi(m[1])
			detail = detail[len(m[0]):]
		}
		d.add(d.offset+line, 1, "this is no YAML: %s", strings.TrimPrefix(detail, "yaml: "))
		return nil
	}
	n := document.Content[0]
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.at(n, "this must be a mapping, a line \"name: value\" for each field")
		return nil
	}
	return n
}

// cells reads the row of a table. A cell in brackets, braces or quotes is YAML, any other is text as it stands.
func (d *decoder) cells(cells []cell) {
	n := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	for _, c := range cells {
		if c.value == "" {
			continue
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: c.name, Line: 1, Column: c.nameColumn}
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: c.value, Line: 3, Column: c.valColumn}
		if strings.ContainsRune(`[{"'`, rune(c.value[0])) {
			var document yaml.Node
			if err := yaml.Unmarshal([]byte(c.value), &document); err != nil {
				d.at(value, "this is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
				continue
			}
			value = document.Content[0]
			move(value, c.valColumn-1)
		}
		n.Content = append(n.Content, key, value)
	}
	d.fields(n)
}

// move puts what was parsed from a cell to its place in the third line.
func move(n *yaml.Node, columns int) {
	n.Line, n.Column = 3, n.Column+columns
	for _, child := range n.Content {
		move(child, columns)
	}
}

// finish checks the submission as a whole; what it finds is placed where the field was given.
func (d *decoder) finish() {
	if d.manifest != nil {
		d.job.ManifestSnapshot = fleet.JSON(object(d.manifest))
	}
	unread := len(d.problems) > 0 // some fields are not there because they could not be read
	for _, p := range d.job.Validate("") {
		if p.Field == "bodyMd" && unread {
			continue
		}
		at, name := d.place(p.Field)
		d.add(at.line, at.column, "%s: %s", name, p.Detail)
	}
}

// place finds where a field was given, or what it is part of, and under which name.
func (d *decoder) place(field string) (place, string) {
	for part := field; ; {
		if at, ok := d.places[part]; ok {
			if name, short := d.shape[part]; short {
				return at, name + field[len(part):]
			}
			return at, field
		}
		i := strings.LastIndexAny(part, ".[")
		if i < 0 {
			return place{1, 1}, field
		}
		part = part[:i]
	}
}
