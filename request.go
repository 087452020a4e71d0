package fleet

// This file is what calls carry beside documents: their bodies and their answers, the same for the client, the server
// and the state machine. A pointer is a member that may be absent where its zero would mean something.

// Report is what a holder (with LeaseEpoch) or an operator (without) says about a job. Absent members stay as they are.
type Report struct {
	LeaseEpoch   *uint64     `json:"leaseEpoch,omitzero" msg:"leaseEpoch,omitempty"`
	Stage        Stage       `json:"stage,omitzero" msg:"stage,omitempty"`
	Reason       string      `json:"reason,omitzero" msg:"reason,omitempty"`
	Checkpoint   *Checkpoint `json:"checkpoint,omitzero" msg:"checkpoint,omitempty"`
	Result       JSON        `json:"result,omitzero" msg:"result,omitempty"`
	Exit         *int64      `json:"exit,omitzero" msg:"exit,omitempty"`
	VerifyResult JSON        `json:"verifyResult,omitzero" msg:"verifyResult,omitempty"`
	Insights     *Insights   `json:"insights,omitzero" msg:"insights,omitempty"`
}

// JobReport is one entry of a call that reports on many jobs.
type JobReport struct {
	JobID string `json:"jobId" msg:"jobId"`
	Report
}

// ReportResult is what came of one JobReport. Job is absent if it was refused.
type ReportResult struct {
	JobID        string `json:"jobId" msg:"jobId"`
	OK           bool   `json:"ok" msg:"ok"`
	Job          *Job   `json:"job,omitzero" msg:"job,omitempty"`
	Code         Code   `json:"code,omitzero" msg:"code,omitempty"`
	Detail       string `json:"detail,omitzero" msg:"detail,omitempty"`
	CurrentEpoch uint64 `json:"currentEpoch,omitzero" msg:"currentEpoch,omitempty"`
}

// ReportResults answers a call that reports on many jobs, in the order of the call.
type ReportResults struct {
	Results []ReportResult `json:"results" msg:"results"`
}

// ClaimRequest asks for work. Max is for a batch of claims only.
type ClaimRequest struct {
	FactoryID    string `json:"factoryId" msg:"factoryId"`
	LeaseSeconds *int64 `json:"leaseSeconds,omitzero" msg:"leaseSeconds,omitempty"` // default 60
	WaitSeconds  int64  `json:"waitSeconds,omitzero" msg:"waitSeconds,omitempty"`   // how long to wait for a first job
	Max          *int64 `json:"max,omitzero" msg:"max,omitempty"`                   // default 1
}

// Claim is a job that was granted: the job, the lease that holds it, and the run that was opened. Job is nil if nothing
// was eligible.
type Claim struct {
	Job   *Job   `json:"job" msg:"job"`
	Lease *Lease `json:"lease" msg:"lease"`
	Run   *Run   `json:"run" msg:"run"`
}

// Claims is what a batch of claims was granted, perhaps nothing.
type Claims struct {
	Claims []Claim `json:"claims" msg:"claims"`
}

// RenewRequest keeps a lease.
type RenewRequest struct {
	LeaseEpoch   uint64 `json:"leaseEpoch" msg:"leaseEpoch"`
	LeaseSeconds *int64 `json:"leaseSeconds,omitzero" msg:"leaseSeconds,omitempty"` // default: what the lease was last given
}

// ReleaseRequest gives a lease back. DelaySeconds keeps the job from being claimed at once.
type ReleaseRequest struct {
	LeaseEpoch   uint64 `json:"leaseEpoch" msg:"leaseEpoch"`
	DelaySeconds int64  `json:"delaySeconds,omitzero" msg:"delaySeconds,omitempty"`
}

// HeldLease names one lease that a heartbeat renews.
type HeldLease struct {
	JobID      string `json:"jobId" msg:"jobId"`
	LeaseEpoch uint64 `json:"leaseEpoch" msg:"leaseEpoch"`
}

// Strings is a list of strings whose absence can be told from its emptiness when it is behind a pointer.
type Strings []string

