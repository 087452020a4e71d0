package fleet

// This file judges the bodies of all calls but a submit: each Validate says what is wrong, field by field.

import (
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Normalize takes away what says nothing. Validate first.
func (r *Report) Normalize() {
	if r.Checkpoint != nil && *r.Checkpoint == (Checkpoint{}) {
		r.Checkpoint = nil
	}
}

// Validate says what is wrong with a report. Without a LeaseEpoch it is an operator's, who knows nothing of the run.
func (r *Report) Validate() []FieldError {
	var p problems
	p.optionalEpoch("leaseEpoch", r.LeaseEpoch)
	if r.Stage != "" {
		oneOf(&p, "stage", r.Stage, Stages[:]...)
	}
	p.text("reason", r.Reason)
	if r.Stage == Failed && r.Reason == "" && r.LeaseEpoch != nil {
		p.add("reason", "failed needs one: it decides about a retry")
	}
	p.checkpoint("checkpoint", r.Checkpoint)
	p.optionalBetween("exit", r.Exit, -MaxCount, MaxCount)
	r.Insights.validate(&p)
	if r.LeaseEpoch == nil {
		if r.Exit != nil {
			p.add("exit", "only the holder of the lease reports it, with its leaseEpoch")
		}
		if r.Insights != nil {
			p.add("insights", "only the holder of the lease reports them, with its leaseEpoch")
		}
	}
	return p
}

func (i *Insights) validate(p *problems) {
	if i == nil {
		return
	}
	if i.Model != nil {
		p.optionalName("insights.model", *i.Model)
	}
	p.optionalBetween("insights.tokensIn", i.TokensIn, 0, MaxCount)
	p.optionalBetween("insights.tokensOut", i.TokensOut, 0, MaxCount)
	p.optionalBetween("insights.tokensCached", i.TokensCached, 0, MaxCount)
	p.usd("insights.costUsd", i.CostUSD)
	p.optionalBetween("insights.turns", i.Turns, 0, MaxCount)
	p.optionalBetween("insights.toolCalls", i.ToolCalls, 0, MaxCount)
	p.optionalBetween("insights.filesChanged", i.FilesChanged, 0, MaxCount)
	p.optionalBetween("insights.linesAdded", i.LinesAdded, 0, MaxCount)
	p.optionalBetween("insights.linesDeleted", i.LinesDeleted, 0, MaxCount)
}

// Validate says what is wrong with one report of many. It is always a holder's.
func (r *JobReport) Validate() []FieldError {
	var p problems
	p.name("jobId", r.JobID)
	if r.LeaseEpoch == nil {
		p.add("leaseEpoch", "is missing")
	}
	return append(p, r.Report.Validate()...)
}

// ValidateReports judges how many reports come in one call. Each is judged on its own, by its Validate: one that is
// wrong does not keep the others out.
func ValidateReports(reports []JobReport) []FieldError {
	var p problems
	p.atMost("reports", len(reports), MaxBatch)
	return p
}

// Validate says what is wrong with a request for work.
func (r *ClaimRequest) Validate() []FieldError {
	var p problems
	p.name("factoryId", r.FactoryID)
	p.optionalBetween("leaseSeconds", r.LeaseSeconds, 1, MaxLeaseSeconds)
	p.between("waitSeconds", r.WaitSeconds, 0, MaxWaitSeconds)
	p.optionalBetween("max", r.Max, 1, MaxClaims)
	return p
}

// Validate says what is wrong with a renewal.
func (r *RenewRequest) Validate() []FieldError {
	var p problems
	p.epoch("leaseEpoch", r.LeaseEpoch)
	p.optionalBetween("leaseSeconds", r.LeaseSeconds, 1, MaxLeaseSeconds)
	return p
}

// Validate says what is wrong with a release.
func (r *ReleaseRequest) Validate() []FieldError {
	var p problems
	p.epoch("leaseEpoch", r.LeaseEpoch)
	p.between("delaySeconds", r.DelaySeconds, 0, MaxDelaySeconds)
	return p
}

// Validate says what is wrong with a heartbeat.
func (r *HeartbeatRequest) Validate() []FieldError {
	var p problems
	p.name("factoryId", r.FactoryID)
	if r.Descriptor != "" {
		p.object("descriptor", r.Descriptor)
	}
	if r.Capabilities != nil {
		p.names("capabilities", *r.Capabilities, MaxCapabilities)
	}
	if r.Engines != nil {
		p.names("engines", *r.Engines, MaxCapabilities)
	}
	if r.Health != "" {
		oneOf(&p, "health", r.Health, HealthOK, HealthDegraded, HealthDown)
	}
	if r.Load != nil && !(*r.Load >= 0 && *r.Load <= MaxLoad) { // so that NaN is refused too
		p.add("load", "is %g, must be from 0 to %d", *r.Load, MaxLoad)
	}
	p.optionalBetween("seatLimit", r.SeatLimit, 1, MaxSeats)
	p.optionalBetween("heartbeatSeconds", r.HeartbeatSeconds, 1, MaxHeartbeatSeconds)
	p.atMost("leases", len(r.Leases), MaxBatch)
	for i, lease := range r.Leases[:min(len(r.Leases), MaxBatch)] {
		if plain(lease.JobID) && lease.LeaseEpoch >= 1 && lease.LeaseEpoch <= MaxCount {
			continue
		}
		field := index("leases", i)
		p.name(field+".jobId", lease.JobID)
		p.epoch(field+".leaseEpoch", lease.LeaseEpoch)
	}
	return p
}

// Normalize puts what is a set in order.
func (r *HeartbeatRequest) Normalize() {
	for _, words := range []**Strings{&r.Capabilities, &r.Engines} {
		if *words != nil {
			sorted := Strings(set(**words))
			*words = &sorted
		}
	}
}

// Validate says what is wrong with a comment.
func (r *CommentRequest) Validate() []FieldError {
	var p problems
	p.optionalEpoch("leaseEpoch", r.LeaseEpoch)
	p.object("data", r.Data)
	return p
}

// Validate says what is wrong with an artifact.
func (r *ArtifactRequest) Validate() []FieldError {
	var p problems
	p.optionalEpoch("leaseEpoch", r.LeaseEpoch)
	p.name("name", r.Name)
	p.name("kind", r.Kind)
	p.uri("uri", r.URI)
	p.optionalBetween("sizeBytes", r.SizeBytes, 0, MaxCount)
	if r.SHA256 != "" {
		if sum, err := hex.DecodeString(r.SHA256); err != nil || len(sum) != 32 {
			p.add("sha256", "must be 64 hexadecimal digits")
		}
	}
	return p
}

// refusedSchemes are those that carry or run what they name instead of pointing at it: an artifact is a pointer, and
// people click on it. All others are welcome, for nothing here ever fetches one.
var refusedSchemes = []string{"about", "blob", "data", "filesystem", "javascript", "vbscript", "view-source"}

func (p *problems) uri(field, uri string) {
	if len(uri) > MaxText {
		p.text(field, uri)
		return
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme == "" || strings.ContainsFunc(uri, unicode.IsSpace) || strings.ContainsFunc(uri, unicode.IsControl):
		p.add(field, "must be an absolute URI such as https://host/path or s3://bucket/key")
	case slices.Contains(refusedSchemes, u.Scheme):
		p.add(field, "%s: points at nothing; refused are %s", u.Scheme, strings.Join(refusedSchemes, ", "))
	default:
		p.text(field, uri)
	}
}

// Validate says what is wrong with a profile.
func (r *ProfileRequest) Validate() []FieldError {
	var p problems
	p.profileName("name", r.Name)
	p.object("snapshot", r.Snapshot)
	return p
}

// Validate says what is wrong with what a token is asked for.
func (r *TokenRequest) Validate() []FieldError {
	var p problems
	p.optionalName("name", r.Name)
	if len(r.Roles) == 0 {
		p.add("roles", "must name at least one role")
	}
	p.atMost("roles", len(r.Roles), len(Roles))
	for i, role := range r.Roles[:min(len(r.Roles), len(Roles))] {
		oneOf(&p, index("roles", i), role, Roles[:]...)
	}
	p.names("products", r.Products, MaxDeps)
	if r.ExpiresAt < 0 {
		p.add("expiresAt", "must not be before 1970")
	}
	return p
}
