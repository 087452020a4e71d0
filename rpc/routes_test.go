package rpc

// This file holds the routes against every role and product.

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

func TestUnknownPathsAndMethods(t *testing.T) {
	c, _ := newClient(t)
	for _, path := range []string{"/nothing", "/fleet/jobs/", "/fleet//jobs", "/fleet/jobs/../jobs", "/cluster/backup", "//"} {
		r := c.call("POST", "http://h"+path, "")
		c.problem(r, fleet.NotFound)
		if fleetPath := strings.HasPrefix(path, "/fleet/"); (r.header.Get("Fleet-Index") != "") != fleetPath {
			t.Errorf("%s: Fleet-Index: got %q, want one: %t", path, r.header.Get("Fleet-Index"), fleetPath)
		}
	}
	for path, allow := range map[string]string{
		"/fleet/jobs": "GET, POST", "/fleet/jobs/x": "GET, PATCH", "/livez": "GET", "/cluster/tokens/x": "DELETE", "/": "GET",
	} {
		r := c.call("PUT", path, "")
		c.problem(r, fleet.MethodNotAllowed)
		if got := r.header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow: got %q, want %q", path, got, allow)
		}
	}
}

// HEAD answers as GET does, without the body, but not where an answer waits or streams.
func TestHeadIsGetWithoutItsBody(t *testing.T) {
	c, _ := newClient(t)
	job := as[fleet.Job](t, c.call("POST", "/fleet/jobs", `{"bodyMd":"x"}`), http.StatusCreated)
	server := httptest.NewServer(c.api)
	defer server.Close()
	ask := func(method, path string, headers ...string) reply {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+rootToken)
		r.Header.Set("X-Product-Id", "p1")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		got, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		body, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply{got.StatusCode, got.Header, string(body)}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/openapi.json", "/", "/fleet/jobs", "/fleet/jobs/" + job.ID, "/fleet/jobs/nothing"} {
		get, head := ask("GET", path), ask("HEAD", path)
		if head.status != get.status || head.body != "" {
			t.Errorf("%s: got %d %q, want %d without a body", path, head.status, head.body, get.status)
		}
		for _, name := range []string{"Content-Type", "ETag", "Fleet-Index"} {
			if got, want := head.header.Get(name), get.header.Get(name); got != want {
				t.Errorf("%s: %s: got %q, want %q, as for GET", path, name, got, want)
			}
		}
	}
	if r := ask("HEAD", "/fleet/jobs/"+job.ID, "If-None-Match", fmt.Sprintf("%q", fmt.Sprint(job.Version))); r.status != http.StatusNotModified {
		t.Errorf("HEAD of what is known: got %d, want 304", r.status)
	}
	for _, path := range []string{"/fleet/events", "/cluster/snapshot", "/fleet/claim"} {
		if r := ask("HEAD", path); r.status != http.StatusMethodNotAllowed {
			t.Errorf("HEAD %s: got %d, want 405", path, r.status)
		}
	}
}

// whoMay is the contract's column "role", written down again: a route that is not in it, or is let in by another role,
// fails. worker: the body decides whether it is a factory's call or an operator's.
var whoMay = map[string]string{
	"POST /fleet/jobs":                     "submitter",
	"POST /fleet/jobs/batch":               "submitter",
	"GET /fleet/jobs":                      "reader",
	"GET /fleet/jobs/{id}":                 "reader",
	"PATCH /fleet/jobs/{id}":               "worker",
	"POST /fleet/jobs/{id}/cancel":         "submitter",
	"POST /fleet/jobs/{id}/requeue":        "operator",
	"GET /fleet/jobs/{id}/why":             "reader",
	"POST /fleet/claim":                    "factory",
	"POST /fleet/claim/batch":              "factory",
	"POST /fleet/reports":                  "factory",
	"GET /fleet/jobs/{id}/lease":           "reader",
	"POST /fleet/jobs/{id}/lease/renew":    "factory",
	"POST /fleet/jobs/{id}/lease/release":  "factory",
	"POST /fleet/factories/heartbeat":      "factory",
	"GET /fleet/factories":                 "reader",
	"GET /fleet/factories/{factoryId}":     "reader",
	"GET /fleet/jobs/{id}/runs":            "reader",
	"GET /fleet/jobs/{id}/events":          "reader",
	"POST /fleet/jobs/{id}/events":         "worker",
	"GET /fleet/jobs/{id}/artifacts":       "reader",
	"POST /fleet/jobs/{id}/artifacts":      "worker",
	"GET /fleet/events":                    "reader",
	"POST /fleet/profiles":                 "operator",
	"GET /fleet/profiles":                  "reader",
	"GET /fleet/profiles/{name}":           "reader",
	"GET /fleet/profiles/{name}/{version}": "reader",
	"GET /fleet/stats":                     "reader",
	"GET /cluster/status":                  "admin",
	"DELETE /cluster/servers/{name}":       "admin",
	"POST /cluster/leader/transfer":        "admin",
	"GET /cluster/snapshot":                "admin",
	"POST /cluster/restore":                "admin",
	"POST /cluster/tokens":                 "admin",
	"GET /cluster/tokens":                  "admin",
	"DELETE /cluster/tokens/{id}":          "admin",
	"GET /livez":                           "",
	"GET /readyz":                          "",
	"GET /metrics":                         "",
	"GET /openapi.json":                    "",
	"GET /":                                "",
}

