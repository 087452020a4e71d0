package jobfile

// This file writes a submission as a file that Parse reads back.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lysnrai/fleet"
)

// Format writes a submission as Markdown with a head; what has its default is left out. It refuses what Parse could not
// read back: a head that is too long.
func Format(s fleet.Submission) ([]byte, error) {
	s.Normalize()
	h := &yaml.Node{Kind: yaml.MappingNode}
	manifest, err := fromJSON(string(s.ManifestSnapshot))
	if err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	short(h, manifest)
	put(h, "key", s.IdempotencyKey, "")
	put(h, "trackerItemId", s.TrackerItemID, "")
	put(h, "parentId", s.ParentID, "")
	put(h, "kind", string(s.Kind), string(fleet.Leaf))
	put(h, "priority", string(s.Priority), string(fleet.Medium))
	putList(h, "capabilities", s.Capabilities)
	put(h, "engine", s.EngineClass, "")
	put(h, "profile", s.Profile, "")
	putList(h, "deps", s.Deps)
	put(h, "depsMode", string(s.DepsMode), string(fleet.Hard))
	put(h, "notBefore", s.NotBefore.String(), "")
	if c := s.Checkpoint; c != nil {
		n := flow(yaml.MappingNode)
		put(n, "wipBranch", c.WipBranch, "")
		put(n, "wipBase", c.WipBase, "")
		put(n, "wipCommit", c.WipCommit, "")
		add(h, "checkpoint", n)
	}
	putBudget(h, s.Budget)
	putRetry(h, s.Retry)
	if len(s.Labels) > 0 {
		n := flow(yaml.MappingNode)
		for _, l := range s.Labels {
			add(n, l.Key, text(l.Value))
		}
		add(h, "labels", n)
	}
	if len(manifest.Content) > 0 || s.BodyMd == "" && s.Kind == fleet.Leaf && len(h.Content) == 0 {
		add(h, "manifest", manifest)
	}
	return assemble(h, s.BodyMd)
}

// assemble puts head and body together.
func assemble(h *yaml.Node, body string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("---\n")
	if len(h.Content) > 0 {
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := e.Encode(h); err != nil {
			return nil, err
		}
		if err := e.Close(); err != nil {
			return nil, err
		}
	}
	if n := b.Len() - len("---\n"); n > maxHead {
		return nil, fmt.Errorf("the head would have %d bytes, and at most %d are read", n, maxHead)
	}
	b.WriteString("---\n")
	b.WriteString(body)
	return b.Bytes(), nil
}

// short moves what has a short form from the manifest to the head.
func short(h, manifest *yaml.Node) {
	for _, name := range []string{"title", "cwd", "yolo"} {
		for i := 0; i+1 < len(manifest.Content); i += 2 {
			value := manifest.Content[i+1]
			fits := value.Tag == "!!str" && value.Value != ""
			if name == "yolo" {
				fits = value.Tag == "!!bool"
			}
			if manifest.Content[i].Value == name && fits {
				add(h, name, value)
				manifest.Content = slices.Delete(manifest.Content, i, i+2)
				break
			}
		}
	}
}

func putBudget(h *yaml.Node, b *fleet.Budget) {
	if b == nil {
		return
	}
	n := flow(yaml.MappingNode)
	if b.USD != nil {
		add(n, "usd", number(b.USD.String()))
	}
	if b.Tokens != nil {
		add(n, "tokens", number(strconv.FormatInt(*b.Tokens, 10)))
	}
	if b.Wall != nil {
		add(n, "wall", number(strconv.FormatInt(*b.Wall, 10)))
	}
	add(h, "budget", n)
}

func putRetry(h *yaml.Node, r *fleet.Retry) {
	if r == nil {
		return
	}
	n := flow(yaml.MappingNode)
	add(n, "max", number(strconv.FormatInt(r.Max, 10)))
	add(n, "backoff", number(strconv.FormatInt(r.Backoff, 10)))
	putList(n, "on", r.On)
	if r.MaxLeaseLosses != nil {
		add(n, "maxLeaseLosses", number(strconv.FormatInt(*r.MaxLeaseLosses, 10)))
	}
	add(h, "retry", n)
}

func add(mapping *yaml.Node, name string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, text(name), value)
}

func put(mapping *yaml.Node, name, value, byDefault string) {
	if value != byDefault {
		add(mapping, name, text(value))
	}
}

func putList(mapping *yaml.Node, name string, words []string) {
	if len(words) == 0 {
		return
	}
	n := flow(yaml.SequenceNode)
	for _, w := range words {
		n.Content = append(n.Content, text(w))
	}
	add(mapping, name, n)
}

func flow(kind yaml.Kind) *yaml.Node { return &yaml.Node{Kind: kind, Style: yaml.FlowStyle} }

func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.ContainsAny(s, "\n\r\t") || s != strings.TrimSpace(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// number is a number by its digits; one that YAML would take for text is tagged.
func number(digits string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: digits}
	if tag := n.ShortTag(); tag == "!!int" || tag == "!!float" {
		n.Tag = tag
	} else {
		n.Tag, n.Style = "!!float", yaml.TaggedStyle
	}
	return n
}

// fromJSON is a JSON object as YAML, its members in their order, its numbers by their digits.
func fromJSON(src string) (*yaml.Node, error) {
	d := json.NewDecoder(strings.NewReader(src))
	d.UseNumber()
	n, err := nextValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is more than one value")
	}
	return n, nil
}

func nextValue(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for d.More() {
			child, err := nextValue(d) // in a mapping a name, then its value
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err := d.Token()
		return n, err
	case string:
		return text(v), nil
	case json.Number:
		return number(v.String()), nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}
