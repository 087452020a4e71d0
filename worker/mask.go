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
	secrets  []string // longest first
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
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, "[masked]")
	}
	return masker{strings.NewReplacer(pairs...), secrets}
}

func (m masker) mask(s string) string { return m.replacer.Replace(s) }

// maskCut is mask for a text whose beginning was cut off, perhaps through a secret.
func (m masker) maskCut(s string) string {
	cut := 0
	for _, secret := range m.secrets {
		for n := min(len(secret)-1, len(s)); n > cut; n-- {
			if strings.HasSuffix(secret, s[:n]) {
				cut = n
			}
		}
	}
	return m.mask(s[cut:])
}