// includes is who may do what a role may: each includes reader, operator includes submitter, admin all.
var includes = map[string][]fleet.Role{
	"reader":    {"reader", "submitter", "factory", "operator", "admin"},
	"submitter": {"submitter", "operator", "admin"},
	"factory":   {"factory", "admin"},
	"operator":  {"operator", "admin"},
	"worker":    {"factory", "operator", "admin"},
	"admin":     {"admin"},
}

// Every route is refused without a token and with one that is not known; to every role that may not; to who may, in a
// product that is not the token's; and, to a token of one product, on the cluster's own routes. All others get past the
// door, and are told that their body is no JSON.
func TestEveryRouteForEveryRoleAndProduct(t *testing.T) {
	c, _ := newClient(t)
	secret := func(role fleet.Role, products string) string {
		body := fmt.Sprintf(`{"roles":[%q],"products":%s}`, role, products)
		return "Bearer " + as[newToken](t, c.call("POST", "/cluster/tokens", body), http.StatusCreated).Secret
	}
	anywhere, inP1 := map[fleet.Role]string{}, map[fleet.Role]string{}
	for _, role := range fleet.Roles {
		anywhere[role], inP1[role] = secret(role, "[]"), secret(role, `["p1"]`)
	}
	rows := 0
	for _, rt := range c.api.routes() {
		name := rt.method + " " + rt.path
		wanted, known := whoMay[name]
		if !known {
			t.Errorf("%s is a route that this test does not know", name)
			continue
		}
		rows++
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(rt.path, "x")
		body := ""
		if rt.method != http.MethodGet {
			body = `{`
		}
		call := func(token, product string) reply {
			return c.call(rt.method, path, body, "Authorization", token, "X-Product-Id", product, "Accept", "application/json")
		}
		passed := func(r reply) bool { return r.status != http.StatusForbidden && r.status != http.StatusUnauthorized }
		if wanted == "" {
			if r := call("", ""); r.status != http.StatusOK {
				t.Errorf("%s: got %d, want it open", name, r.status)
			}
			continue
		}
		for _, bad := range []string{
			"", "Bearer nonsense", "Basic cm9vdDpyb290", "Bearer", "Bearer " + newSecret(), "Bearer " + strings.ToUpper(rootToken),
			"Bearer " + rootToken + " " + rootToken, "Bearer " + strings.Repeat("x", 60<<10),
		} {
			c.problem(call(bad, "p1"), fleet.Unauthenticated)
		}
		ofCluster := strings.HasPrefix(rt.path, "/cluster/")
		for _, role := range fleet.Roles {
			may := slices.Contains(includes[wanted], role)
			for _, test := range []struct {
				token, product string
				may            bool
			}{
				{anywhere[role], "p1", may},
				{anywhere[role], "p2", may},
				{inP1[role], "p1", may && !ofCluster},
				{inP1[role], "", may && !ofCluster},
				{inP1[role], "p2", false},
				{inP1[role], "*", false},
			} {
				r := call(test.token, test.product)
				if !test.may {
					c.problem(r, fleet.Forbidden)
				} else if !passed(r) {
					t.Errorf("%s as %s in %q: got %d, want to get past the door", name, role, test.product, r.status)
				}
			}
		}
		if !passed(call("Bearer "+rootToken, "p1")) {
			t.Errorf("%s as root: got refused", name)
		}
	}
	if rows != len(whoMay) {
		t.Errorf("got %d routes, want %d", rows, len(whoMay))
	}
}

func TestTokensOfOtherProducts(t *testing.T) {
	c, _ := newClient(t)
	secret := as[newToken](t, c.call("POST", "/cluster/tokens", `{"roles":["reader"],"products":["a"]}`), http.StatusCreated).Secret
	two := as[newToken](t, c.call("POST", "/cluster/tokens", `{"roles":["reader"],"products":["a","b"]}`), http.StatusCreated).Secret
	bearer := "Bearer " + secret
	if r := c.call("GET", "/fleet/jobs", "", "Authorization", bearer, "X-Product-Id", ""); r.status != http.StatusOK {
		t.Errorf("the token's only product: got %d %s, want 200", r.status, r.body)
	}
	c.problem(c.call("GET", "/fleet/jobs", "", "Authorization", bearer, "X-Product-Id", "b"), fleet.Forbidden)
	p := c.problem(c.call("GET", "/fleet/jobs", "", "Authorization", "Bearer "+two, "X-Product-Id", ""), fleet.Invalid)
	if p.Fields[0].Field != "X-Product-Id" {
		t.Errorf("got %v, want field X-Product-Id", p.Fields)
	}
}
