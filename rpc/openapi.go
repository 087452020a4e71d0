package rpc

// This file serves the API's description.

import (
	_ "embed"
	"net/http"
)

// openapi is the OpenAPI 3.1 document. A test holds it against the routes.
//
//go:embed openapi.json
var openapi []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi)
}
