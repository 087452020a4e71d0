package jobfile

// This file turns YAML into the free-form JSON of a manifest: strings stay what they are, numbers keep their digits.

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNesting is how deep a manifest may be nested, so that it fits into the body of a call.
const maxNesting = 60

// A member is one name of an object with its value as JSON.
type member struct {
	name  string
	value string
	node  *yaml.Node // of the name
}

// members reads a mapping whose values may be anything.
func (d *decoder) members(field string, n *yaml.Node, depth int) (found []member) {
	if n.Kind != yaml.MappingNode {
		d.at(n, "%s must be a mapping such as {name: value}", field)
		return nil
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.at(key, "a name in %s must be text", field)
			continue
		}
		if line, taken := seen[key.Value]; taken {
			d.at(key, "%q is given twice, first on line %d", key.Value, line)
			continue
		}
		seen[key.Value] = d.line(key)
		if text, ok := d.json(field, value, depth+1); ok {
			found = append(found, member{key.Value, text, key})
		}
	}
	return found
}

// json is a value as JSON. It is not ok if a problem was added.
func (d *decoder) json(field string, n *yaml.Node, depth int) (text string, ok bool) {
	if depth > maxNesting {
		d.at(n, "%s is nested deeper than %d", field, maxNesting)
		return "", false
	}
	switch n.Kind {
	case yaml.MappingNode:
		before := len(d.problems)
		return object(d.members(field, n, depth)), len(d.problems) == before
	case yaml.SequenceNode:
		items := make([]string, len(n.Content))
		ok := true
		for i, item := range n.Content {
			var good bool
			items[i], good = d.json(field, item, depth+1)
			ok = ok && good
		}
		return "[" + strings.Join(items, ",") + "]", ok
	case yaml.ScalarNode:
		text, err := scalar(n)
		if err != nil {
			d.at(n, "%s: %v", field, err)
		}
		return text, err == nil
	}
	d.at(n, "%s: anchors and aliases are not read; write the value out", field)
	return "", false
}

// scalar is a scalar as JSON.
func scalar(n *yaml.Node) (string, error) {
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return "null", nil
	case "!!bool":
		return strings.ToLower(n.Value), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return n.Value, nil
		}
		var i int64
		if n.Decode(&i) == nil && tag == "!!int" {
			return strconv.FormatInt(i, 10), nil
		}
		var f float64
		if err := n.Decode(&f); err != nil {
			return "", fmt.Errorf("%q is no number", n.Value)
		}
		b, err := json.Marshal(f)
		if err != nil {
			return "", fmt.Errorf("%q is no number that JSON has; put it in quotes if it is text", n.Value)
		}
		return string(b), nil
	case "!!str", "!!timestamp":
		return quote(n.Value), nil
	default:
		return "", fmt.Errorf("the tag %s is not read", tag)
	}
}

// quote is a text as a JSON string. Unlike json.Marshal it leaves <, > and & as they are.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// object puts members together, in their order.
func object(members []member) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(m.name) + ":" + m.value)
	}
	b.WriteByte('}')
	return b.String()
}
