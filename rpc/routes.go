package rpc

// This file is every route there is: method, path, who may call it, what it takes, and its handler.

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/lysnrai/fleet"
)

// fleetRoot is where the routes of a product begin; all others belong to none.
const fleetRoot = "/fleet/"

// route is one row of the table.
type route struct {
	method, path string
	roles        []fleet.Role // any one of them will do; none: the route is open
	params       []string     // query parameters
	limit        int64        // of the body, in bytes
	waits        bool         // takes as long as the caller likes
	raw          bool         // the handler reads the body, which has no limit
	serve        endpoint
	open         http.HandlerFunc // instead of serve, if the route is open
}

// routes is the table.
func (a *API) routes() []route {
	var (
		reader    = []fleet.Role{fleet.RoleReader}
		submitter = []fleet.Role{fleet.RoleSubmitter}
		factory   = []fleet.Role{fleet.RoleFactory}
		operator  = []fleet.Role{fleet.RoleOperator}
		admin     = []fleet.Role{fleet.RoleAdmin}
		// With a leaseEpoch a call is a worker's, without it an operator's: the body decides.
		worker = []fleet.Role{fleet.RoleFactory, fleet.RoleOperator}
	)
	fresh := []string{"consistency"}
	rows := []route{
		{method: "POST", path: "/fleet/jobs", roles: submitter, serve: takes(a.submit)},
		{method: "POST", path: "/fleet/jobs/batch", roles: submitter, limit: fleet.MaxBatchBody, serve: takes(a.submitBatch)},
		{
			method: "GET", path: "/fleet/jobs", roles: reader, serve: reads(a.listJobs),
			params: []string{"stage", "idempotencyKey", "parentId", "factoryId", "parked", "label", "limit", "cursor", "consistency"},
		},
		{method: "GET", path: "/fleet/jobs/{id}", roles: reader, params: fresh, serve: reads(a.job)},
		{method: "PATCH", path: "/fleet/jobs/{id}", roles: worker, serve: takes(a.patch)},
		{method: "POST", path: "/fleet/jobs/{id}/cancel", roles: submitter, serve: mayTake(a.cancel)},
		{method: "POST", path: "/fleet/jobs/{id}/requeue", roles: operator, serve: mayTake(a.requeue)},
		{method: "GET", path: "/fleet/jobs/{id}/why", roles: reader, params: fresh, serve: reads(a.why)},

		{method: "POST", path: "/fleet/claim", roles: factory, waits: true, serve: takes(a.claim)},
		{method: "POST", path: "/fleet/claim/batch", roles: factory, waits: true, serve: takes(a.claimBatch)},
		{method: "POST", path: "/fleet/reports", roles: factory, limit: fleet.MaxBatchBody, serve: takes(a.report)},
		{method: "GET", path: "/fleet/jobs/{id}/lease", roles: reader, params: fresh, serve: reads(a.lease)},
		{method: "POST", path: "/fleet/jobs/{id}/lease/renew", roles: factory, serve: takes(a.renewLease)},
		{method: "POST", path: "/fleet/jobs/{id}/lease/release", roles: factory, serve: takes(a.releaseLease)},

		{method: "POST", path: "/fleet/factories/heartbeat", roles: factory, serve: takes(a.heartbeat)},
		{method: "GET", path: "/fleet/factories", roles: reader, params: fresh, serve: reads(a.listFactories)},
		{method: "GET", path: "/fleet/factories/{factoryId}", roles: reader, params: fresh, serve: reads(a.factory)},

		{method: "GET", path: "/fleet/jobs/{id}/runs", roles: reader, params: fresh, serve: reads(a.runs)},
		{method: "GET", path: "/fleet/jobs/{id}/events", roles: reader, params: []string{"after", "limit", "consistency"}, serve: reads(a.jobEvents)},
		{method: "POST", path: "/fleet/jobs/{id}/events", roles: worker, serve: takes(a.comment)},
		{method: "GET", path: "/fleet/jobs/{id}/artifacts", roles: reader, params: fresh, serve: reads(a.artifacts)},
		{method: "POST", path: "/fleet/jobs/{id}/artifacts", roles: worker, serve: takes(a.addArtifact)},
		{
			method: "GET", path: "/fleet/events", roles: reader, waits: true, serve: streams(a.feed),
			params: []string{"after", "limit", "consistency"},
		},

		{method: "POST", path: "/fleet/profiles", roles: operator, serve: takes(a.putProfile)},
		{method: "GET", path: "/fleet/profiles", roles: reader, params: fresh, serve: reads(a.listProfiles)},
		{method: "GET", path: "/fleet/profiles/{name}", roles: reader, params: fresh, serve: reads(a.profile)},
		{method: "GET", path: "/fleet/profiles/{name}/{version}", roles: reader, params: fresh, serve: reads(a.profile)},
		{method: "GET", path: "/fleet/stats", roles: reader, params: fresh, serve: reads(a.stats)},

		{method: "GET", path: "/cluster/status", roles: admin, params: fresh, serve: reads(a.clusterStatus)},
		{method: "DELETE", path: "/cluster/servers/{name}", roles: admin, serve: mayTake(a.removeServer)},
		{method: "POST", path: "/cluster/leader/transfer", roles: admin, serve: mayTake(a.transferLeader)},
		{method: "GET", path: "/cluster/snapshot", roles: admin, waits: true, serve: streams(a.snapshot)},
		{method: "POST", path: "/cluster/restore", roles: admin, waits: true, raw: true, params: []string{"raise"}, serve: streams(a.restore)},
		{method: "POST", path: "/cluster/tokens", roles: admin, serve: takes(a.createToken)},
		{method: "GET", path: "/cluster/tokens", roles: admin, params: fresh, serve: reads(a.listTokens)},
		{method: "DELETE", path: "/cluster/tokens/{id}", roles: admin, serve: mayTake(a.deleteToken)},

		{method: "GET", path: "/livez", open: a.livez},
		{method: "GET", path: "/readyz", open: a.readyz},
		{method: "GET", path: "/metrics", open: a.metrics.ServeHTTP},
		{method: "GET", path: "/openapi.json", open: serveOpenAPI},
		{method: "GET", path: "/", open: serveFrontPage},
	}
	for i := range rows {
		if rows[i].limit == 0 {
			rows[i].limit = fleet.MaxBody
		}
	}
	return rows
}

