package jobfile

// This file is the fields that a file may have, and how each is read.

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/nearest"
)

// A field is what one name of a head sets: the submission's field, and how its value is read.
type field struct {
	sets string
	read func(d *decoder, name string, n *yaml.Node)
}

// known is every name that a head may have. Two names that set the same field can't both be given.
var known map[string]field

func init() { // not a literal: the readers refer to it
	text := func(target func(*fleet.Submission) *string) func(*decoder, string, *yaml.Node) {
		return func(d *decoder, name string, n *yaml.Node) { *target(&d.job) = d.text(name, n) }
	}
	known = map[string]field{
		"key":            {"idempotencyKey", text(func(s *fleet.Submission) *string { return &s.IdempotencyKey })},
		"idempotencyKey": {"idempotencyKey", text(func(s *fleet.Submission) *string { return &s.IdempotencyKey })},
		"trackerItemId":  {"trackerItemId", text(func(s *fleet.Submission) *string { return &s.TrackerItemID })},
		"parentId":       {"parentId", text(func(s *fleet.Submission) *string { return &s.ParentID })},
		"engine":         {"engineClass", text(func(s *fleet.Submission) *string { return &s.EngineClass })},
		"engineClass":    {"engineClass", text(func(s *fleet.Submission) *string { return &s.EngineClass })},
		"profile":        {"profile", text(func(s *fleet.Submission) *string { return &s.Profile })},
		"body":           {"bodyMd", (*decoder).body},
		"bodyMd":         {"bodyMd", (*decoder).body},
		"kind": {"kind", func(d *decoder, name string, n *yaml.Node) {
			d.job.Kind = oneOf(d, name, n, fleet.Leaf, fleet.Composite)
		}},
		"priority": {"priority", func(d *decoder, name string, n *yaml.Node) {
			d.job.Priority = oneOf(d, name, n, fleet.Priorities[:]...)
		}},
		"depsMode": {"depsMode", func(d *decoder, name string, n *yaml.Node) {
			d.job.DepsMode = oneOf(d, name, n, fleet.Hard, fleet.Soft)
		}},
		"capabilities":     {"capabilities", func(d *decoder, name string, n *yaml.Node) { d.job.Capabilities = d.texts(name, n) }},
		"deps":             {"deps", func(d *decoder, name string, n *yaml.Node) { d.job.Deps = d.texts(name, n) }},
		"labels":           {"labels", (*decoder).labels},
		"notBefore":        {"notBefore", (*decoder).notBefore},
		"checkpoint":       {"checkpoint", (*decoder).checkpoint},
		"budget":           {"budget", (*decoder).budget},
		"timeout":          {"budget.wall", (*decoder).timeout},
		"retry":            {"retry", (*decoder).retry},
		"manifest":         {"manifestSnapshot", (*decoder).freeForm},
		"manifestSnapshot": {"manifestSnapshot", (*decoder).freeForm},
		"title":            {"manifestSnapshot.title", (*decoder).manifestMember},
		"cwd":              {"manifestSnapshot.cwd", (*decoder).manifestMember},
		"yolo":             {"manifestSnapshot.yolo", (*decoder).manifestMember},
		"lock": {"limits", func(d *decoder, _ string, n *yaml.Node) {
			d.at(n, "lock needs limits, which this version does not have; until then give the jobs that exclude each other to a factory with one seat")
		}},
	}
}

// fields reads the top of a file.
func (d *decoder) fields(n *yaml.Node) {
	d.mapping("", n, slices.Sorted(maps.Keys(known)), func(name string, value *yaml.Node) { known[name].read(d, name, value) })
}

// mapping reads an object with known names. It claims each name's field, so that none is set twice.
func (d *decoder) mapping(parent string, n *yaml.Node, names []string, read func(name string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.at(n, "%s must be a mapping such as {%s: …}", parent, names[0])
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(names, key.Value):
			d.at(key, "unknown key %q%s", key.Value, nearest.Hint(key.Value, names))
		case value.Kind == yaml.AliasNode || value.Anchor != "":
			d.at(value, "%s: anchors and aliases are not read; write the value out", key.Value)
		case !d.claim(parent, key):
		case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
			d.at(key, "%s has no value; leave the key out if it has none", key.Value)
		default:
			read(key.Value, value)
		}
	}
}