// HeartbeatRequest registers a factory, reports on it and renews its leases. Absent members stay as they are.
type HeartbeatRequest struct {
	FactoryID        string      `json:"factoryId" msg:"factoryId"`
	Descriptor       JSON        `json:"descriptor,omitzero" msg:"descriptor,omitempty"`
	Capabilities     *Strings    `json:"capabilities,omitzero" msg:"capabilities,omitempty"`
	Engines          *Strings    `json:"engines,omitzero" msg:"engines,omitempty"`
	Health           Health      `json:"health,omitzero" msg:"health,omitempty"`
	Load             *float64    `json:"load,omitzero" msg:"load,omitempty"`
	SeatLimit        *int64      `json:"seatLimit,omitzero" msg:"seatLimit,omitempty"`
	HeartbeatSeconds *int64      `json:"heartbeatSeconds,omitzero" msg:"heartbeatSeconds,omitempty"`
	Leases           []HeldLease `json:"leases,omitzero" msg:"leases,omitempty"`
}

// LeaseResult is what came of one lease of a heartbeat.
type LeaseResult struct {
	JobID        string `json:"jobId" msg:"jobId"`
	OK           bool   `json:"ok" msg:"ok"`
	Lease        *Lease `json:"lease,omitzero" msg:"lease,omitempty"`
	Code         Code   `json:"code,omitzero" msg:"code,omitempty"`
	Detail       string `json:"detail,omitzero" msg:"detail,omitempty"`
	CurrentEpoch uint64 `json:"currentEpoch,omitzero" msg:"currentEpoch,omitempty"`
}

// HeartbeatResult answers a heartbeat.
type HeartbeatResult struct {
	Factory *Factory      `json:"factory" msg:"factory"`
	Leases  []LeaseResult `json:"leases" msg:"leases"`
}

// SubmitOutcome is what a submit came to.
type SubmitOutcome string

// A submit created a job, found it as it was, or replaced what was asked for.
const (
	Created    SubmitOutcome = "created"
	Existing   SubmitOutcome = "existing"
	Superseded SubmitOutcome = "superseded"
)

// SubmitResult is what came of one submission.
type SubmitResult struct {
	Outcome SubmitOutcome `json:"outcome" msg:"outcome"`
	Job     *Job          `json:"job" msg:"job"`
}

// SubmitResults answers a batch of submissions, in the order of the call.
type SubmitResults struct {
	Results []SubmitResult `json:"results" msg:"results"`
}

// CommentRequest appends a comment to a job's events; an operator's needs no epoch. Data is a JSON object.
type CommentRequest struct {
	LeaseEpoch *uint64 `json:"leaseEpoch,omitzero" msg:"leaseEpoch,omitempty"`
	Data       JSON    `json:"data" msg:"data"`
}

// ArtifactRequest records where something is that an attempt produced; an operator's needs no epoch.
type ArtifactRequest struct {
	LeaseEpoch *uint64 `json:"leaseEpoch,omitzero" msg:"leaseEpoch,omitempty"`
	Name       string  `json:"name" msg:"name"`
	Kind       string  `json:"kind" msg:"kind"`
	URI        string  `json:"uri" msg:"uri"`
	SizeBytes  *int64  `json:"sizeBytes,omitzero" msg:"sizeBytes,omitempty"`
	SHA256     string  `json:"sha256,omitzero" msg:"sha256,omitempty"`
}

// ProfileRequest stores the next version of a profile. Snapshot is a JSON object.
type ProfileRequest struct {
	Name     string `json:"name" msg:"name"`
	Snapshot JSON   `json:"snapshot" msg:"snapshot"`
}

// ProfileResult is what came of a ProfileRequest. Created is false if the latest version already had that snapshot.
type ProfileResult struct {
	Created bool     `json:"created" msg:"created"`
	Profile *Profile `json:"profile" msg:"profile"`
}

// TokenRequest makes a token. Empty Products means all products.
type TokenRequest struct {
	Name      string   `json:"name,omitzero" msg:"name,omitempty"`
	Roles     []Role   `json:"roles" msg:"roles"`
	Products  []string `json:"products" msg:"products"`
	ExpiresAt Time     `json:"expiresAt,omitzero" msg:"expiresAt,omitempty"`
}

