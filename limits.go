package fleet

// This file is the bounds of what a client may send. They are part of the contract: docs/api.md, Bodies.

// Sizes of bodies, in bytes.
const (
	MaxBody      = 1 << 20 // of a call
	MaxBatchBody = 4 << 20 // of a batch of jobs or reports
)

// MaxNesting is how deep the values of a body may be nested. Whoever decodes a body checks it.
const MaxNesting = 64

// Lengths, in bytes.
const (
	MaxName = 256  // of names, ids and keys
	MaxText = 4096 // of reasons, label values and URIs
)

// How many there may be.
const (
	MaxBatch        = 1000   // jobs, reports, or leases of a heartbeat
	MaxDeps         = 1000   // deps of a job, and products of a token
	MaxDependents   = 10_000 // direct dependents of a job
	MaxDescendants  = 10_000 // jobs below a composite
	MaxDepth        = 16     // composites above a job
	MaxRecords      = 10_000 // comments and artifacts of a job
	MaxLabels       = 64
	MaxCapabilities = 256    // capabilities, engines, and reasons in retry.on
	MaxSignatures   = 10_000 // distinct requirements among a product's queued jobs
	MaxCycleSearch  = 100_000
	MaxPage         = 1000 // documents of a list, or events
	MaxClaims       = 1000 // of a batch of claims
)

// Durations, in seconds.
const (
	MaxLeaseSeconds     = 86_400
	MaxWaitSeconds      = 60
	MaxHeartbeatSeconds = 3600
	MaxDelaySeconds     = 3600
	MaxBackoffSeconds   = 3600
	MaxWallSeconds      = 31_536_000
)

// Amounts.
const (
	MaxCount       = 1<<53 - 1 // tokens and other counts: what a JSON number holds exactly everywhere
	MaxSeats       = 10_000
	MaxLoad        = 1_000_000
	MaxRetries     = 1000
	MaxLeaseLosses = 1000
)

// Defaults of what is left out.
const (
	DefaultLeaseSeconds     = 60
	DefaultHeartbeatSeconds = 15
	DefaultSeats            = 1
	DefaultLeaseLosses      = 5
	DefaultPage             = 100
)
