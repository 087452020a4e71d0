package main

// This file gathers the metrics that libraries keep. Raft's vanish unless its own compat package is told where they go.

import (
	"runtime"

	metrics "github.com/hashicorp/go-metrics/compat"
	sink "github.com/hashicorp/go-metrics/compat/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registerProcess adds what the runtime knows, and what this build is.
func registerProcess(r *prometheus.Registry) {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fleet_build_info", Help: "1, with what this binary is.",
		ConstLabels: prometheus.Labels{"version": version, "commit": thisBuild().Commit, "goversion": runtime.Version()},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// registerRaft adds raft's and memberlist's metrics, under their own names. They are global: there is one node a process.
func registerRaft(r *prometheus.Registry) {
	s, err := sink.NewPrometheusSinkFrom(sink.PrometheusOpts{Registerer: r, Name: "raft"})
	if err != nil {
		return // another sink is registered already
	}
	cfg := metrics.DefaultConfig("")
	cfg.EnableHostname, cfg.EnableTypePrefix, cfg.EnableRuntimeMetrics = false, false, false
	_, _ = metrics.NewGlobal(cfg, s) // it always succeeds
}