// Reason is one answer to why a job is not running. The members beside Code and Detail depend on the code.
type Reason struct {
	Code    string           `json:"code" msg:"code"`
	Detail  string           `json:"detail" msg:"detail"`
	Stage   Stage            `json:"stage,omitzero" msg:"stage,omitempty"`
	Reason  string           `json:"reason,omitzero" msg:"reason,omitempty"`
	Factory string           `json:"factory,omitzero" msg:"factory,omitempty"`
	Expires Time             `json:"expiresAt,omitzero" msg:"expiresAt,omitempty"`
	Unmet   []string         `json:"unmet,omitzero" msg:"unmet,omitempty"`
	Dead    []string         `json:"dead,omitzero" msg:"dead,omitempty"`
	Until   Time             `json:"until,omitzero" msg:"until,omitempty"`
	Cause   string           `json:"cause,omitzero" msg:"cause,omitempty"`
	Missing []string         `json:"missing,omitzero" msg:"missing,omitempty"`
	Paused  *int64           `json:"paused,omitzero" msg:"paused,omitempty"`
	Down    *int64           `json:"down,omitzero" msg:"down,omitempty"`
	Full    *int64           `json:"full,omitzero" msg:"full,omitempty"`
	Stages  map[string]int64 `json:"children,omitzero" msg:"children,omitempty"`
	// Position and Ahead place a waiting job in its line.
	Position   int64  `json:"position,omitzero" msg:"position,omitempty"`
	Ahead      *int64 `json:"ahead,omitzero" msg:"ahead,omitempty"`
	ETASeconds *int64 `json:"etaSeconds,omitzero" msg:"etaSeconds,omitempty"`
}

// Why says why a job is not running, most decisive reason first.
type Why struct {
	Stage   Stage    `json:"stage" msg:"stage"`
	Reasons []Reason `json:"reasons" msg:"reasons"`
}

// Stats counts what a product has where.
type Stats struct {
	Stages              map[Stage]int64  `json:"stages" msg:"stages"`
	OldestQueuedSeconds *int64           `json:"oldestQueuedSeconds,omitzero" msg:"oldestQueuedSeconds,omitempty"`
	Factories           map[Health]int64 `json:"factories" msg:"factories"`
	ShippedLastHour     int64            `json:"shippedLastHour" msg:"shippedLastHour"`
	FailedLastHour      int64            `json:"failedLastHour" msg:"failedLastHour"`
}

// NodeStatus is one node as its cluster sees it.
type NodeStatus struct {
	Name               string  `json:"name" msg:"name"`
	ID                 string  `json:"id" msg:"id"`
	HTTPAddr           string  `json:"httpAddr" msg:"httpAddr"`
	NodeAddr           string  `json:"nodeAddr" msg:"nodeAddr"`
	State              string  `json:"state" msg:"state"` // leader, follower, candidate, unreachable
	Voter              bool    `json:"voter" msg:"voter"`
	Healthy            bool    `json:"healthy" msg:"healthy"`
	AppliedIndex       uint64  `json:"appliedIndex" msg:"appliedIndex"`
	Version            string  `json:"version" msg:"version"`
	ClockOffsetSeconds float64 `json:"clockOffsetSeconds" msg:"clockOffsetSeconds"`
}

// RestoreResult is what came of restoring a backup: the tokens that are valid now are those that it brought.
type RestoreResult struct {
	Tokens     []*Token `json:"tokens" msg:"tokens"`
	Index      uint64   `json:"index" msg:"index"`
	Generation uint64   `json:"generation" msg:"generation"`
}

// ClusterStatus is the cluster as one of its nodes sees it.
type ClusterStatus struct {
	ClusterID string       `json:"clusterId" msg:"clusterId"`
	Leader    string       `json:"leader" msg:"leader"`
	Term      uint64       `json:"term" msg:"term"`
	Index     uint64       `json:"index" msg:"index"`
	Nodes     []NodeStatus `json:"nodes" msg:"nodes"`
}
