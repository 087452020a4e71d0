package cluster

// This file is what a node measures of itself.

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	propose       prometheus.Histogram
	batch         prometheus.Histogram
	apply         prometheus.Histogram
	snapshot      prometheus.Histogram
	fsync         prometheus.Histogram
	leaderChanges prometheus.Counter
	waiting       prometheus.Gauge
	unproven      prometheus.Counter
	conflicts     prometheus.Counter
	rereads       prometheus.Counter
}

// newMetrics makes a node's metrics and registers them, if there is a registry.
func newMetrics(n *Node, r prometheus.Registerer) *metrics {
	seconds := prometheus.ExponentialBuckets(0.0002, 2, 16)
	m := &metrics{
		propose: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_propose_duration_seconds",
			Help: "Time from a proposal to its answer, forwarding included.", Buckets: seconds,
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_batch_size",
			Help: "Commands in one log entry.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_fsm_apply_seconds",
			Help: "Time to apply one log entry.", Buckets: prometheus.ExponentialBuckets(0.00001, 2, 16),
		}),
		snapshot: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_fsm_snapshot_seconds",
			Help: "Time to write the state into a snapshot.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
		}),
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleet_wal_fsync_seconds",
			Help: "Time to store entries in the log durably: the write and its fsync together.", Buckets: seconds,
		}),
		leaderChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_leader_changes_total",
			Help: "How often this node became the leader.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_longpoll_waiting",
			Help: "Claims that wait for a job on this node.",
		}),
	}
	m.unproven = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fleet_checkpoints_unproven_total",
		Help: "Checkpoints for which no majority of the voters had one hash of the state, while this node led.",
	})
	m.conflicts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fleet_state_conflicts_total",
		Help: "Checkpoints at which voters had different states, as this node found while it led.",
	})
	m.rereads = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fleet_state_rereads_total",
		Help: "How often this node has read its whole state again, and found what the log made of it.",
	})
	if r == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	r.MustRegister(m.propose, m.batch, m.apply, m.snapshot, m.fsync, m.leaderChanges, m.waiting, m.unproven, m.conflicts, m.rereads,
		gauge("fleet_is_leader", "1 if this node leads.", func() float64 { return truth(n.IsLeader()) }),
		gauge("fleet_has_leader", "1 if this node knows a leader.", func() float64 { return truth(n.Leader() != "") }),
		gauge("fleet_applied_index", "Log index that the state machine has applied.", func() float64 { return float64(n.machine.Index()) }),
		gauge("fleet_level", "Newest format that the cluster writes; it rises once every node knows the next.", func() float64 { return float64(n.machine.Level()) }),
		gauge("fleet_raft_term", "Raft's current term.", func() float64 {
			if r := n.raftIfUp(); r != nil {
				return float64(r.CurrentTerm())
			}
			return 0
		}),
		gauge("fleet_commit_index", "Log index that a majority has.", func() float64 {
			if r := n.raftIfUp(); r != nil {
				return float64(r.CommitIndex())
			}
			return 0
		}),
		gauge("fleet_clock_offset_seconds", "This node's clock, ahead of the median of the voters' clocks.", func() float64 {
			return time.Duration(n.membership.clockAhead.Load()).Seconds()
		}),
		gauge("fleet_disk_free_bytes", "Bytes that can still be written where the data directory is.", func() float64 { return float64(n.space.free.Load()) }),
		gauge("fleet_disk_reserve_bytes", "Bytes below which this node says that its disk is short of room.", func() float64 { return float64(n.space.reserve.Load()) }),
		gauge("fleet_checkpoint_index", "Log index of the latest checkpoint at which a majority of the voters was proved to have one state.", func() float64 { return float64(n.prover.proven.Load()) }),
		gauge("fleet_voters", "Voters in the configuration.", func() float64 { return float64(n.voters()) }),
	)
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) applied(d time.Duration) { m.apply.Observe(d.Seconds()) }
func (m *metrics) stored(d time.Duration)  { m.fsync.Observe(d.Seconds()) }
