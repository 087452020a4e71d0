package fleet

// This file is every way in which a call can be refused. A code is stable and for programs; the detail is for people.

import "fmt"

// Code names a kind of refusal. It is an error itself, so errors.Is(err, fleet.StaleEpoch) tells what an *Error is.
type Code string

func (c Code) Error() string { return string(c) }

// The codes. Each says what the caller should do about it.
const (
	// InvalidJSON: the body is not one well-formed JSON document. Fix it before sending it again.
	InvalidJSON Code = "invalid_json"
	// Invalid: a field, query value or header is not acceptable; Fields says which and why.
	Invalid Code = "invalid"
	// UnknownDependency: a dep names no job of this product.
	UnknownDependency Code = "unknown_dependency"
	// DependencyCycle: the submit would close a cycle; Cycle is its path, first = last.
	DependencyCycle Code = "dependency_cycle"
	// UnknownProfile: the profile, or that version of it, does not exist in this product.
	UnknownProfile Code = "unknown_profile"
	// UnknownParent: parentId names no composite of this product.
	UnknownParent Code = "unknown_parent"
	// InvalidSnapshot: the file is no snapshot, is damaged, or is newer than this cluster.
	InvalidSnapshot Code = "invalid_snapshot"
	// Unauthenticated: no token, or one that is not valid. Send Authorization: Bearer <token>.
	Unauthenticated Code = "unauthenticated"
	// Forbidden: the token's roles or products don't cover this call.
	Forbidden Code = "forbidden"
	// NotFound: there is no such thing in this product.
	NotFound Code = "not_found"
	// UnknownFactory: the factory has not registered; send a heartbeat first.
	UnknownFactory Code = "unknown_factory"
	// StaleEpoch: the job has moved on to another attempt. Stop work; nothing you report will be kept.
	StaleEpoch Code = "stale_epoch"
	// IllegalTransition: the job cannot make that move from where it is.
	IllegalTransition Code = "illegal_transition"
	// IdempotencyConflict: this idempotencyKey belongs to a job with other content that can no longer be replaced.
	IdempotencyConflict Code = "idempotency_conflict"
	// IdempotencyKeyReused: this Idempotency-Key was used for another request. Use a fresh one.
	IdempotencyKeyReused Code = "idempotency_key_reused"
	// SeatsExhausted: the factory works on as many jobs as its seatLimit allows.
	SeatsExhausted Code = "seats_exhausted"
	// FactoryDown: the factory reported health down, or was silent too long. A heartbeat with health ok mends it.
	FactoryDown Code = "factory_down"
	// LastVoter: removing this server would leave a cluster without voters.
	LastVoter Code = "last_voter"
	// VersionMismatch: If-Match names another version than the current one. Read again and decide anew.
	VersionMismatch Code = "version_mismatch"
	// PreconditionRequired: this call needs If-Match with the version that the decision was based on.
	PreconditionRequired Code = "precondition_required"
	// TooLarge: the body is over the limit of this route.
	TooLarge Code = "too_large"
	// UnsupportedMediaType: the body is not application/json, or is encoded.
	UnsupportedMediaType Code = "unsupported_media_type"
	// MethodNotAllowed: the route exists, but not for this method.
	MethodNotAllowed Code = "method_not_allowed"
	// RateLimited: too much at once; try again after RetryAfterSeconds.
	RateLimited Code = "rate_limited"
	// QuotaExceeded: a bound of the product is reached.
	QuotaExceeded Code = "quota_exceeded"
	// NoLeader: the cluster has no leader at the moment. Nothing was done; it is safe to try again.
	NoLeader Code = "no_leader"
	// DiskFull: the cluster is short of disk space. Nothing was done.
	DiskFull Code = "disk_full"
	// Behind: this node has not applied Fleet-Min-Index in time. Nothing was done.
	Behind Code = "behind"
	// OutcomeUnknown: the change may or may not have been committed. Retry with the same Idempotency-Key to learn it.
	OutcomeUnknown Code = "outcome_unknown"
	// Internal: a fault of the server itself. Nothing is promised about the outcome.
	Internal Code = "internal"
)

// Error is a refusal: what kind, about what, and what goes with it.
type Error struct {
	Code              Code         `json:"code"`
	Detail            string       `json:"detail"`
	Fields            []FieldError `json:"errors,omitzero"`
	Cycle             []string     `json:"cycle,omitzero"`
	CurrentEpoch      uint64       `json:"currentEpoch,omitzero"`
	RetryAfterSeconds int64        `json:"-"`
}

// FieldError says what is wrong with one field, named by its path: budget.usd, capabilities[1], jobs[1].priority.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Errorf makes an Error with a code and a detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// InvalidField makes an Invalid error about one field.
func InvalidField(field, format string, args ...any) *Error {
	detail := fmt.Sprintf(format, args...)
	return &Error{Code: Invalid, Detail: field + ": " + detail, Fields: []FieldError{{field, detail}}}
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Detail
}

// Unwrap gives the code, so that errors.Is compares codes.
func (e *Error) Unwrap() error { return e.Code }
