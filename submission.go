package fleet

// This file is what a client may submit: the defaults of what it leaves out, and what is refused.

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Normalize fills in the defaults and puts what is a set in order. It is idempotent and leaves slices and documents
// that the submission shares with others as they are. Validate first: its paths name what was sent.
func (s *Submission) Normalize() {
	if s.ManifestSnapshot == "" {
		s.ManifestSnapshot = "{}"
	}
	if s.Kind == "" {
		s.Kind = Leaf
	}
	if s.Priority == "" {
		s.Priority = Medium
	}
	if s.DepsMode == "" {
		s.DepsMode = Hard
	}
	s.Capabilities = set(s.Capabilities)
	if s.Deps == nil {
		s.Deps = []string{}
	}
	if s.Checkpoint != nil && *s.Checkpoint == (Checkpoint{}) {
		s.Checkpoint = nil
	}
	if s.Budget != nil && *s.Budget == (Budget{}) {
		s.Budget = nil
	}
	if s.Retry != nil && s.Retry.On == nil {
		retry := *s.Retry
		retry.On = []string{}
		s.Retry = &retry
	}
	byKey := func(a, b Label) int { return strings.Compare(a.Key, b.Key) }
	if len(s.Labels) == 0 {
		s.Labels = nil
	} else if !slices.IsSortedFunc(s.Labels, byKey) {
		s.Labels = slices.SortedStableFunc(slices.Values(s.Labels), byKey)
	}
}

// set is the words sorted, without duplicates; never nil. Words that are a set already are returned as they are.
func set(words []string) []string {
	if words == nil {
		return []string{}
	}
	for i := 1; i < len(words); i++ {
		if words[i-1] >= words[i] {
			return slices.Compact(slices.Sorted(slices.Values(words)))
		}
	}
	return words
}

// Validate says what is wrong with a submission, field by field; nothing if it may be submitted. It accepts fields that
// Normalize has not filled yet. Prefix is put before each path: "jobs[1]." for the second job of a batch.
//
// What depends on other documents (deps, the parent, the profile) is for the state machine to judge.
func (s *Submission) Validate(prefix string) []FieldError {
	var p problems
	s.validate(&p)
	for i := range p {
		p[i].Field = prefix + p[i].Field
	}
	return p
}

func (s *Submission) validate(p *problems) {
	if s.ManifestSnapshot != "" {
		p.object("manifestSnapshot", s.ManifestSnapshot)
	}
	if !utf8.ValidString(s.BodyMd) {
		p.add("bodyMd", "must be valid UTF-8")
	}
	p.optionalName("idempotencyKey", s.IdempotencyKey)
	p.optionalName("trackerItemId", s.TrackerItemID)
	p.optionalName("parentId", s.ParentID)
	if s.Kind != "" {
		oneOf(p, "kind", s.Kind, Leaf, Composite)
	}
	p.checkpoint("checkpoint", s.Checkpoint)
	if s.Priority != "" {
		oneOf(p, "priority", s.Priority, Priorities[:]...)
	}
	p.names("capabilities", s.Capabilities, MaxCapabilities)
	p.optionalName("engineClass", s.EngineClass)
	s.validateProfile(p)
	s.validateDeps(p)
	s.Budget.validate(p)
	s.Retry.validate(p)
	s.Labels.validate(p)
	if s.NotBefore < 0 {
		p.add("notBefore", "must not be before 1970")
	}
	switch {
	case s.Kind == Composite && len(s.Deps) > 0:
		p.add("deps", "a composite has none; give them to its children")
	case s.Kind != Composite && s.BodyMd == "" && empty(s.ManifestSnapshot):
		p.add("bodyMd", "a leaf has at least one of bodyMd and manifestSnapshot")
	}
}

func (s *Submission) validateProfile(p *problems) {
	if s.Profile == "" {
		return
	}
	name, _, ok := SplitProfile(s.Profile)
	if !ok {
		p.add("profile", "must be a profile's name, or name@version as in coder@3")
		return
	}
	p.name("profile", name)
}

func (s *Submission) validateDeps(p *problems) {
	p.atMost("deps", len(s.Deps), MaxDeps)
	for i, dep := range s.Deps[:min(len(s.Deps), MaxDeps)] {
		if dep = strings.TrimPrefix(dep, "key:"); !plain(dep) {
			p.name(index("deps", i), dep)
		}
	}
	// A dep named twice is not refused: by its id and by its key it could not be seen here, and it changes nothing.
	switch s.DepsMode {
	case "", Hard, Soft:
	default:
		oneOf(p, "depsMode", s.DepsMode, Hard, Soft)
	}
}

func (b *Budget) validate(p *problems) {
	if b == nil {
		return
	}
	p.usd("budget.usd", b.USD)
	p.optionalBetween("budget.tokens", b.Tokens, 0, MaxCount)
	p.optionalBetween("budget.wall", b.Wall, 1, MaxWallSeconds)
}

func (r *Retry) validate(p *problems) {
	if r == nil {
		return
	}
	p.between("retry.max", r.Max, 0, MaxRetries)
	p.between("retry.backoff", r.Backoff, 0, MaxBackoffSeconds)
	p.names("retry.on", r.On, MaxCapabilities)
	p.optionalBetween("retry.maxLeaseLosses", r.MaxLeaseLosses, 1, MaxLeaseLosses)
}

func (l Labels) validate(p *problems) {
	p.atMost("labels", len(l), MaxLabels)
	for i, label := range l[:min(len(l), MaxLabels)] {
		field := "labels." + strings.ToValidUTF8(label.Key, "\uFFFD")
		p.name(field, label.Key)
		p.text(field, label.Value)
		if slices.ContainsFunc(l[:i], func(other Label) bool { return other.Key == label.Key }) {
			p.add(field, "is given twice")
		}
	}
}

// empty reports whether a manifest says nothing.
func empty(manifest JSON) bool {
	inner, open := strings.CutPrefix(string(manifest), "{")
	inner, closed := strings.CutSuffix(inner, "}")
	return manifest == "" || open && closed && strings.TrimSpace(inner) == ""
}

// ValidateBatch judges the jobs of one batch, with paths such as jobs[1].priority. A key may name one of them only.
func ValidateBatch(jobs []Submission) []FieldError {
	var p problems
	p.atMost("jobs", len(jobs), MaxBatch)
	first := make(map[string]int, len(jobs))
	for i := range jobs[:min(len(jobs), MaxBatch)] {
		field := index("jobs", i)
		p = append(p, jobs[i].Validate(field+".")...)
		key := jobs[i].IdempotencyKey
		if key == "" {
			continue
		}
		if other, taken := first[key]; taken {
			p.add(field+".idempotencyKey", "%q is the key of jobs[%d] too", key, other)
			continue
		}
		first[key] = i
	}
	return p
}
