package rpc

// This file holds the routes against every role and product.

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

func TestUnknownPathsAndMethods(t *testing.T) {
	c, _ := newClient(t)
	for _, path := range []string{"/nothing", "/fleet/jobs/", "/fleet//jobs", "/fleet/jobs/../jobs", "/cluster/restore", "//"} {
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

// Every route is refused without a token, with a token that is not known, and to every role that does not include one
// of its own; the others get past the door.
func TestEveryRouteForEveryRole(t *testing.T) {
	c, _ := newClient(t)
	secrets := map[fleet.Role]string{}
	for _, role := range fleet.Roles {
		body := fmt.Sprintf(`{"roles":[%q],"products":[]}`, role)
		secrets[role] = as[newToken](t, c.call("POST", "/cluster/tokens", body), http.StatusCreated).Secret
	}
	for _, rt := range c.api.routes() {
		if rt.open != nil {
			continue
		}
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(rt.path, "x")
		body := ""
		if rt.method != http.MethodGet {
			body = `{`
		}
		c.problem(c.call(rt.method, path, body, "Authorization", ""), fleet.Unauthenticated)
		for _, bad := range []string{"Bearer nonsense", "Basic cm9vdDpyb290", "Bearer", "Bearer " + newSecret(), "Bearer " + strings.ToUpper(rootToken)} {
			c.problem(c.call(rt.method, path, body, "Authorization", bad), fleet.Unauthenticated)
		}
		for _, role := range fleet.Roles {
			may := slices.ContainsFunc(rt.roles, role.Includes)
			r := c.call(rt.method, path, body, "Authorization", "Bearer "+secrets[role], "Accept", "application/json")
			if !may {
				c.problem(r, fleet.Forbidden)
			} else if r.status == http.StatusForbidden || r.status == http.StatusUnauthorized {
				t.Errorf("%s %s as %s: got %d, want to get past the door", rt.method, path, role, r.status)
			}
		}
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