// newRouter routes by the path as it was sent, so that an escaped slash is part of a name, and never redirects.
func (a *API) newRouter() *mux.Router {
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, rt := range a.routes() {
		var h http.Handler = rt.open
		if rt.open == nil {
			h = a.handle(rt)
		}
		methods := []string{rt.method}
		if rt.method == http.MethodGet && !rt.waits { // RFC 9110, 9.1; net/http leaves the body out
			methods = append(methods, http.MethodHead)
		}
		r.Handle(rt.path, h).Methods(methods...)
	}
	r.NotFoundHandler = a.refusing(func(http.Header, *http.Request) error {
		return errNoRoute
	})
	r.MethodNotAllowedHandler = a.refusing(func(h http.Header, req *http.Request) error {
		allowed := strings.Join(methodsAt(r, req), ", ")
		h.Set("Allow", allowed)
		return fleet.Errorf(fleet.MethodNotAllowed, "this path takes %s", allowed)
	})
	return r
}

// refusing answers calls that have no route.
func (a *API) refusing(why func(http.Header, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &request{Request: r, id: a.requestID(r.Header)}
		w.Header().Set("X-Request-Id", c.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		a.stamp(w.Header(), c)
		refuse(w, c.id, why(w.Header(), r))
	})
}

// methodsAt lists the methods that the request's path takes. HEAD goes without saying where GET is.
func methodsAt(r *mux.Router, req *http.Request) (methods []string) {
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPatch, http.MethodPost} {
		other := req.Clone(req.Context())
		other.Method = method
		var match mux.RouteMatch
		if r.Match(other, &match) && match.MatchErr == nil {
			methods = append(methods, method)
		}
	}
	return methods
}
