package worker

// This file keeps secrets of the factory's environment out of what is reported.

import (
	"slices"
	"strings"
)

// minSecret is how long a value is at least to be masked: shorter ones are words.
const minSecret = 4

// masker replaces secrets.
type masker struct {
	replacer *strings.Replacer
	most     int
}

// maskerOf masks the values of variables whose names end like those of secrets, and others that are given.
func maskerOf(env []string, others ...string) masker {
	secrets := others
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		for _, suffix := range []string{"_TOKEN", "_SECRET", "_PASSWORD", "_KEY"} {
			if strings.HasSuffix(strings.ToUpper(name), suffix) {
				secrets = append(secrets, value, strings.TrimSpace(value))
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < minSecret })
	// Of two secrets that begin alike the replacer takes the one that is named first.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var m masker
	var pairs []string
	for _, s := range secrets {
		m.most = max(m.most, len(s))
		pairs = append(pairs, s, "[masked]")
	}
	m.replacer = strings.NewReplacer(pairs...)
	return m
}

func (m masker) mask(s string) string { return m.replacer.Replace(s) }

// longest is the length of the longest secret.
func (m masker) longest() int { return m.most }
