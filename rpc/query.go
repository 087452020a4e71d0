package rpc

// This file reads query parameters strictly: what a route does not know, or is not acceptable, is refused.

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// query is the parameters of a call, each at most once and with a value.
type query struct{ values url.Values }

// parseQuery refuses parameters that the route does not know.
func parseQuery(r *http.Request, known []string) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, fleet.InvalidField("query", "is not well-formed: %v", err)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch v := values[name]; {
		case !slices.Contains(known, name) && len(known) == 0:
			return query{}, fleet.InvalidField(name, "this route takes no query parameters")
		case !slices.Contains(known, name):
			return query{}, fleet.InvalidField(name, "is no query parameter of this route; it takes %s", strings.Join(known, ", "))
		case len(v) > 1:
			return query{}, fleet.InvalidField(name, "is given %d times", len(v))
		case v[0] == "":
			return query{}, fleet.InvalidField(name, "is empty")
		}
	}
	return query{values}, nil
}

func (q query) has(name string) bool    { return len(q.values[name]) > 0 }
func (q query) text(name string) string { return q.values.Get(name) }

// number is a parameter from low to high, or a default.
func (q query) number(name string, low, high, absent uint64) (uint64, error) {
	if !q.has(name) {
		return absent, nil
	}
	n, err := strconv.ParseUint(q.text(name), 10, 64)
	if err != nil || n < low || n > high {
		return 0, fleet.InvalidField(name, "must be a whole number from %d to %d", low, high)
	}
	return n, nil
}

// page is how many rows a call wants.
func (q query) page() (int, error) {
	n, err := q.number("limit", 1, fleet.MaxPage, fleet.DefaultPage)
	return int(n), err
}

// name is a parameter that is compared by bytes.
func (q query) name(param string) (string, error) {
	if !q.has(param) {
		return "", nil
	}
	return q.text(param), invalid(fleet.ValidateName(param, q.text(param)))
}

// consistency is how fresh a read must be.
func (q query) consistency() (cluster.Consistency, error) {
	switch q.text("consistency") {
	case "", "linearizable":
		return cluster.Linearizable, nil
	case "stale":
		return cluster.Stale, nil
	}
	return 0, fleet.InvalidField("consistency", "must be linearizable or stale")
}

// jobFilter is what a list of jobs is narrowed to.
func (q query) jobFilter() (f fsm.JobFilter, err error) {
	f.Stage = fleet.Stage(q.text("stage"))
	if q.has("stage") && f.Stage.Index() < 0 {
		return f, fleet.InvalidField("stage", "%q is no stage", f.Stage)
	}
	for _, field := range []struct {
		param string
		to    *string
	}{{"idempotencyKey", &f.IdempotencyKey}, {"parentId", &f.ParentID}, {"factoryId", &f.FactoryID}} {
		if *field.to, err = q.name(field.param); err != nil {
			return f, err
		}
	}
	if q.has("parked") {
		parked := q.text("parked") == "true"
		if !parked && q.text("parked") != "false" {
			return f, fleet.InvalidField("parked", "must be true or false")
		}
		f.Parked = &parked
	}
	if q.has("label") {
		key, value, ok := strings.Cut(q.text("label"), ":")
		if !ok || len(fleet.ValidateName("label", key)) > 0 || len(fleet.ValidateText("label", value)) > 0 || strings.Contains(value, ":") {
			return f, fleet.InvalidField("label", "must be key:value, with one colon")
		}
		f.Label = fleet.Label{Key: key, Value: value}
	}
	return f, nil
}

// A cursor is a format byte, a fingerprint of the product, and the place after which the next page begins.
const (
	cursorFormat = 1
	cursorBytes  = 1 + 8 + 8
)

// newCursor is the cursor of the next page of a product's jobs, empty at the end.
func newCursor(product string, after uint64) string {
	if after == 0 {
		return ""
	}
	mark := sha256.Sum256([]byte(product))
	b := append([]byte{cursorFormat}, mark[:8]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, after))
}

// cursor is where a page begins, zero for the first.
func (q query) cursor(product string) (uint64, error) {
	if !q.has("cursor") {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.text("cursor"))
	if err == nil && len(b) == cursorBytes {
		after := binary.BigEndian.Uint64(b[9:])
		if newCursor(product, after) == q.text("cursor") {
			return after, nil
		}
	}
	return 0, fleet.InvalidField("cursor", "is not a nextCursor of this product; start again without one")
}