// claim notes that a key sets its field, and refuses it if that is set already.
func (d *decoder) claim(parent string, key *yaml.Node) bool {
	sets := parent + "." + key.Value
	if parent == "" {
		sets = known[key.Value].sets
	}
	if first, taken := d.places[sets]; taken {
		as := d.shape[sets]
		if as == key.Value {
			as = "first"
		} else {
			as = "as " + as
		}
		d.at(key, "%s is given twice: %s on line %d", key.Value, as, first.line)
		return false
	}
	d.places[sets], d.shape[sets] = place{d.line(key), key.Column}, key.Value
	if parent != "" {
		d.shape[sets] = sets
	}
	return true
}

// text is a scalar as it is written: no, 1.20 and 2026-01-31 stay text.
func (d *decoder) text(name string, n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		d.at(n, "%s must be text", name)
		return ""
	}
	if n.Value == "" {
		d.at(n, "%s must not be empty", name)
	}
	return n.Value
}

// texts is a list of scalars; in a table it may be written with commas.
func (d *decoder) texts(name string, n *yaml.Node) []string {
	words := []string{}
	if d.table && n.Kind == yaml.ScalarNode {
		for word := range strings.SplitSeq(n.Value, ",") {
			words = append(words, strings.TrimSpace(word))
		}
		return words
	}
	if n.Kind != yaml.SequenceNode {
		d.at(n, "%s must be a list such as [a, b]", name)
		return nil
	}
	for i, item := range n.Content {
		field := fmt.Sprintf("%s[%d]", name, i)
		d.places[field] = place{d.line(item), item.Column}
		words = append(words, d.text(field, item))
	}
	return words
}

// oneOf is a word of a closed list, empty if it was refused.
func oneOf[T ~string](d *decoder, name string, n *yaml.Node, allowed ...T) T {
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	word := d.text(name, n)
	if word == "" || slices.Contains(words, word) {
		return T(word)
	}
	hint := nearest.Hint(word, words)
	if hint == "" {
		hint = "; it is one of " + strings.Join(words, ", ")
	}
	d.at(n, "%s: there is no %q%s", name, word, hint)
	return ""
}

// number is a whole number, nil if it was refused.
func (d *decoder) number(name string, n *yaml.Node) *int64 {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.at(n, "%s must be a whole number", name)
		return nil
	}
	return &i
}

func (d *decoder) body(name string, n *yaml.Node) {
	if !d.document {
		d.at(n, "%s: the body of a Markdown file is what follows its head", name)
		return
	}
	d.job.BodyMd = d.text(name, n)
}

func (d *decoder) labels(name string, n *yaml.Node) {
	labels := map[string]string{}
	for _, m := range pairs(d, name, n) {
		if m[1].Kind != yaml.ScalarNode {
			d.at(m[1], "%s.%s must be text", name, m[0].Value)
			continue
		}
		d.places["labels."+m[0].Value] = place{d.line(m[0]), m[0].Column}
		labels[m[0].Value] = m[1].Value
	}
	d.job.Labels = fleet.LabelsOf(labels)
}

// pairs are the names and values of a mapping whose names are free.
func pairs(d *decoder, name string, n *yaml.Node) (found [][2]*yaml.Node) {
	if n.Kind != yaml.MappingNode {
		d.at(n, "%s must be a mapping such as {team: api}", name)
		return nil
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || seen[key.Value] {
			d.at(key, "%s: a name must be text, and given once", name)
			continue
		}
		seen[key.Value] = true
		found = append(found, [2]*yaml.Node{key, n.Content[i+1]})
	}
	return found
}

func (d *decoder) notBefore(name string, n *yaml.Node) {
	if err := d.job.NotBefore.UnmarshalJSON([]byte(quote(d.text(name, n)))); err != nil {
		d.at(n, "%s: %v", name, err)
	}
}

