package rpc

// This file is what a node counts of its calls, and what its state adds up to. No label names a product or an id:
// /metrics is open.

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

type metrics struct {
	http.Handler
	requests   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	claims     *prometheus.CounterVec
	claimWait  prometheus.Histogram
	sseClients prometheus.Gauge
}

func newMetrics(node Node, r *prometheus.Registry) *metrics {
	m := &metrics{
		Handler: promhttp.HandlerFor(r, promhttp.HandlerOpts{}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_http_requests_total", Help: "Calls answered, by route, method and status.",
		}, []string{"route", "method", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fleet_http_request_duration_seconds", Help: "Time to answer a call, in seconds, waiting by its own wish included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}, []string{"route", "method"}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_claims_total", Help: "Claims answered by this node: claimed, empty or refused.",
		}, []string{"result"}),
		claimWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_claim_wait_seconds", Help: "Seconds from queued to assigned, of jobs claimed through this node.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 12),
		}),
		sseClients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_sse_clients", Help: "Live readers of feeds on this node.",
		}),
	}
	for _, result := range []string{"claimed", "empty", "refused"} {
		m.claims.WithLabelValues(result) // a counter that appears with its first event hides that one from rates
	}
	r.MustRegister(m.requests, m.durations, m.claims, m.claimWait, m.sseClients, &stateCollector{node})
	return m
}

// answered counts one call.
func (m *metrics) answered(path, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(path, method, strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(path, method).Observe(took.Seconds())
}

func (m *metrics) claimed(err error, any bool) {
	result := "empty"
	switch {
	case err != nil:
		result = "refused"
	case any:
		result = "claimed"
	}
	m.claims.WithLabelValues(result).Inc()
}

func (m *metrics) granted(claims ...fleet.Claim) {
	for _, c := range claims {
		if c.Job.QueuedAt != 0 {
			m.claimWait.Observe(c.Run.StartedAt.Sub(c.Job.QueuedAt).Seconds())
		}
	}
}

// stateCollector reads the state machine's totals whenever somebody looks.
type stateCollector struct{ node Node }

var (
	descJobs      = prometheus.NewDesc("fleet_jobs", "Jobs by stage, of all products.", []string{"stage"}, nil)
	descOldest    = prometheus.NewDesc("fleet_queue_oldest_age_seconds", "Age in seconds of the job that has been queued longest, 0 if none is.", nil, nil)
	descEvents    = prometheus.NewDesc("fleet_job_events_total", "Events since this process started, by type.", []string{"type"}, nil)
	descLeases    = prometheus.NewDesc("fleet_leases_held", "Leases that are held.", nil, nil)
	descExpired   = prometheus.NewDesc("fleet_leases_expired_total", "Leases that ran out since this process started.", nil, nil)
	descStale     = prometheus.NewDesc("fleet_stale_epoch_rejected_total", "Calls refused with stale_epoch since this process started.", nil, nil)
	descRuns      = prometheus.NewDesc("fleet_run_duration_seconds", "Seconds that runs took, of those that closed since this process started, by outcome.", []string{"outcome"}, nil)
	descCost      = prometheus.NewDesc("fleet_run_cost_usd_total", "Dollars that runs reported, of those that closed since this process started.", nil, nil)
	descTokens    = prometheus.NewDesc("fleet_run_tokens_total", "Tokens that runs reported, of those that closed since this process started, by kind: in, out, cached.", []string{"kind"}, nil)
	descFactories = prometheus.NewDesc("fleet_factories", "Factories by health.", []string{"health"}, nil)
	descSeats     = prometheus.NewDesc("fleet_factory_seats", "Seats of factories, used and free.", []string{"state"}, nil)
)

func (s *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descJobs, descOldest, descEvents, descLeases, descExpired, descStale, descRuns, descCost, descTokens, descFactories, descSeats} {
		ch <- d
	}
}

func (s *stateCollector) Collect(ch chan<- prometheus.Metric) {
	now := s.node.Now()
	var t fsm.Totals
	s.node.View(func(v fsm.View) { t = v.Totals(now) })
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	for i, stage := range fleet.Stages {
		gauge(descJobs, float64(t.Jobs[i]), string(stage))
	}
	oldest := 0.0
	if t.OldestQueued != 0 {
		oldest = max(0, now.Sub(t.OldestQueued).Seconds())
	}
	gauge(descOldest, oldest)
	for event, n := range t.EventsByType {
		counter(descEvents, float64(n), string(event))
	}
	gauge(descLeases, float64(t.LeasesHeld))
	counter(descExpired, float64(t.EventsByType[fleet.EventLeaseExpired]))
	counter(descStale, float64(t.StaleEpochs))
	for outcome, total := range t.Runs {
		within := map[float64]uint64{}
		for i, bound := range fsm.RunBounds {
			within[float64(bound)] = total.Within[i]
		}
		ch <- prometheus.MustNewConstHistogram(descRuns, total.Count, total.Took.Seconds(), within, string(outcome))
	}
	counter(descCost, float64(t.USD)/1e9)
	for kind, n := range map[string]int64{"in": t.Tokens.In, "out": t.Tokens.Out, "cached": t.Tokens.Cached} {
		counter(descTokens, float64(n), kind)
	}
	for _, health := range []fleet.Health{fleet.HealthOK, fleet.HealthDegraded, fleet.HealthDown} {
		gauge(descFactories, float64(t.Factories[health]), string(health))
	}
	gauge(descSeats, float64(t.SeatsUsed), "used")
	gauge(descSeats, float64(t.SeatsFree), "free")
}
