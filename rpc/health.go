package rpc

// This file tells whoever starts, stops and balances nodes how this one is, and people where they have come to.

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// livez is 200 while the process answers at all: an outage of the cluster must not restart its nodes.
func (a *API) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// readiness lists what a node must have passed, in this order, with the words of Node.Ready.
var readiness = []struct{ check, reason string }{
	{"running", "stopping"},
	{"bootstrapped", "bootstrapping"},
	{"voter", "joining"},
	{"leader", "no_leader"},
	{"caught-up", "catching_up"},
	{"disk", "disk"},
}

// readyz is 200 if the node can serve well, else 503 with the reason.
func (a *API) readyz(w http.ResponseWriter, r *http.Request) {
	reason, status := "", http.StatusOK
	if err := a.node.Ready(); err != nil {
		reason, status = err.Error(), http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	if r.URL.Query().Has("verbose") && !strings.Contains(r.Header.Get("Accept"), "json") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, checks(reason))
		return
	}
	body := struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitzero"`
	}{reason == "", reason}
	b, _ := json.Marshal(body) // a bool and a string: there is no error to have
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// checks is one line for each check up to the one that failed.
func checks(reason string) string {
	var b strings.Builder
	failed := slices.IndexFunc(readiness, func(c struct{ check, reason string }) bool { return c.reason == reason })
	for i, c := range readiness {
		if i == failed {
			break
		}
		fmt.Fprintf(&b, "[+]%s ok\n", c.check)
	}
	switch {
	case failed >= 0:
		fmt.Fprintf(&b, "[-]%s failed: %s\n", readiness[failed].check, reason)
	case reason != "":
		fmt.Fprintf(&b, "[-]node failed: %s\n", reason)
	}
	return b.String()
}

const frontPage = `<!doctype html>
<html lang="en">
<title>fleet</title>
<h1>fleet</h1>
<p>A coordinator for fleets of AI coding agents. The API is below <code>/fleet</code> and <code>/cluster</code>;
<a href="/openapi.json">/openapi.json</a> describes it, <a href="/readyz?verbose">/readyz</a> says how this node is,
<a href="/metrics">/metrics</a> counts.</p>
</html>
`

// serveFrontPage says where the API is.
func serveFrontPage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, frontPage)
}
