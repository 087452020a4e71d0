package rpc

// This file sends what must be refused: values, headers and paths beyond what is allowed. Not one byte of the state may
// change, and the node must be well after it.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

func TestBadInputChangesNothing(t *testing.T) {
	c, node := newClient(t)
	node.still = true
	job := submitted(t, c, "a").ID
	many := func(n int, format string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i))
		}
		return strings.Join(list, ",")
	}
	long := strings.Repeat("x", fleet.MaxName+1)
	jobs, batch, path := "POST /fleet/jobs", "POST /fleet/jobs/batch", "/fleet/jobs/"+job
	claim, beat := "POST /fleet/claim", "POST /fleet/factories/heartbeat"
	for _, test := range []struct {
		route, body string
		field       string // empty: the code says it all
		code        fleet.Code
	}{
		// Numbers
		{claim, `{"factoryId":"f","leaseSeconds":-1}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":0}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":86401}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":5.0}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":"5"}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":1e400}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","leaseSeconds":9223372036854775808}`, "leaseSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","waitSeconds":61}`, "waitSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","waitSeconds":-1}`, "waitSeconds", fleet.Invalid},
		{claim, `{"factoryId":"f","max":1}`, "max", fleet.Invalid},
		{claim + "/batch", `{"factoryId":"f"}`, "max", fleet.Invalid},
		{claim + "/batch", `{"factoryId":"f","max":0}`, "max", fleet.Invalid},
		{claim + "/batch", `{"factoryId":"f","max":1001}`, "max", fleet.Invalid},
		{beat, `{"factoryId":"f","seatLimit":0}`, "seatLimit", fleet.Invalid},
		{beat, `{"factoryId":"f","seatLimit":10001}`, "seatLimit", fleet.Invalid},
		{beat, `{"factoryId":"f","load":-0.5}`, "load", fleet.Invalid},
		{beat, `{"factoryId":"f","load":1e400}`, "load", fleet.Invalid},
		{beat, `{"factoryId":"f","heartbeatSeconds":3601}`, "heartbeatSeconds", fleet.Invalid},
		{beat, `{"factoryId":"f","health":""}`, "health", fleet.Invalid},
		{beat, `{"factoryId":"f","descriptor":[]}`, "descriptor", fleet.Invalid},
		{beat, `{"factoryId":"f","leases":[` + many(1001, `{"jobId":"j","leaseEpoch":1}`) + `]}`, "leases", fleet.Invalid},
		{beat, `{"factoryId":"f","leases":[{"jobId":"j","leaseEpoch":0}]}`, "leases[0].leaseEpoch", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":0}`, "leaseEpoch", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":-1}`, "leaseEpoch", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":9223372036854775808}`, "leaseEpoch", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":18446744073709551616}`, "leaseEpoch", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":1,"stage":"Building"}`, "stage", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":1,"stage":""}`, "stage", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":1,"insights":{"costUsd":-1}}`, "insights.costUsd", fleet.Invalid},
		{"PATCH " + path, `{"leaseEpoch":1,"priority":"low"}`, "priority", fleet.Invalid},
		{"POST " + path + "/lease/renew", `{}`, "leaseEpoch", fleet.Invalid},
		{"POST " + path + "/lease/release", `{"leaseEpoch":1,"delaySeconds":3601}`, "delaySeconds", fleet.Invalid},
		{jobs, `{"bodyMd":"x","retry":{"max":1000000000}}`, "retry.max", fleet.Invalid},
		{jobs, `{"bodyMd":"x","retry":{"max":1,"backoff":9223372036854775807}}`, "retry.backoff", fleet.Invalid},
		{jobs, `{"bodyMd":"x","retry":{"max":1,"maxLeaseLosses":0}}`, "retry.maxLeaseLosses", fleet.Invalid},
		{jobs, `{"bodyMd":"x","budget":{"tokens":9007199254740992}}`, "budget.tokens", fleet.Invalid},
		{jobs, `{"bodyMd":"x","budget":{"wall":31536001}}`, "budget.wall", fleet.Invalid},
		{jobs, `{"bodyMd":"x","budget":{"usd":1000000000.1}}`, "budget.usd", fleet.Invalid},
		{jobs, `{"bodyMd":"x","budget":{"usd":1e400}}`, "budget.usd", fleet.Invalid},
		// Words and names
		{jobs, `{"bodyMd":"x","priority":"HIGH"}`, "priority", fleet.Invalid},
		{jobs, `{"bodyMd":"x","priority":""}`, "priority", fleet.Invalid},
		{jobs, `{"bodyMd":"x","kind":""}`, "kind", fleet.Invalid},
		{jobs, `{"bodyMd":"x","depsMode":"none"}`, "depsMode", fleet.Invalid},
		{jobs, `{"bodyMd":"x","stage":"shipped"}`, "stage", fleet.Invalid},
		{jobs, `{"bodyMd":"x","BodyMd":"y"}`, "BodyMd", fleet.Invalid},
		{jobs, `{"bodyMd":"x","idempotencyKey":"a\u0000b"}`, "idempotencyKey", fleet.Invalid},
		{jobs, `{"bodyMd":"x","idempotencyKey":"` + long + `"}`, "idempotencyKey", fleet.Invalid},
		{jobs, `{"bodyMd":"x","capabilities":["go","a\r\nb"]}`, "capabilities[1]", fleet.Invalid},
		{jobs, `{"bodyMd":"x","labels":{"a\n":"b"}}`, "labels.a\n", fleet.Invalid},
		{jobs, `{"bodyMd":"x","labels":{"a":1}}`, "labels.a", fleet.Invalid},
		{jobs, `{"bodyMd":"x","manifestSnapshot":[]}`, "manifestSnapshot", fleet.Invalid},
		{jobs, `{"bodyMd":"x","notBefore":"1969-12-31T23:59:59Z"}`, "notBefore", fleet.Invalid},
		{jobs, `{"kind":"composite","deps":["key:a"]}`, "deps", fleet.Invalid},
		{jobs, `{}`, "bodyMd", fleet.Invalid},
		{"POST " + path + "/artifacts", `{"name":"a","kind":"log","uri":"javascript:alert(1)"}`, "uri", fleet.Invalid},
		{"POST " + path + "/artifacts", `{"name":"a","kind":"log","uri":"no/scheme"}`, "uri", fleet.Invalid},
		{"POST " + path + "/events", `{"data":[]}`, "data", fleet.Invalid},
		{"POST " + path + "/events", `{}`, "data", fleet.Invalid},
		{"POST /fleet/profiles", `{"name":"a@1","snapshot":{}}`, "name", fleet.Invalid},
		{"POST /fleet/profiles", `{"name":"a"}`, "snapshot", fleet.Invalid},
		{"POST /cluster/tokens", `{"roles":["reader"]}`, "products", fleet.Invalid},
		{"POST /cluster/tokens", `{"roles":["root"],"products":[]}`, "roles[0]", fleet.Invalid},
		{"POST /cluster/tokens", `{"roles":[],"products":[]}`, "roles", fleet.Invalid},
		// How many
		{jobs, `{"bodyMd":"x","deps":[` + many(100_000, `"d#"`) + `]}`, "deps", fleet.Invalid},
		{jobs, `{"bodyMd":"x","capabilities":[` + many(257, `"c#"`) + `]}`, "capabilities", fleet.Invalid},
		{jobs, `{"bodyMd":"x","labels":{` + many(65, `"l#":""`) + `}}`, "labels", fleet.Invalid},
		{batch, `{"jobs":[` + many(1001, `{"bodyMd":"x"}`) + `]}`, "jobs", fleet.Invalid},
		{batch, `{"jobs":[]}`, "jobs", fleet.Invalid},
		{batch, `{"jobs":[{"bodyMd":"x"},{"bodyMd":"x","priority":"none"}]}`, "jobs[1].priority", fleet.Invalid},
		{batch, `{"jobs":[{"bodyMd":"x","idempotencyKey":"k"},{"bodyMd":"x","idempotencyKey":"k"}]}`, "jobs[1].idempotencyKey", fleet.Invalid},
		{batch, `{"jobs":[` + many(999, `{"bodyMd":"x"}`) + `,{"bodyMd":"x","idempotencyKey":"k","deps":["key:k"]}]}`, "", fleet.DependencyCycle},
		{"POST /fleet/reports", `{"reports":[` + many(1001, `{"jobId":"j","leaseEpoch":1}`) + `]}`, "reports", fleet.Invalid},
		{"POST /fleet/reports", `{}`, "reports", fleet.Invalid},
		// Paths: no id reaches anything but a table
		{"GET /fleet/jobs/..%2f..%2fetc%2fpasswd", "", "", fleet.NotFound},
		{"GET /fleet/jobs/%00", "", "", fleet.NotFound},
		{"GET /fleet/jobs/.", "", "", fleet.NotFound},
		{"GET /fleet/jobs/%c3%28", "", "", fleet.NotFound},
		{"GET /fleet/jobs/" + strings.Repeat("x", 10<<10), "", "", fleet.NotFound},
		{"GET /fleet/profiles/a/0", "", "", fleet.NotFound},
		{"GET /fleet/profiles/a/99999999999999999999", "", "", fleet.NotFound},
	} {
		method, target, _ := strings.Cut(test.route, " ")
		before := node.machine.Hash()
		r := c.call(method, target, test.body)
		p := c.problem(r, test.code)
		if test.field != "" && (len(p.Fields) == 0 || p.Fields[0].Field != test.field || p.Fields[0].Detail == "") {
			t.Errorf("%s %.80s: got %v, want the first about %s", test.route, test.body, p.Fields, test.field)
		}
		if node.machine.Hash() != before {
			t.Errorf("%s %.80s: the state changed", test.route, test.body)
		}
		if len(r.body) > 4096 {
			t.Errorf("%.80s %.80s: the problem has %d bytes, want it short", test.route, test.body, len(r.body))
		}
	}
}

