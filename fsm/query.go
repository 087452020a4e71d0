package fsm

// This file is how the state is read. Every method answers in time that does not depend on the backlog, or says so.

import (
	"github.com/lysnrai/fleet"
)

// View is the state at one index. It is only valid inside the function that Machine.View calls.
type View struct{ st *state }

// Index is the log index that the view reflects.
func (v View) Index() uint64 { return v.st.index }

// Now is the time of the latest stamp.
func (v View) Now() fleet.Time { return v.st.now }

// LeaderSince is the time of the latest LeaderChange.
func (v View) LeaderSince() fleet.Time { return v.st.leaderSince }

// NextDeadline is when the reaper has something to do, leaving retention out; false if nothing waits for a time. A Reap is due
// once the time is strictly later.
func (v View) NextDeadline() (fleet.Time, bool) { panic("todo") }

// NextRetention is when the oldest ended job ended; false if none has.
func (v View) NextRetention() (fleet.Time, bool) { panic("todo") }

// ClusterID is the cluster's id, empty before Bootstrap was applied.
func (v View) ClusterID() string { panic("todo") }

// Servers lists all servers ever, the removed ones too, by id.
func (v View) Servers() []Server { panic("todo") }

// Authenticate finds the token whose secret has this SHA-256. A token that was revoked or expired is not found.
func (v View) Authenticate(hash [32]byte) (*fleet.Token, bool) { panic("todo") }

// Authorize is the one place that decides whether a caller may use a role in a product (empty: the cluster's own). It refuses with
// unauthenticated (no such token any more) or forbidden. Reads ask it, and every command is judged by it when it is applied.
func (v View) Authorize(c Caller, role fleet.Role, product string) error { panic("todo") }

// Tokens lists the tokens that are valid, by id.
func (v View) Tokens() []*fleet.Token { panic("todo") }

// Job finds a job, shown as a reader sees it: with the time it waits for as NotBefore.
func (v View) Job(product, id string) (*fleet.Job, bool) { panic("todo") }

// JobFilter selects jobs. Zero fields select all.
type JobFilter struct {
	Stage          fleet.Stage
	IdempotencyKey string
	ParentID       string
	FactoryID      string      // jobs that this factory holds
	Parked         *bool       // true: in review or testing, held by nobody
	Label          fleet.Label // Key "" selects all
}

// Jobs lists jobs in submission order, those after the cursor `after` (0: from the start), at most limit. It looks at no more than
// 10,000 jobs: next is where to go on, 0 at the end, so that a page may be short or empty and still not be the last.
func (v View) Jobs(product string, f JobFilter, after uint64, limit int) (jobs []*fleet.Job, next uint64) {
	panic("todo")
}

// Why says why a job is not running, most decisive reason first.
func (v View) Why(product, id string) (*fleet.Why, bool) { panic("todo") }

// Lease finds a job's lease, shown as a reader sees it: ExpiresAt is when it can really expire.
func (v View) Lease(product, jobID string) (*fleet.Lease, bool) { panic("todo") }

// Runs lists a job's runs by attempt; false if there is no such job.
func (v View) Runs(product, jobID string) ([]*fleet.Run, bool) { panic("todo") }

// Events lists a job's events with seq > after, at most limit; false if there is no such job.
func (v View) Events(product, jobID string, after uint64, limit int) ([]*fleet.Event, bool) {
	panic("todo")
}

// Artifacts lists a job's artifacts in the order in which they were added; false if there is no such job.
func (v View) Artifacts(product, jobID string) ([]*fleet.Artifact, bool) { panic("todo") }

// Feed lists the product's events with index > after, at most limit. first is the oldest index that is kept (0: none was purged,
// nothing is missing), last the newest ever given out: a reader whose after is below first-1 has a gap.
func (v View) Feed(product string, after uint64, limit int) (events []*fleet.Event, first, last uint64) {
	panic("todo")
}

// Factory finds a factory.
func (v View) Factory(product, id string) (*fleet.Factory, bool) { panic("todo") }

// Factories lists the product's factories by id.
func (v View) Factories(product string) []*fleet.Factory { panic("todo") }

// Profile finds a version of a profile; version 0 is the latest.
func (v View) Profile(product, name string, version int64) (*fleet.Profile, bool) { panic("todo") }

// Profiles lists the latest version of each profile by name.
func (v View) Profiles(product string) []*fleet.Profile { panic("todo") }

// Stats counts the product's jobs and factories; ages are taken against now, which the caller's clock gives.
func (v View) Stats(product string, now fleet.Time) *fleet.Stats { panic("todo") }

// Totals counts jobs and factories over all products, for metrics.
func (v View) Totals(now fleet.Time) Totals { panic("todo") }

// Totals are the counts of all products together.
type Totals struct {
	Jobs             [len(fleet.Stages)]int64 // by fleet.Stage.Index
	LeasesHeld       int64
	Factories        map[fleet.Health]int64
	SeatsUsed        int64
	SeatsFree        int64
	OldestQueued     fleet.Time // zero: nothing is queued
	StaleEpochs      uint64     // refusals with stale_epoch since this process started
	EventsByType     map[fleet.EventType]uint64
	ClaimWaitSeconds float64
}

// Claimable says whether a claim by this factory would be granted now: the error is the refusal it would get
// (unknown_factory, forbidden, factory_down, seats_exhausted); found is whether a job is eligible. skip, if not nil, passes over jobs that
// are promised to others; jobID is the one it would get.
func (v View) Claimable(c Caller, product, factoryID string, skip func(jobID string) bool) (jobID string, found bool, err error) {
	panic("todo")
}

// Remembered finds the answer that is remembered under a proposal's Idempotency-Key: found with the answer, or refused with
// idempotency_key_reused (also an Answer), or not found. A proposal without a key is never found.
func (v View) Remembered(p *Proposal) (Answer, bool) { panic("todo") }
