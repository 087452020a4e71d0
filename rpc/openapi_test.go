package rpc

// This file holds the API's description against what the API is: the routes, and all that the tests send and get.

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json"
	"github.com/gorilla/mux"

	"github.com/lysnrai/fleet"
)

var description = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(openapi)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

// The document is a valid OpenAPI 3.1 document. It describes every route that there is, and no other, with its
// parameters, its role, and an example of every body.
func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	doc, err := description()
	if err != nil {
		t.Fatal(err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("openapi: got %q, want 3.1", doc.OpenAPI)
	}
	described, ids := map[string]*openapi3.Operation{}, map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+path] = op
			if ids[op.OperationID] || op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s: want a summary, and an operationId of its own", method, path)
			}
			ids[op.OperationID] = true
		}
	}
	c, _ := newClient(t)
	for _, rt := range c.api.routes() {
		name := rt.method + " " + rt.path
		op := described[name]
		if op == nil {
			t.Errorf("%s is not described", name)
			continue
		}
		delete(described, name)
		var roles, query, inPath []string
		for _, role := range rt.roles {
			roles = append(roles, string(role))
		}
		for _, p := range op.Parameters {
			switch p.Value.In {
			case openapi3.ParameterInQuery:
				query = append(query, p.Value.Name)
			case openapi3.ParameterInPath:
				inPath = append(inPath, "{"+p.Value.Name+"}")
			}
		}
		if rt.open == nil && !slices.Equal(slices.Sorted(slices.Values(query)), slices.Sorted(slices.Values(rt.params))) {
			t.Errorf("%s: describes the parameters %v, takes %v", name, query, rt.params)
		}
		if inRoute := regexp.MustCompile(`\{\w+\}`).FindAllString(rt.path, -1); !slices.Equal(inPath, inRoute) {
			t.Errorf("%s: describes %v in the path, want %v", name, inPath, inRoute)
		}
		for _, role := range roles {
			if !strings.Contains(op.Description, role) {
				t.Errorf("%s: %q does not name the role %s", name, op.Description, role)
			}
		}
		switch {
		case op.RequestBody == nil:
		case rt.raw:
			if op.RequestBody.Value.Content["application/octet-stream"] == nil {
				t.Errorf("%s: takes bytes and does not say so", name)
			}
		case op.RequestBody.Value.Content["application/json"].Example == nil:
			t.Errorf("%s: there is no example of a body", name)
		}
	}
	for left := range described {
		t.Errorf("%s is described, but there is no such route", left)
	}
}

// Every example is a body that the API takes, and one that fits its own schema (which validating the document shows).
func TestOpenAPIExamplesAreTaken(t *testing.T) {
	doc, err := description()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := newClient(t)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil || op.RequestBody.Value.Content["application/octet-stream"] != nil {
				continue
			}
			body, err := json.Marshal(op.RequestBody.Value.Content["application/json"].Example)
			if err != nil {
				t.Fatal(err)
			}
			r := c.call(method, regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x"), string(body))
			switch r.status {
			case http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusNotFound: // there is no job x
			default:
				t.Errorf("%s %s %s: got %d %s", method, path, body, r.status, r.body)
			}
		}
	}
}

// Each schema has the members that the documents have, no less and no more: those of a body are all that is taken.
func TestOpenAPISchemasHaveEveryMember(t *testing.T) {
	doc, err := description()
	if err != nil {
		t.Fatal(err)
	}
	for name, document := range map[string]any{
		"Checkpoint": fleet.Checkpoint{}, "Budget": fleet.Budget{}, "Retry": fleet.Retry{}, "Insights": fleet.Insights{},
		"Submission": fleet.Submission{}, "Job": fleet.Job{}, "Lease": fleet.Lease{}, "Run": fleet.Run{}, "Event": fleet.Event{},
		"Artifact": fleet.Artifact{}, "Factory": fleet.Factory{}, "Profile": fleet.Profile{}, "Claim": fleet.Claim{},
		"SubmitResult": fleet.SubmitResult{}, "Report": fleet.Report{}, "JobReport": fleet.JobReport{},
		"ReportResult": fleet.ReportResult{}, "LeaseResult": fleet.LeaseResult{}, "Heartbeat": fleet.HeartbeatRequest{},
		"Reason": fleet.Reason{}, "Token": fleet.Token{}, "Problem": problem{}, "NodeStatus": fleet.NodeStatus{},
	} {
		schema := doc.Components.Schemas[name]
		if schema == nil {
			t.Errorf("there is no schema %s", name)
			continue
		}
		described := map[string]bool{}
		for _, part := range append(openapi3.SchemaRefs{schema}, schema.Value.AllOf...) {
			for member := range part.Value.Properties {
				described[member] = true
			}
		}
		want := members(reflect.TypeOf(document))
		if got := slices.Sorted(maps.Keys(described)); !slices.Equal(got, want) {
			t.Errorf("%s: describes %v, want %v", name, got, want)
		}
	}
}

// members are the names that a struct has in JSON, those of embedded structs among them.
func members(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "-" || !field.IsExported():
		case name == "" && field.Anonymous:
			names = append(names, members(field.Type)...)
		case name != "":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// describes checks that a call and its answer are as the document says. Bodies that were refused may be anything.
func describes(t *testing.T, router *mux.Router, r *http.Request, body string, got reply) {
	t.Helper()
	doc, err := description()
	if err != nil {
		t.Fatal(err)
	}
	var match mux.RouteMatch
	if !router.Match(r, &match) || match.Route == nil || match.MatchErr != nil {
		return
	}
	path, err := match.Route.GetPathTemplate()
	if err != nil {
		t.Fatal(err)
	}
	op := doc.Paths.Value(path).GetOperation(r.Method)
	response := op.Responses.Status(got.status)
	if response == nil {
		response = op.Responses.Default()
	}
	if response == nil || got.status < 400 && op.Responses.Value(strconv.Itoa(got.status)) == nil {
		t.Errorf("%s %s: answers with %d, which is not described", r.Method, path, got.status)
		return
	}
	media, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
	if got.body == "" || got.status == http.StatusNotModified {
		return
	}
	content := response.Value.Content[media]
	if content == nil {
		t.Errorf("%s %s: answers %d with %s, which is not described", r.Method, path, got.status, media)
		return
	}
	fits(t, r.Method+" "+path+": the answer", content, got.body)
	if body != "" && got.status < 300 && op.RequestBody != nil {
		if content := op.RequestBody.Value.Content["application/json"]; content != nil {
			fits(t, r.Method+" "+path+": the body", content, body)
		} else if op.RequestBody.Value.Content["application/octet-stream"] == nil {
			t.Errorf("%s %s: takes a body that is not described", r.Method, path)
		}
	}
}

// fits checks a JSON document against a schema.
func fits(t *testing.T, what string, content *openapi3.MediaType, document string) {
	t.Helper()
	if content.Schema == nil || !strings.HasPrefix(document, "{") {
		return
	}
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := content.Schema.Value.VisitJSON(v, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s %s does not fit its schema: %v", what, document, err)
	}
}

// A document that says something else is noticed.
func TestAnswersAreHeldAgainstTheirSchemas(t *testing.T) {
	c, _ := newClient(t)
	probe := &testing.T{}
	describes(probe, c.api.router, httptest.NewRequest("GET", "/fleet/jobs/x", nil), "",
		reply{200, http.Header{"Content-Type": {"application/json"}}, `{"id":7}`})
	if !probe.Failed() {
		t.Error("got an answer with a number for an id accepted")
	}
}
