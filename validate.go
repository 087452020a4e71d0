package fleet

// This file is the checks that all documents share. Each adds what it finds wrong to a list, under the field's path.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ValidateName judges a name, id or key: 1 to MaxName bytes of UTF-8 without control characters. Field is its path.
func ValidateName(field, name string) []FieldError {
	var p problems
	p.name(field, name)
	return p
}

// ValidateText judges a short text for people, such as a reason: at most MaxText bytes of UTF-8. Field is its path.
func ValidateText(field, text string) []FieldError {
	var p problems
	p.text(field, text)
	return p
}

// SplitProfile takes a profile's reference apart: "name" (version 0: the latest) or "name@version".
func SplitProfile(ref string) (name string, version int64, ok bool) {
	name, digits, versioned := strings.Cut(ref, "@")
	if !versioned {
		return name, 0, name != ""
	}
	version, err := strconv.ParseInt(digits, 10, 64)
	return name, version, name != "" && err == nil && version > 0 && digits[0] != '+' && digits[0] != '0'
}

// problems is what is wrong so far.
type problems []FieldError

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, FieldError{field, fmt.Sprintf(format, args...)})
}

func (p *problems) name(field, name string) {
	switch {
	case name == "":
		p.add(field, "must not be empty")
	case len(name) > MaxName:
		p.add(field, "has %d bytes, at most %d are allowed", len(name), MaxName)
	case !utf8.ValidString(name):
		p.add(field, "must be valid UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		p.add(field, "must not contain control characters")
	}
}

func (p *problems) optionalName(field, name string) {
	if name != "" {
		p.name(field, name)
	}
}

// names judges a list of at most most names.
func (p *problems) names(field string, names []string, most int) {
	p.atMost(field, len(names), most)
	for i, name := range names[:min(len(names), most)] {
		if !plain(name) {
			p.name(index(field, i), name)
		}
	}
}

func (p *problems) text(field, text string) {
	switch {
	case len(text) > MaxText:
		p.add(field, "has %d bytes, at most %d are allowed", len(text), MaxText)
	case !utf8.ValidString(text):
		p.add(field, "must be valid UTF-8")
	}
}

func (p *problems) profileName(field, name string) {
	if strings.Contains(name, "@") {
		p.add(field, "must not contain @, which stands before a version")
		return
	}
	p.name(field, name)
}

func (p *problems) atMost(field string, n, most int) {
	if n > most {
		p.add(field, "has %d entries, at most %d are allowed", n, most)
	}
}

func (p *problems) between(field string, n, least, most int64) {
	if n < least || n > most {
		p.add(field, "is %d, must be from %d to %d", n, least, most)
	}
}

func (p *problems) optionalBetween(field string, n *int64, least, most int64) {
	if n != nil {
		p.between(field, *n, least, most)
	}
}

func (p *problems) usd(field string, amount *USD) {
	if amount != nil && (*amount < 0 || *amount > MaxUSD) {
		p.add(field, "is %d nano-dollars, must be from 0 to %d", int64(*amount), int64(MaxUSD))
	}
}

func (p *problems) object(field string, value JSON) {
	if !value.IsObject() {
		p.add(field, "must be a JSON object")
	}
}

func (p *problems) epoch(field string, epoch uint64) {
	if epoch < 1 || epoch > MaxCount {
		p.add(field, "is %d, must be from 1 to %d", epoch, int64(MaxCount))
	}
}

func (p *problems) optionalEpoch(field string, epoch *uint64) {
	if epoch != nil {
		p.epoch(field, *epoch)
	}
}

func (p *problems) checkpoint(field string, c *Checkpoint) {
	if c == nil {
		return
	}
	p.optionalName(field+".wipBranch", c.WipBranch)
	p.optionalName(field+".wipBase", c.WipBase)
	p.optionalName(field+".wipCommit", c.WipCommit)
}

// oneOf judges a word of a closed list.
func oneOf[T ~string](p *problems, field string, word T, known ...T) {
	if slices.Contains(known, word) {
		return
	}
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	p.add(field, "%q is none of %s", string(word), strings.Join(words, ", "))
}

// plain reports whether a name is beyond doubt: printable ASCII of a good length. It spares the usual case the work of
// building a path.
func plain(name string) bool {
	if name == "" || len(name) > MaxName {
		return false
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return true
}

func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
