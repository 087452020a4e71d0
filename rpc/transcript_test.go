package rpc

// This file speaks with the API in transcripts: testdata/*.txt, one HTTP call each, rewritten with -rewrite.

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// Each transcript has a node of its own, in which every role has a token that is named after it.
func TestTranscripts(t *testing.T) {
	seen := map[fleet.Code]bool{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := newScript(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "call" {
				d.Fatalf(t, "there is no command %s", d.Cmd)
			}
			times, pad := 1, 0
			d.MaybeScanArgs(t, "times", &times) // the call is made so often; the last answer is shown
			d.MaybeScanArgs(t, "pad", &pad)     // the body is made so long
			for range times - 1 {
				s.send(d.Input, pad)
			}
			return s.call(t, d.Input, pad, seen)
		})
	})
	if t.Failed() {
		return
	}
	elsewhere := map[fleet.Code]string{
		fleet.Internal: "TestRefusalsAreProblems", fleet.RateLimited: "fsm", fleet.NoLeader: "cluster", fleet.DiskFull: "cluster",
		fleet.OutcomeUnknown: "cluster", fleet.InvalidSnapshot: "there is no restore yet",
	}
	for code := range statuses {
		if !seen[code] && elsewhere[code] == "" {
			t.Errorf("no transcript shows %s", code)
		}
	}
}

// script is one conversation. Names stand for what has a random id: $a is the job with the idempotencyKey a, or the token
// with the name a.
type script struct {
	client
	node    *singleNode
	names   map[string]string // name → id
	ids     map[string]string // id → name
	secrets map[string]string // name of a token → its secret
}

func newScript(t *testing.T) *script {
	c, node := newClient(t)
	node.still = true
	s := &script{c, node, map[string]string{}, map[string]string{}, map[string]string{}}
	for _, role := range fleet.Roles {
		s.learn(c.call("POST", "/cluster/tokens", fmt.Sprintf(`{"name":%q,"roles":[%q],"products":[]}`, role, role)).body)
	}
	s.learn(c.call("POST", "/cluster/tokens", `{"name":"only-p1","roles":["operator","factory"],"products":["p1"]}`).body)
	return s
}

// learn gives what an answer shows a name.
func (s *script) learn(body string) {
	var doc struct {
		ID             string `json:"id"`
		Name           string `json:"name"`
		IdempotencyKey string `json:"idempotencyKey"`
		Secret         string `json:"secret"`
	}
	if json.Unmarshal([]byte(body), &doc) != nil || doc.ID == "" {
		return
	}
	name := doc.IdempotencyKey
	if doc.Secret != "" {
		name = doc.Name
		s.secrets[name] = doc.Secret
	}
	if name != "" {
		s.names[name], s.ids[doc.ID] = doc.ID, "$"+name
	}
}

var (
	aName   = regexp.MustCompile(`\$[a-z0-9-]+`)
	anID    = regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{26}`)
	aHeader = regexp.MustCompile(`^([A-Za-z-]+): ?(.*)$`)
)

// send makes the call that is written as a line with method and path, lines with headers, and a body. As: names the
// token, "nobody" none; a header without a value is left out.
func (s *script) send(input string, pad int) reply {
	input = aName.ReplaceAllStringFunc(input, func(name string) string {
		if id, ok := s.names[name[1:]]; ok {
			return id
		}
		return name
	})
	lines := strings.Split(input, "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	headers, body := []string{"X-Request-Id", "r1"}, ""
	for i, line := range lines[1:] {
		m := aHeader.FindStringSubmatch(line)
		if m == nil {
			body = strings.Join(lines[i+1:], "\n")
			break
		}
		name, value := m[1], m[2]
		if name == "As" {
			name, value = "Authorization", "Bearer "+s.secrets[value]
			if m[2] == "nobody" {
				value = ""
			}
		}
		headers = append(headers, name, value)
	}
	body += strings.Repeat(" ", max(0, pad-len(body)))
	r := s.client.call(method, path, body, headers...)
	s.learn(r.body)
	return r
}

// call makes a call and shows what it came to. A refusal must change nothing.
func (s *script) call(t *testing.T, input string, pad int, seen map[fleet.Code]bool) string {
	t.Helper()
	before := s.node.machine.Hash()
	r := s.send(input, pad)
	var out strings.Builder
	fmt.Fprintf(&out, "%d", r.status)
	for _, name := range []string{"Allow", "ETag", "Fleet-Outcome", "Fleet-Replayed", "Retry-After", "WWW-Authenticate"} {
		if value := r.header.Get(name); value != "" {
			fmt.Fprintf(&out, " %s: %s", name, value)
		}
	}
	out.WriteByte('\n')
	if r.status < http.StatusBadRequest {
		return out.String()
	}
	if after := s.node.machine.Hash(); after != before {
		t.Errorf("%s\nwas refused with %d and changed the state", input, r.status)
	}
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("%s\ngot %s: %v", input, r.body, err)
	}
	s.problem(r, p.Code)
	seen[p.Code] = true
	members := jsontext.Value(r.body)
	if err := members.Indent(jsontext.WithIndent("  ")); err != nil {
		t.Fatal(err)
	}
	unnamed := map[string]string{}
	out.WriteString(anID.ReplaceAllStringFunc(string(members), func(id string) string {
		if name, ok := s.ids[id]; ok {
			return name
		}
		if unnamed[id] == "" {
			unnamed[id] = "$" + strconv.Itoa(len(unnamed)+1)
		}
		return unnamed[id]
	}))
	out.WriteByte('\n')
	return out.String()
}
