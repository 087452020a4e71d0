package rpc

// This file reads the headers that change what a call means: keys, preconditions, how fresh an answer must be.

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// idempotencyKey is the Idempotency-Key, bare or as a quoted structured string (both are the same key), empty if there
// is none.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", fleet.InvalidField("Idempotency-Key", "there are %d of these headers; send one", len(values))
	}
	key := values[0]
	if strings.HasPrefix(key, `"`) {
		unquoted, rest, ok := quoted(key)
		if !ok || rest != "" {
			return "", fleet.InvalidField("Idempotency-Key", "is not one well-formed quoted string")
		}
		key = unquoted
	}
	return key, invalid(fleet.ValidateName("Idempotency-Key", key))
}

// quoted reads a structured-field string (RFC 9651, 3.3.3) and returns what follows it.
func quoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// entityTag is one member of If-Match or If-None-Match.
type entityTag struct {
	weak    bool
	version string
}

// entityTags reads a list of entity tags, or * (RFC 9110, 13.1.1). The zero result is a missing header.
func entityTags(h http.Header, name string) (star bool, tags []entityTag, err error) {
	values := h.Values(name)
	if len(values) == 0 {
		return false, nil, nil
	}
	s := strings.Join(values, ",")
	if strings.TrimSpace(s) == "*" {
		return true, nil, nil
	}
	malformed := fleet.InvalidField(name, `must be *, or a list of entity tags such as "7"`)
	for {
		var tag entityTag
		s = strings.TrimLeft(s, " \t")
		s, tag.weak = strings.CutPrefix(s, "W/")
		if !strings.HasPrefix(s, `"`) {
			return false, nil, malformed
		}
		end := strings.IndexByte(s[1:], '"')
		if end < 0 {
			return false, nil, malformed
		}
		tag.version, s = s[1:1+end], strings.TrimLeft(s[2+end:], " \t")
		tags = append(tags, tag)
		if s == "" {
			return false, tags, nil
		}
		if s[0] != ',' {
			return false, nil, malformed
		}
		s = s[1:]
	}
}

// ifMatch is the precondition of an operator's call. A version is compared strongly, so a weak tag could never match.
func ifMatch(h http.Header) (fsm.IfMatch, error) {
	star, tags, err := entityTags(h, "If-Match")
	if err != nil || star {
		return fsm.IfMatch{Any: star}, err
	}
	var m fsm.IfMatch
	for _, tag := range tags {
		version, err := strconv.ParseUint(tag.version, 10, 64)
		if err != nil || tag.weak {
			return fsm.IfMatch{}, fleet.InvalidField("If-Match", `must name versions as strong entity tags such as "7"`)
		}
		m.Versions = append(m.Versions, version)
	}
	return m, nil
}

// noneMatch is the versions that the caller has already.
type noneMatch struct {
	star bool
	tags []entityTag
}

func ifNoneMatch(h http.Header) (m noneMatch, err error) {
	m.star, m.tags, err = entityTags(h, "If-None-Match")
	return m, err
}

// names reports whether the caller has this version. It is compared weakly: a weak tag will do.
func (m noneMatch) names(version uint64) bool {
	current := strconv.FormatUint(version, 10)
	return m.star || slices.ContainsFunc(m.tags, func(t entityTag) bool { return t.version == current })
}

// minIndex is the Fleet-Min-Index, zero if there is none.
func minIndex(h http.Header) (uint64, error) {
	values := h.Values("Fleet-Min-Index")
	if len(values) == 0 {
		return 0, nil
	}
	index, err := strconv.ParseUint(values[0], 10, 64)
	if len(values) > 1 || err != nil {
		return 0, fleet.InvalidField("Fleet-Min-Index", "must be one whole number, the Fleet-Index of an earlier answer")
	}
	return index, nil
}

// requestID is the caller's own X-Request-Id if it is fit for a log, else a new one.
func (a *API) requestID(h http.Header) string {
	id := h.Get("X-Request-Id")
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, unprintable) {
		return a.ids.next()
	}
	return id
}
