package rpc

// This file reads headers, cursors and secrets, well-formed and not.

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lysnrai/fleet/fsm"
)

func TestIfMatch(t *testing.T) {
	for _, c := range []struct {
		header  []string
		want    fsm.IfMatch
		refused bool
	}{
		{nil, fsm.IfMatch{}, false},
		{[]string{"*"}, fsm.IfMatch{Any: true}, false},
		{[]string{`"7"`}, fsm.IfMatch{Versions: []uint64{7}}, false},
		{[]string{`"7", "8"`}, fsm.IfMatch{Versions: []uint64{7, 8}}, false},
		{[]string{`"7"`, `"8"`}, fsm.IfMatch{Versions: []uint64{7, 8}}, false},
		{header: []string{`W/"7"`}, refused: true},
		{header: []string{`7`}, refused: true},
		{header: []string{`"7`}, refused: true},
		{header: []string{`"seven"`}, refused: true},
		{header: []string{`"7" "8"`}, refused: true},
		{header: []string{`"7",`}, refused: true},
		{header: []string{``}, refused: true},
		{header: []string{`*, "7"`}, refused: true},
	} {
		got, err := ifMatch(http.Header{"If-Match": c.header})
		if (err != nil) != c.refused {
			t.Errorf("%q: got %v, want refused %t", c.header, err, c.refused)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.header, diff)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	for _, c := range []struct {
		header  []string
		want    string
		refused bool
	}{
		{nil, "", false},
		{[]string{"abc"}, "abc", false},
		{[]string{`"abc"`}, "abc", false},
		{[]string{`"a\"b\\c"`}, `a"b\c`, false},
		{[]string{`a"b`}, `a"b`, false},
		{[]string{strings.Repeat("k", 256)}, strings.Repeat("k", 256), false},
		{header: []string{""}, refused: true},
		{header: []string{`""`}, refused: true},
		{header: []string{`"abc`}, refused: true},
		{header: []string{`"abc"x`}, refused: true},
		{header: []string{`"a\n"`}, refused: true},
		{header: []string{"a\tb"}, refused: true},
		{header: []string{"\xff"}, refused: true},
		{header: []string{strings.Repeat("k", 257)}, refused: true},
		{header: []string{"a", "b"}, refused: true},
	} {
		got, err := idempotencyKey(http.Header{"Idempotency-Key": c.header})
		if (err != nil) != c.refused || err == nil && got != c.want {
			t.Errorf("%q: got %q, %v; want %q, refused %t", c.header, got, err, c.want, c.refused)
		}
	}
}

func TestSecretsCarryTheirSum(t *testing.T) {
	s := newSecret()
	if len(s) != 4+43+6 || !wellFormedSecret(s) {
		t.Errorf("got %q, want a well-formed secret of 53 characters", s)
	}
	if s == newSecret() {
		t.Error("got the same secret twice")
	}
	typo := s[:10] + string('a'+('b'-s[10]+26)%26) + s[11:]
	if typo != s && wellFormedSecret(typo) {
		t.Errorf("%q: got well-formed, want the sum to tell the typo", typo)
	}
}

func TestCursorIsBoundToItsProduct(t *testing.T) {
	q := func(cursor string) query {
		q, err := parseQuery(httptest.NewRequest("GET", "/?cursor="+cursor, nil), []string{"cursor"})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	good := newCursor("p1", 42)
	if got, err := q(good).cursor("p1"); got != 42 || err != nil {
		t.Errorf("got %d, %v; want 42", got, err)
	}
	for _, bad := range []string{newCursor("p2", 42), "42", good + "A", good[1:], "%FF"} {
		if got, err := q(bad).cursor("p1"); err == nil {
			t.Errorf("%q: got %d, want it refused", bad, got)
		}
	}
	if got := newCursor("p1", 0); got != "" {
		t.Errorf("at the end: got %q, want none", got)
	}
}
