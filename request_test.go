package fleet

// This file holds each limit of the other calls to both of its sides.

import (
	"math"
	"strings"
	"testing"
)

func TestRequestLimits(t *testing.T) {
	held := of(uint64(1))
	type request interface{ Validate() []FieldError }
	for _, c := range []struct {
		name string
		r    request
		want string // the field that is refused, empty for none
	}{
		{"report", &Report{LeaseEpoch: held, Stage: Building, Exit: of(int64(-9)), Insights: &Insights{TokensIn: of(int64(0))}}, ""},
		{"report of nothing", &Report{LeaseEpoch: held}, ""},
		{"report at epoch 0", &Report{LeaseEpoch: of(uint64(0))}, "leaseEpoch"},
		{"report of no stage", &Report{LeaseEpoch: held, Stage: "done"}, "stage"},
		{"report of failure", &Report{LeaseEpoch: held, Stage: Failed, Reason: "tests_red"}, ""},
		{"report of failure without a reason", &Report{LeaseEpoch: held, Stage: Failed}, "reason"},
		{"longest reason", &Report{LeaseEpoch: held, Reason: long(MaxText)}, ""},
		{"reason too long", &Report{LeaseEpoch: held, Reason: long(MaxText + 1)}, "reason"},
		{"report's checkpoint", &Report{LeaseEpoch: held, Checkpoint: &Checkpoint{WipCommit: "a\x00"}}, "checkpoint.wipCommit"},
		{"negative insight", &Report{LeaseEpoch: held, Insights: &Insights{ToolCalls: of(int64(-1))}}, "insights.toolCalls"},
		{"most tokens", &Report{LeaseEpoch: held, Insights: &Insights{TokensOut: of(int64(MaxCount))}}, ""},
		{"too many tokens", &Report{LeaseEpoch: held, Insights: &Insights{TokensOut: of(int64(MaxCount + 1))}}, "insights.tokensOut"},
		{"negative cost", &Report{LeaseEpoch: held, Insights: &Insights{CostUSD: of(USD(-1))}}, "insights.costUsd"},
		{"model", &Report{LeaseEpoch: held, Insights: &Insights{Model: of(long(MaxName + 1))}}, "insights.model"},
		{"operator's report", &Report{Stage: Shipped, Reason: "r", Checkpoint: &Checkpoint{}, Result: `1`, VerifyResult: `{}`}, ""},
		{"operator's failure without a reason", &Report{Stage: Failed}, ""},
		{"operator's exit", &Report{Exit: of(int64(0))}, "exit"},
		{"operator's insights", &Report{Insights: &Insights{}}, "insights"},
		{"one report of many", &JobReport{JobID: "j", Report: Report{LeaseEpoch: held}}, ""},
		{"one report of many without a job", &JobReport{Report: Report{LeaseEpoch: held}}, "jobId"},
		{"one report of many without an epoch", &JobReport{JobID: "j"}, "leaseEpoch"},

		{"claim", &ClaimRequest{FactoryID: "f"}, ""},
		{"smallest claim", &ClaimRequest{FactoryID: "f", LeaseSeconds: of(int64(1)), Max: of(int64(1))}, ""},
		{"largest claim", &ClaimRequest{FactoryID: "f", LeaseSeconds: of(int64(86_400)), WaitSeconds: 60, Max: of(int64(1000))}, ""},
		{"claim by nobody", &ClaimRequest{}, "factoryId"},
		{"lease too short", &ClaimRequest{FactoryID: "f", LeaseSeconds: of(int64(0))}, "leaseSeconds"},
		{"lease too long", &ClaimRequest{FactoryID: "f", LeaseSeconds: of(int64(86_401))}, "leaseSeconds"},
		{"negative wait", &ClaimRequest{FactoryID: "f", WaitSeconds: -1}, "waitSeconds"},
		{"wait too long", &ClaimRequest{FactoryID: "f", WaitSeconds: 61}, "waitSeconds"},
		{"claim of none", &ClaimRequest{FactoryID: "f", Max: of(int64(0))}, "max"},
		{"claim of too many", &ClaimRequest{FactoryID: "f", Max: of(int64(1001))}, "max"},

		{"renewal", &RenewRequest{LeaseEpoch: 1, LeaseSeconds: of(int64(86_400))}, ""},
		{"renewal without an epoch", &RenewRequest{}, "leaseEpoch"},
		{"renewal for nothing", &RenewRequest{LeaseEpoch: 1, LeaseSeconds: of(int64(0))}, "leaseSeconds"},
		{"release", &ReleaseRequest{LeaseEpoch: 1, DelaySeconds: 3600}, ""},
		{"release without an epoch", &ReleaseRequest{}, "leaseEpoch"},
		{"release for too long", &ReleaseRequest{LeaseEpoch: 1, DelaySeconds: 3601}, "delaySeconds"},
		{"release into the past", &ReleaseRequest{LeaseEpoch: 1, DelaySeconds: -1}, "delaySeconds"},

		{"heartbeat", &HeartbeatRequest{FactoryID: "f"}, ""},
		{"heartbeat of nobody", &HeartbeatRequest{}, "factoryId"},
		{"descriptor", &HeartbeatRequest{FactoryID: "f", Descriptor: `"x"`}, "descriptor"},
		{"capability", &HeartbeatRequest{FactoryID: "f", Capabilities: &Strings{"go", "a\n"}}, "capabilities[1]"},
		{"most engines", &HeartbeatRequest{FactoryID: "f", Engines: of(Strings(repeat(256, "e")))}, ""},
		{"too many engines", &HeartbeatRequest{FactoryID: "f", Engines: of(Strings(repeat(257, "e")))}, "engines"},
		{"health", &HeartbeatRequest{FactoryID: "f", Health: "fine"}, "health"},
		{"most load", &HeartbeatRequest{FactoryID: "f", Load: of(1e6)}, ""},
		{"too much load", &HeartbeatRequest{FactoryID: "f", Load: of(1e6 + 0.5)}, "load"},
		{"negative load", &HeartbeatRequest{FactoryID: "f", Load: of(-0.1)}, "load"},
		{"no number of load", &HeartbeatRequest{FactoryID: "f", Load: of(math.NaN())}, "load"},
		{"most seats", &HeartbeatRequest{FactoryID: "f", SeatLimit: of(int64(10_000))}, ""},
		{"no seats", &HeartbeatRequest{FactoryID: "f", SeatLimit: of(int64(0))}, "seatLimit"},
		{"too many seats", &HeartbeatRequest{FactoryID: "f", SeatLimit: of(int64(10_001))}, "seatLimit"},
		{"slowest heartbeat", &HeartbeatRequest{FactoryID: "f", HeartbeatSeconds: of(int64(3600))}, ""},
		{"heartbeat too slow", &HeartbeatRequest{FactoryID: "f", HeartbeatSeconds: of(int64(3601))}, "heartbeatSeconds"},
		{"heartbeat too fast", &HeartbeatRequest{FactoryID: "f", HeartbeatSeconds: of(int64(0))}, "heartbeatSeconds"},
		{"most leases", &HeartbeatRequest{FactoryID: "f", Leases: leases(MaxBatch)}, ""},
		{"too many leases", &HeartbeatRequest{FactoryID: "f", Leases: leases(MaxBatch + 1)}, "leases"},
		{"lease of no job", &HeartbeatRequest{FactoryID: "f", Leases: []HeldLease{{"", 1}}}, "leases[0].jobId"},
		{"lease at epoch 0", &HeartbeatRequest{FactoryID: "f", Leases: []HeldLease{{"j", 0}}}, "leases[0].leaseEpoch"},

		{"comment", &CommentRequest{Data: `{"text":"hi"}`}, ""},
		{"comment of nothing", &CommentRequest{}, "data"},
		{"comment of text", &CommentRequest{Data: `"hi"`}, "data"},
		{"comment at epoch 0", &CommentRequest{LeaseEpoch: of(uint64(0)), Data: `{}`}, "leaseEpoch"},

		{"artifact", &ArtifactRequest{Name: "n", Kind: "k", URI: "s3://b/k", SizeBytes: of(int64(0)), SHA256: long(0)}, ""},
		{"artifact's sum", &ArtifactRequest{Name: "n", Kind: "k", URI: "https://h/p?q#f", SHA256: strings.Repeat("aB", 32)}, ""},
		{"artifact without a name", &ArtifactRequest{Kind: "k", URI: "s3://b/k"}, "name"},
		{"artifact without a kind", &ArtifactRequest{Name: "n", URI: "s3://b/k"}, "kind"},
		{"artifact without a URI", &ArtifactRequest{Name: "n", Kind: "k"}, "uri"},
		{"artifact nowhere", &ArtifactRequest{Name: "n", Kind: "k", URI: "build/log.txt"}, "uri"},
		{"artifact that runs", &ArtifactRequest{Name: "n", Kind: "k", URI: "JavaScript:alert(1)"}, "uri"},
		{"artifact that is the bytes", &ArtifactRequest{Name: "n", Kind: "k", URI: "data:text/html,x"}, "uri"},
		{"artifact with a line break", &ArtifactRequest{Name: "n", Kind: "k", URI: "https://h/\np"}, "uri"},
		{"artifact with a space", &ArtifactRequest{Name: "n", Kind: "k", URI: "https://h/a b"}, "uri"},
		{"longest URI", &ArtifactRequest{Name: "n", Kind: "k", URI: "https://h/" + long(MaxText-10)}, ""},
		{"URI too long", &ArtifactRequest{Name: "n", Kind: "k", URI: "https://h/" + long(MaxText-9)}, "uri"},
		{"negative size", &ArtifactRequest{Name: "n", Kind: "k", URI: "s3://b/k", SizeBytes: of(int64(-1))}, "sizeBytes"},
		{"short sum", &ArtifactRequest{Name: "n", Kind: "k", URI: "s3://b/k", SHA256: long(63)}, "sha256"},
		{"sum of no digits", &ArtifactRequest{Name: "n", Kind: "k", URI: "s3://b/k", SHA256: long(64)}, "sha256"},

		{"profile", &ProfileRequest{Name: "coder", Snapshot: `{}`}, ""},
		{"profile without a name", &ProfileRequest{Snapshot: `{}`}, "name"},
		{"profile that looks like a version", &ProfileRequest{Name: "coder@1", Snapshot: `{}`}, "name"},
		{"profile without a snapshot", &ProfileRequest{Name: "coder"}, "snapshot"},

		{"token", &TokenRequest{Roles: []Role{RoleReader}, Products: []string{"p"}}, ""},
		{"token without a role", &TokenRequest{}, "roles"},
		{"token of no role", &TokenRequest{Roles: []Role{RoleReader, "root"}}, "roles[1]"},
		{"token of no product", &TokenRequest{Roles: []Role{RoleReader}, Products: []string{""}}, "products[0]"},
		{"token's name", &TokenRequest{Roles: []Role{RoleReader}, Name: long(MaxName + 1)}, "name"},
	} {
		got := c.r.Validate()
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: got %v, want no refusal", c.name, got)
		case c.want != "" && (len(got) != 1 || got[0].Field != c.want || got[0].Detail == ""):
			t.Errorf("%s: got %v, want %s refused", c.name, got, c.want)
		}
	}
}

func leases(n int) []HeldLease {
	l := make([]HeldLease, n)
	for i := range l {
		l[i] = HeldLease{"j", 1}
	}
	return l
}

func TestValidateReports(t *testing.T) {
	if got := ValidateReports(make([]JobReport, MaxBatch)); len(got) != 0 {
		t.Errorf("%d reports: got %v, want no refusal", MaxBatch, got)
	}
	if got := ValidateReports(make([]JobReport, MaxBatch+1)); len(got) != 1 || got[0].Field != "reports" {
		t.Errorf("%d reports: got %v, want reports refused", MaxBatch+1, got)
	}
}

func TestSplitProfile(t *testing.T) {
	for _, c := range []struct {
		ref, name string
		version   int64
		ok        bool
	}{
		{"coder", "coder", 0, true},
		{"coder@12", "coder", 12, true},
		{"coder@-1", "", 0, false},
		{"coder@01", "", 0, false},
		{"", "", 0, false},
	} {
		name, version, ok := SplitProfile(c.ref)
		if ok != c.ok || ok && (name != c.name || version != c.version) {
			t.Errorf("%q: got %q, %d, %t, want %q, %d, %t", c.ref, name, version, ok, c.name, c.version, c.ok)
		}
	}
}
