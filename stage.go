package fleet

// This file names where a job can be, and in which order.

// Stage is where a job is.
type Stage string

// The stages. Active are assigned, building, review and testing, in this order; terminal are shipped, failed and
// dead_letter.
const (
	Queued     Stage = "queued"
	Blocked    Stage = "blocked"
	Assigned   Stage = "assigned"
	Building   Stage = "building"
	Review     Stage = "review"
	Testing    Stage = "testing"
	Shipped    Stage = "shipped"
	Failed     Stage = "failed"
	DeadLetter Stage = "dead_letter"
)

// Stages lists every stage in the order in which a job may pass through them.
var Stages = [...]Stage{Queued, Blocked, Assigned, Building, Review, Testing, Shipped, Failed, DeadLetter}

// Index is the place of the stage in Stages, or -1 if it is none.
func (s Stage) Index() int {
	for i, known := range Stages {
		if s == known {
			return i
		}
	}
	return -1
}

// Active reports whether a job in this stage is being worked on, or is parked there.
func (s Stage) Active() bool { return s == Assigned || s == Building || s == Review || s == Testing }

// Terminal reports whether a job in this stage has ended (a requeue can bring it back).
func (s Stage) Terminal() bool { return s == Shipped || s == Failed || s == DeadLetter }

// Priority says which of two eligible jobs is claimed first.
type Priority string

// The priorities, most urgent first. Medium is the default.
const (
	Critical Priority = "critical"
	High     Priority = "high"
	Medium   Priority = "medium"
	Low      Priority = "low"
)

// Priorities lists every priority, most urgent first.
var Priorities = [...]Priority{Critical, High, Medium, Low}

// Tier is 0 for the most urgent priority and grows towards the least urgent; -1 if it is none.
func (p Priority) Tier() int {
	for i, known := range Priorities {
		if p == known {
			return i
		}
	}
	return -1
}

// Kind tells a job that is claimed from one that only groups others.
type Kind string

// A leaf is claimed by a factory; a composite is derived from its children.
const (
	Leaf      Kind = "leaf"
	Composite Kind = "composite"
)

// DepsMode says when a dependency counts as met.
type DepsMode string

// Under Hard a dependency is met once shipped, under Soft already in testing.
const (
	Hard DepsMode = "hard"
	Soft DepsMode = "soft"
)

// Health is what a factory reports of itself.
type Health string

// A factory that is HealthDown claims nothing.
const (
	HealthOK       Health = "ok"
	HealthDegraded Health = "degraded"
	HealthDown     Health = "down"
)

// LeaseStatus is what has become of a lease.
type LeaseStatus string

// A lease is held by a factory, or was given back, or ran out.
const (
	LeaseHeld     LeaseStatus = "held"
	LeaseExpired  LeaseStatus = "expired"
	LeaseReleased LeaseStatus = "released"
)

// Outcome is how a run ended.
type Outcome string

// The outcomes of a run.
const (
	OutcomeShipped        Outcome = "shipped"
	OutcomeFailed         Outcome = "failed"
	OutcomeReleased       Outcome = "released"
	OutcomeParked         Outcome = "parked"
	OutcomeLeaseExpired   Outcome = "lease_expired"
	OutcomeCancelled      Outcome = "cancelled"
	OutcomeBudgetExceeded Outcome = "budget_exceeded"
)

// Outcomes are all of them.
var Outcomes = [...]Outcome{
	OutcomeShipped, OutcomeFailed, OutcomeReleased, OutcomeParked, OutcomeLeaseExpired, OutcomeCancelled, OutcomeBudgetExceeded,
}

// EventType names what happened to a job.
type EventType string

// The types of events. The set is closed; clients should ignore what they do not know.
const (
	EventSubmitted       EventType = "submitted"
	EventSuperseded      EventType = "superseded"
	EventBlocked         EventType = "blocked"
	EventUnblocked       EventType = "unblocked"
	EventClaimed         EventType = "claimed"
	EventStageChanged    EventType = "stage_changed"
	EventCheckpointSaved EventType = "checkpoint_saved"
	EventReleased        EventType = "released"
	EventLeaseExpired    EventType = "lease_expired"
	EventRetryScheduled  EventType = "retry_scheduled"
	EventFailed          EventType = "failed"
	EventDeadLettered    EventType = "dead_lettered"
	EventShipped         EventType = "shipped"
	EventCancelled       EventType = "cancelled"
	EventRequeued        EventType = "requeued"
	EventBudgetExceeded  EventType = "budget_exceeded"
	EventArtifactAdded   EventType = "artifact_added"
	EventComment         EventType = "comment"
)

// EventTypes are all of them.
var EventTypes = [...]EventType{
	EventSubmitted, EventSuperseded, EventBlocked, EventUnblocked, EventClaimed, EventStageChanged, EventCheckpointSaved, EventReleased,
	EventLeaseExpired, EventRetryScheduled, EventFailed, EventDeadLettered, EventShipped, EventCancelled, EventRequeued,
	EventBudgetExceeded, EventArtifactAdded, EventComment,
}
