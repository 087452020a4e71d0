package bench

// This file is what a run says at its end; the names are those of -o json.

// Result is what came of a run.
type Result struct {
	Kind           Kind        `json:"kind"`
	Product        string      `json:"product"`
	Clients        int         `json:"clients"`
	SizeBytes      int         `json:"sizeBytes"`
	Backlog        int         `json:"backlog"`
	Batch          int         `json:"batch,omitzero"` // jobs in one call, of the kind batch
	ElapsedSeconds float64     `json:"elapsedSeconds"`
	Jobs           int64       `json:"jobs"` // that went through what the kind does with a job
	JobsPerSecond  float64     `json:"jobsPerSecond"`
	Errors         int64       `json:"errors"`
	Interrupted    bool        `json:"interrupted,omitzero"`
	Operations     []Operation `json:"operations"`
	Cluster        *Cluster    `json:"cluster,omitzero"` // nil if the token may not see it
}

// Operation is one kind of call. Latencies are of those that succeeded, attempts that the client made again included.
type Operation struct {
	Name       string  `json:"operation"`
	Count      int64   `json:"count"`
	Errors     int64   `json:"errors"`
	PerSecond  float64 `json:"perSecond"`
	P50Seconds float64 `json:"p50Seconds"`
	P99Seconds float64 `json:"p99Seconds"`
	MaxSeconds float64 `json:"maxSeconds"`
	GapSeconds float64 `json:"longestGapSeconds"` // the longest time in which none of any client succeeded
	FirstError string  `json:"firstError,omitzero"`
}

// Cluster is what was measured.
type Cluster struct {
	ClusterID string `json:"clusterId"`
	Leader    string `json:"leader"`
	Term      uint64 `json:"term"`
	Nodes     []Node `json:"nodes"`
}

// Node is one node as it was after the load.
type Node struct {
	Name     string `json:"name"`
	HTTPAddr string `json:"httpAddr"`
	State    string `json:"state"`
	Voter    bool   `json:"voter"`
	Version  string `json:"version"`
	Fsync    *Fsync `json:"fsync,omitzero"` // nil if its metrics can't be read from here, or nothing was stored
}

// Fsync is how long a node took to store log entries durably during the load, from its metrics.
type Fsync struct {
	Count      int64   `json:"count"`
	P50Seconds float64 `json:"p50Seconds"`
	P99Seconds float64 `json:"p99Seconds"`
}
