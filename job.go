package fleet

// This file is the documents of one job: what was asked for, who holds it, what each attempt came to, what happened.

// Job is a unit of work as the state machine keeps it: what was submitted, and what has become of it.
type Job struct {
	ID        string `json:"id" msg:"id"`
	ProductID string `json:"productId" msg:"productId"`
	Version   uint64 `json:"version" msg:"version"`
	Stage     Stage  `json:"stage" msg:"stage"`
	Submission

	LeaseEpoch  uint64 `json:"leaseEpoch" msg:"leaseEpoch"`
	Attempt     int64  `json:"attempt" msg:"attempt"`
	Failures    int64  `json:"failures" msg:"failures"`
	LeaseLosses int64  `json:"leaseLosses" msg:"leaseLosses"`
	Reason      string `json:"reason,omitzero" msg:"reason,omitempty"`
	Result      JSON   `json:"result,omitzero" msg:"result,omitempty"`
	CreatedAt   Time   `json:"createdAt" msg:"createdAt"`
	UpdatedAt   Time   `json:"updatedAt" msg:"updatedAt"`
	QueuedAt    Time   `json:"queuedAt,omitzero" msg:"queuedAt,omitempty"`
	StartedAt   Time   `json:"startedAt,omitzero" msg:"startedAt,omitempty"`
	FinishedAt  Time   `json:"finishedAt,omitzero" msg:"finishedAt,omitempty"`
}

// Submission is what a client may say of a job when it submits one. Validate judges it, Normalize fills the defaults.
type Submission struct {
	ManifestSnapshot JSON        `json:"manifestSnapshot" msg:"manifestSnapshot"`
	BodyMd           string      `json:"bodyMd" msg:"bodyMd"`
	IdempotencyKey   string      `json:"idempotencyKey,omitzero" msg:"idempotencyKey,omitempty"`
	TrackerItemID    string      `json:"trackerItemId,omitzero" msg:"trackerItemId,omitempty"`
	ParentID         string      `json:"parentId,omitzero" msg:"parentId,omitempty"`
	Kind             Kind        `json:"kind" msg:"kind"`
	Checkpoint       *Checkpoint `json:"checkpoint,omitzero" msg:"checkpoint,omitempty"`
	Priority         Priority    `json:"priority" msg:"priority"`
	Capabilities     []string    `json:"capabilities" msg:"capabilities"`
	EngineClass      string      `json:"engineClass,omitzero" msg:"engineClass,omitempty"`
	Profile          string      `json:"profile,omitzero" msg:"profile,omitempty"`
	Deps             []string    `json:"deps" msg:"deps"`
	DepsMode         DepsMode    `json:"depsMode" msg:"depsMode"`
	Budget           *Budget     `json:"budget,omitzero" msg:"budget,omitempty"`
	Retry            *Retry      `json:"retry,omitzero" msg:"retry,omitempty"`
	Labels           Labels      `json:"labels,omitzero" msg:"labels,omitempty"`
	NotBefore        Time        `json:"notBefore,omitzero" msg:"notBefore,omitempty"`
}

// Checkpoint is where an attempt left its work, so that the next one can go on from there.
type Checkpoint struct {
	WipBranch string `json:"wipBranch,omitzero" msg:"wipBranch,omitempty"`
	WipBase   string `json:"wipBase,omitzero" msg:"wipBase,omitempty"`
	WipCommit string `json:"wipCommit,omitzero" msg:"wipCommit,omitempty"`
}

// Budget bounds what a job may cost, summed over its runs since the last requeue. An absent member is no bound.
type Budget struct {
	USD    *USD   `json:"usd,omitzero" msg:"usd,omitempty"`
	Tokens *int64 `json:"tokens,omitzero" msg:"tokens,omitempty"` // in + out
	Wall   *int64 `json:"wall,omitzero" msg:"wall,omitempty"`     // seconds in which a lease was held
}

// Retry says what follows a reported failure, and how many lost leases in a row are too many.
type Retry struct {
	Max            int64    `json:"max" msg:"max"`
	Backoff        int64    `json:"backoff" msg:"backoff"`                                  // seconds before the first retry; doubles with each failure, at most one hour
	On             []string `json:"on" msg:"on"`                                            // reasons that are retried; empty: all of them
	MaxLeaseLosses *int64   `json:"maxLeaseLosses,omitzero" msg:"maxLeaseLosses,omitempty"` // absent: 5
}

// Lease is who may work on a job until when. There is one for each job, made with it.
type Lease struct {
	JobID           string      `json:"jobId" msg:"jobId"`
	ProductID       string      `json:"productId" msg:"productId"`
	Version         uint64      `json:"version" msg:"version"`
	Status          LeaseStatus `json:"status" msg:"status"`
	HolderFactoryID string      `json:"holderFactoryId,omitzero" msg:"holderFactoryId,omitempty"`
	LeaseEpoch      uint64      `json:"leaseEpoch" msg:"leaseEpoch"` // always the job's
	ExpiresAt       Time        `json:"expiresAt,omitzero" msg:"expiresAt,omitempty"`
	TTLSeconds      int64       `json:"ttlSeconds,omitzero" msg:"ttlSeconds,omitempty"`
	Renewals        int64       `json:"renewals" msg:"renewals"`
}