func (d *decoder) checkpoint(name string, n *yaml.Node) {
	d.job.Checkpoint = &fleet.Checkpoint{}
	targets := map[string]*string{"wipBase": &d.job.Checkpoint.WipBase, "wipBranch": &d.job.Checkpoint.WipBranch, "wipCommit": &d.job.Checkpoint.WipCommit}
	d.mapping(name, n, slices.Sorted(maps.Keys(targets)), func(member string, value *yaml.Node) {
		*targets[member] = d.text(name+"."+member, value)
	})
}

func (d *decoder) budget(name string, n *yaml.Node) {
	b := d.budgetToSet()
	d.mapping(name, n, []string{"tokens", "usd", "wall"}, func(member string, value *yaml.Node) {
		switch full := name + "." + member; member {
		case "usd":
			var usd fleet.USD
			if err := usd.UnmarshalJSON([]byte(value.Value)); err != nil || value.Kind != yaml.ScalarNode {
				d.at(value, "%s must be a number of dollars from 0 to 1000000000 with at most 9 decimals", full)
				return
			}
			b.USD = &usd
		case "tokens":
			b.Tokens = d.number(full, value)
		case "wall":
			b.Wall = d.number(full, value)
		}
	})
}

// budgetToSet is the job's budget: timeout and budget both set a part of it.
func (d *decoder) budgetToSet() *fleet.Budget {
	if d.job.Budget == nil {
		d.job.Budget = &fleet.Budget{}
	}
	return d.job.Budget
}

// timeout is seconds, or a duration such as 45m.
func (d *decoder) timeout(name string, n *yaml.Node) {
	seconds, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		var took time.Duration
		took, err = time.ParseDuration(n.Value)
		if seconds = int64(took / time.Second); took%time.Second != 0 {
			err = fmt.Errorf("%v is no whole number of seconds", took)
		}
	}
	if n.Kind != yaml.ScalarNode || err != nil {
		d.at(n, "%s must be whole seconds, or a duration such as 45m or 1h30m", name)
		return
	}
	d.budgetToSet().Wall = &seconds
}

func (d *decoder) retry(name string, n *yaml.Node) {
	r := &fleet.Retry{}
	d.mapping(name, n, []string{"backoff", "max", "maxLeaseLosses", "on"}, func(member string, value *yaml.Node) {
		switch full := name + "." + member; member {
		case "max":
			if i := d.number(full, value); i != nil {
				r.Max = *i
			}
		case "backoff":
			if i := d.number(full, value); i != nil {
				r.Backoff = *i
			}
		case "on":
			r.On = d.texts(full, value)
		case "maxLeaseLosses":
			r.MaxLeaseLosses = d.number(full, value)
		}
	})
	d.job.Retry = r
}

// freeForm is the manifest. What of it has a short form can't be given both ways.
func (d *decoder) freeForm(name string, n *yaml.Node) {
	if d.manifest == nil {
		d.manifest = []member{}
	}
	for _, m := range d.members(name, n, 1) {
		switch m.name {
		case "title", "cwd", "yolo":
			sets := "manifestSnapshot." + m.name
			if first, taken := d.places[sets]; taken {
				d.at(m.node, "%s is given twice: first on line %d", m.name, first.line)
				continue
			}
			d.places[sets], d.shape[sets] = place{d.line(m.node), m.node.Column}, m.name
		}
		d.manifest = append(d.manifest, m)
	}
}

// manifestMember is a field that is kept in the manifest: title and cwd are text, yolo is true or false.
func (d *decoder) manifestMember(name string, n *yaml.Node) {
	if name != "yolo" {
		d.manifest = append(d.manifest, member{name, quote(d.text(name, n)), n})
		return
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on":
		d.manifest = append(d.manifest, member{name, "true", n})
	case "false", "no", "off":
		d.manifest = append(d.manifest, member{name, "false", n})
	default:
		d.at(n, "%s must be true or false", name)
	}
}
