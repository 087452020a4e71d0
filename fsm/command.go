package fsm

// This file is the closed set of commands: everything that can ever happen to the state is one struct here.
//
// A command is one struct, one apply method in the file of its idea, and one row in the table of codec.go. Its number
// is for ever: to change what a command means, add a new one. Commands arrive validated for shape (package fleet does
// that, before they are proposed); what depends on the state is judged by apply.

import (
	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

//go:generate go tool -modfile=../tools/go.mod msgp -tests=false -io=false -file command.go -o msgp_gen.go

// Command is one of the structs of this file, always by pointer.
type Command interface {
	msgp.Marshaler
	msgp.Unmarshaler
	msgp.Sizer

	// role is the least role that may ask for it; internal commands have none and come from the leader itself.
	role() fleet.Role
	// product is the product it acts in, empty for the cluster's own.
	product() string
	// apply refuses with a *fleet.Error and changes nothing, or changes the state and answers.
	apply(tx *tx) (Result, error)
}

// Result is what a command answers: one of the result rows of codec.go, always by pointer.
type Result interface {
	msgp.Marshaler
	msgp.Unmarshaler
	msgp.Sizer
}

// Submit asks for one job. JobID is the ULID it gets if it is new. Answers *fleet.SubmitResult.
type Submit struct {
	ProductID  string
	JobID      string
	Submission fleet.Submission // validated, with its defaults filled in
}

// SubmitBatch asks for many jobs, all or nothing. JobIDs are the ULIDs of those that are new, one for each
// submission. Answers *fleet.SubmitResults.
type SubmitBatch struct {
	ProductID   string
	JobIDs      []string
	Submissions []fleet.Submission
}

// Claim leases the best eligible job to a factory: the highest priority, then the first in line. It is refused with
// unknown_factory, factory_down or seats_exhausted. Finding nothing is no refusal: the *fleet.Claim has no Job.
type Claim struct {
	ProductID    string
	FactoryID    string
	LeaseSeconds int64
}

// ClaimBatch claims up to Max jobs, as many as there are free seats. Answers *fleet.Claims.
type ClaimBatch struct {
	ProductID    string
	FactoryID    string
	LeaseSeconds int64
	Max          int64
}

// Patch is what the holder of a job reports; Report.LeaseEpoch fences it. Answers *fleet.Job.
type Patch struct {
	ProductID string
	JobID     string
	Report    fleet.Report
}

// OperatorPatch moves or amends a job that nobody holds; Report has no LeaseEpoch. Answers *fleet.Job.
type OperatorPatch struct {
	ProductID string
	JobID     string
	IfMatch   IfMatch
	Report    fleet.Report
}

// IfMatch is the precondition of an operator's call. The zero value is a missing header.
type IfMatch struct {
	Any      bool     // If-Match: *
	Versions []uint64 // If-Match: "7", "8"
}

// Report is many patches of holders in one call, in order, each judged on its own. Answers *fleet.ReportResults.
type Report struct {
	ProductID string
	Reports   []fleet.JobReport
}

// Renew keeps a lease for its holder. LeaseSeconds 0 keeps the lease's ttl. Answers *fleet.Lease.
type Renew struct {
	ProductID    string
	JobID        string
	LeaseEpoch   uint64
	LeaseSeconds int64
}

// Release gives a job back, or parks it in review or testing. Answers *fleet.Lease.
type Release struct {
	ProductID    string
	JobID        string
	LeaseEpoch   uint64
	DelaySeconds int64
}

// Cancel ends a job that has not ended, with all that a composite holds. Reason is the canceller's text, for the event.
// Answers *fleet.Job.
type Cancel struct {
	ProductID string
	JobID     string
	Reason    string
}

// Requeue brings a job back that failed or was dead-lettered. Answers *fleet.Job.
type Requeue struct {
	ProductID string
	JobID     string
}

// Heartbeat registers a factory, reports on it and renews its leases. Answers *fleet.HeartbeatResult.
type Heartbeat struct {
	ProductID string
	Heartbeat fleet.HeartbeatRequest
}

// Comment appends a comment to a job's events. LeaseEpoch is absent for an operator. Answers *fleet.Event.
type Comment struct {
	ProductID  string
	JobID      string
	LeaseEpoch *uint64
	Data       fleet.JSON
}

// AddArtifact records what an attempt produced. Request.LeaseEpoch is absent for an operator. Answers *fleet.Artifact.
type AddArtifact struct {
	ProductID string
	JobID     string
	Request   fleet.ArtifactRequest
}

// PutProfile stores the next version of a profile, unless the latest is the same. Answers *fleet.ProfileResult.
type PutProfile struct {
	ProductID string
	Name      string
	Snapshot  fleet.JSON
}

// CreateToken stores a token under the hash of its secret. ID is a ULID. Answers *fleet.Token.
type CreateToken struct {
	ID      string
	Hash    []byte // SHA-256 of the secret
	Request fleet.TokenRequest
}

// DeleteToken revokes a token; its id is remembered as revoked. Answers *Done.
type DeleteToken struct {
	ID string
}

// Reap works off deadlines that have passed, in (time, kind, id) order, until it has changed Limit documents.
// RetentionSeconds 0 leaves retention alone; else what ended longer ago is purged. Only the leader proposes it.
// Answers *Reaped.
type Reap struct {
	Limit            int64
	RetentionSeconds int64
}

// LeaderChange is the first entry of a new leader and of a corrected clock: no lease expires within min(ttl, 60 s) of
// it. Only the leader proposes it. Answers *Done.
type LeaderChange struct{}

// Noop changes nothing. A read waits for it where leadership can't be verified otherwise. Answers *Done.
type Noop struct{}

// Bootstrap gives the cluster its id, once, by its first leader. Answers *Done.
type Bootstrap struct {
	ClusterID string
}

// PutServer records or renews what is known of a server of the cluster. Only the leader proposes it. Answers *Done;
// refused with forbidden if the id was removed, or if another server that was not removed has the name.
type PutServer struct {
	Server Server
}

// RemoveServer marks a server id as removed for ever, before raft's configuration follows. Only the leader proposes it.
// Answers *Done.
type RemoveServer struct {
	ID string
}

// Level raises the cluster's level, and never lowers it. Only the leader proposes it, once every member knows that level: to one
// that does not, this entry is of a newer format. Answers *Done.
type Level struct {
	To int
}

// Checkpoint says what a majority of all voters had at a checkpoint: the state before the first entry of the machine's own
// above Index had this Hash, made as Version says. It changes nothing: whoever applies it holds it against what it has
// (Machine.Checkpoint). Only the leader proposes it. Answers *Done.
type Checkpoint struct {
	Index   uint64
	Hash    uint64
	Version uint64
}

// Server is one node of the cluster: raft's configuration has only its id and its address.
type Server struct {
	ID       string // raft's server id
	Name     string
	HTTPAddr string
	NodeAddr string
	Version  string
	Removed  bool
}

// Done is the answer of a command that has none.
type Done struct{}

// Reaped says how a Reap went. More means that deadlines that have passed are left.
type Reaped struct {
	Changed int64
	More    bool
}