// Run is one attempt at a job, opened by a claim.
type Run struct {
	ID              string   `json:"id" msg:"id"` // <jobId>-<attempt>
	JobID           string   `json:"jobId" msg:"jobId"`
	ProductID       string   `json:"productId" msg:"productId"`
	Version         uint64   `json:"version" msg:"version"`
	Attempt         int64    `json:"attempt" msg:"attempt"`
	FactoryID       string   `json:"factoryId" msg:"factoryId"`
	Engine          string   `json:"engine,omitzero" msg:"engine,omitempty"`
	ProfileSnapshot JSON     `json:"profileSnapshot,omitzero" msg:"profileSnapshot,omitempty"`
	StartedAt       Time     `json:"startedAt" msg:"startedAt"`
	EndedAt         Time     `json:"endedAt,omitzero" msg:"endedAt,omitempty"`
	Outcome         Outcome  `json:"outcome,omitzero" msg:"outcome,omitempty"`
	Reason          string   `json:"reason,omitzero" msg:"reason,omitempty"`
	Exit            *int64   `json:"exit,omitzero" msg:"exit,omitempty"`
	VerifyResult    JSON     `json:"verifyResult,omitzero" msg:"verifyResult,omitempty"`
	Result          JSON     `json:"result,omitzero" msg:"result,omitempty"`
	Insights        Insights `json:"insights" msg:"insights"`
}

// Insights is what an attempt cost and did: absolute values as the factory last reported them, field by field.
type Insights struct {
	Model        *string `json:"model,omitzero" msg:"model,omitempty"`
	TokensIn     *int64  `json:"tokensIn,omitzero" msg:"tokensIn,omitempty"`
	TokensOut    *int64  `json:"tokensOut,omitzero" msg:"tokensOut,omitempty"`
	TokensCached *int64  `json:"tokensCached,omitzero" msg:"tokensCached,omitempty"`
	CostUSD      *USD    `json:"costUsd,omitzero" msg:"costUsd,omitempty"`
	Estimated    *bool   `json:"estimated,omitzero" msg:"estimated,omitempty"`
	Turns        *int64  `json:"turns,omitzero" msg:"turns,omitempty"`
	ToolCalls    *int64  `json:"toolCalls,omitzero" msg:"toolCalls,omitempty"`
	FilesChanged *int64  `json:"filesChanged,omitzero" msg:"filesChanged,omitempty"`
	LinesAdded   *int64  `json:"linesAdded,omitzero" msg:"linesAdded,omitempty"`
	LinesDeleted *int64  `json:"linesDeleted,omitzero" msg:"linesDeleted,omitempty"`
}

// Event is one thing that happened to a job. Seq counts the job's events from 1 without gaps; Index is the event's
// place in its product's feed, strictly growing over failovers and restarts.
type Event struct {
	Seq       uint64    `json:"seq" msg:"seq"`
	Index     uint64    `json:"index" msg:"index"`
	JobID     string    `json:"jobId" msg:"jobId"`
	ProductID string    `json:"productId" msg:"productId"`
	Type      EventType `json:"type" msg:"type"`
	At        Time      `json:"at" msg:"at"`
	Actor     string    `json:"actor" msg:"actor"` // a token's id, or root, anonymous, fleet
	Data      JSON      `json:"data,omitzero" msg:"data,omitempty"`
}

// Artifact points at something an attempt produced. The bytes are elsewhere.
type Artifact struct {
	ID        string `json:"id" msg:"id"` // <jobId>-a<n>
	JobID     string `json:"jobId" msg:"jobId"`
	ProductID string `json:"productId" msg:"productId"`
	RunID     string `json:"runId,omitzero" msg:"runId,omitempty"`
	Name      string `json:"name" msg:"name"`
	Kind      string `json:"kind" msg:"kind"`
	URI       string `json:"uri" msg:"uri"`
	SizeBytes *int64 `json:"sizeBytes,omitzero" msg:"sizeBytes,omitempty"`
	SHA256    string `json:"sha256,omitzero" msg:"sha256,omitempty"`
	CreatedAt Time   `json:"createdAt" msg:"createdAt"`
}

// Factory is a worker that claims jobs: what it can do, how many jobs at once, and when it was last heard.
type Factory struct {
	FactoryID        string   `json:"factoryId" msg:"factoryId"`
	ProductID        string   `json:"productId" msg:"productId"`
	Version          uint64   `json:"version" msg:"version"`
	Descriptor       JSON     `json:"descriptor" msg:"descriptor"`
	Capabilities     []string `json:"capabilities" msg:"capabilities"`
	Engines          []string `json:"engines,omitzero" msg:"engines,omitempty"`
	Health           Health   `json:"health" msg:"health"`
	Load             float64  `json:"load" msg:"load"`
	SeatLimit        int64    `json:"seatLimit" msg:"seatLimit"`
	HeartbeatSeconds int64    `json:"heartbeatSeconds" msg:"heartbeatSeconds"`
	ActiveLeases     int64    `json:"activeLeases" msg:"activeLeases"`
	LastHeartbeatAt  Time     `json:"lastHeartbeatAt" msg:"lastHeartbeatAt"`
	Stale            bool     `json:"stale" msg:"stale"`
}

// Profile is one immutable version of a named set-up that a claim hands to the worker.
type Profile struct {
	Name      string `json:"name" msg:"name"`
	ProductID string `json:"productId" msg:"productId"`
	Version   int64  `json:"version" msg:"version"` // 1, 2, …
	Snapshot  JSON   `json:"snapshot" msg:"snapshot"`
}