// What is of another product is not found, in the same words as what does not exist at all.
func TestOtherProductsAreNotFound(t *testing.T) {
	c, node := newClient(t)
	node.still = true
	job := submitted(t, c, "a").ID
	c.call("POST", "/fleet/factories/heartbeat", `{"factoryId":"f1"}`)
	c.call("POST", "/fleet/profiles", `{"name":"coder","snapshot":{}}`)
	for _, call := range []struct{ method, path, body string }{
		{"GET", "/fleet/jobs/#", ""},
		{"GET", "/fleet/jobs/#/why", ""},
		{"GET", "/fleet/jobs/#/lease", ""},
		{"GET", "/fleet/jobs/#/runs", ""},
		{"GET", "/fleet/jobs/#/events", ""},
		{"GET", "/fleet/jobs/#/artifacts", ""},
		{"PATCH", "/fleet/jobs/#", `{"leaseEpoch":1}`},
		{"PATCH", "/fleet/jobs/#", `{"stage":"shipped"}`},
		{"POST", "/fleet/jobs/#/cancel", ""},
		{"POST", "/fleet/jobs/#/requeue", ""},
		{"POST", "/fleet/jobs/#/lease/renew", `{"leaseEpoch":1}`},
		{"POST", "/fleet/jobs/#/lease/release", `{"leaseEpoch":1}`},
		{"POST", "/fleet/jobs/#/events", `{"data":{}}`},
		{"POST", "/fleet/jobs/#/artifacts", `{"name":"a","kind":"b","uri":"x:y"}`},
		{"POST", "/fleet/jobs", `{"bodyMd":"x","deps":["#"]}`},
		{"POST", "/fleet/jobs", `{"bodyMd":"x","parentId":"#"}`},
		{"GET", "/fleet/factories/f1", ""},
		{"GET", "/fleet/profiles/coder", ""},
		{"POST", "/fleet/jobs", `{"bodyMd":"x","profile":"coder"}`},
		{"POST", "/fleet/claim", `{"factoryId":"f1"}`},
	} {
		answer := func(id string) (int, string) {
			put := func(s string) string { return strings.ReplaceAll(s, "#", id) }
			r := c.call(call.method, put(call.path), put(call.body), "X-Product-Id", "p2", "X-Request-Id", "r")
			return r.status, strings.ReplaceAll(r.body, id, "#")
		}
		there, body := answer(job)
		_, unknown := answer("01AAAAAAAAAAAAAAAAAAAAAAAA")
		if there != http.StatusNotFound && there != http.StatusUnprocessableEntity {
			t.Errorf("%s %s: got %d %s, want it refused as unknown", call.method, call.path, there, body)
		}
		if body != unknown {
			t.Errorf("%s %s: a job of another product is told from none:\n%s\n%s", call.method, call.path, body, unknown)
		}
	}
}
