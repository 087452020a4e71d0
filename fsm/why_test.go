package fsm

// This file tests that a job says why it is not running, and what to do about it.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

func TestWhy(t *testing.T) {
	c := newCaller(t)
	submit := func(id string, s fleet.Submission) {
		t.Helper()
		s.BodyMd = "b"
		s.Normalize()
		c.must("", &Submit{ProductID: "p", JobID: id, Submission: s})
	}
	expect := func(id, want string) {
		t.Helper()
		c.m.View(func(v View) {
			w, ok := v.Why("p", id)
			if !ok {
				t.Fatalf("there is no job %s", id)
			}
			got := string(w.Stage)
			for _, r := range w.Reasons {
				got += " " + r.Code
				if !strings.HasSuffix(r.Detail, ".") || strings.Contains(r.Detail, "%") {
					t.Errorf("%s, %s: %q is no sentence", id, r.Code, r.Detail)
				}
				switch r.Code {
				case "dependencies_unmet":
					got += fmt.Sprint(r.Unmet, r.Dead)
				case "not_before":
					got += fmt.Sprint("(", r.Cause, " ", r.Until.Sub(epoch), ")")
				case "no_capable_factory":
					got += fmt.Sprint(r.Missing)
				case "capable_factories_unavailable":
					got += fmt.Sprint("(", *r.Down, " down ", *r.Full, " full)")
					if r.Paused == nil || *r.Paused != 0 {
						t.Errorf("%s: got paused %v, want 0: no factory can be", id, r.Paused)
					}
				case "waiting":
					got += fmt.Sprint("(", r.Position, " ", *r.Ahead, ")")
				case "held_by":
					got += fmt.Sprint("(", r.Factory, " ", r.Expires.Sub(epoch), ")")
				case "terminal":
					got += fmt.Sprint("(", r.Stage, " ", r.Reason, ")")
				case "composite":
					got += fmt.Sprint(" ", r.Stages)
				}
			}
			if got != want {
				t.Errorf("%s: got %s, want %s", id, got, want)
			}
		})
	}
	beat := func(id string, health fleet.Health, caps ...string) {
		list := fleet.Strings(caps)
		c.must("", &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: id, Health: health, Capabilities: &list}})
	}
	submit("a", fleet.Submission{Capabilities: []string{"go", "linux"}, EngineClass: "codex"})
	expect("a", "queued no_capable_factory[go linux codex]")
	beat("f1", "", "go")
	expect("a", "queued no_capable_factory[linux codex]")

	submit("b", fleet.Submission{Capabilities: []string{"go"}})
	submit("c", fleet.Submission{Capabilities: []string{"go"}})
	submit("d", fleet.Submission{Capabilities: []string{"go"}, Priority: fleet.High})
	expect("d", "queued waiting(1 0)")
	expect("b", "queued waiting(2 1)")
	expect("c", "queued waiting(3 2)")
	c.must("", &Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60})
	expect("d", "assigned held_by(f1 1m0s)")
	beat("f2", fleet.HealthDown, "go")
	expect("b", "queued capable_factories_unavailable(1 down 1 full) waiting(1 0)")

	submit("e", fleet.Submission{Deps: []string{"b", "c"}, NotBefore: epoch.Add(30)})
	c.must("", &Cancel{ProductID: "p", JobID: "c"})
	expect("c", "failed terminal(failed cancelled)")
	expect("e", "blocked dependencies_unmet[b c] [c] not_before(submitted 30s) capable_factories_unavailable(1 down 1 full)")

	submit("g", fleet.Submission{Kind: fleet.Composite})
	expect("g", "queued composite map[]")
	submit("h", fleet.Submission{ParentID: "g"})
	expect("g", "queued composite map[queued:1]")

	one := uint64(1)
	c.must("", &Patch{ProductID: "p", JobID: "d", Report: fleet.Report{LeaseEpoch: &one, Stage: fleet.Review}})
	c.must("", &Release{ProductID: "p", JobID: "d", LeaseEpoch: 1})
	expect("d", "review parked")
	c.m.View(func(v View) {
		if _, ok := v.Why("q", "a"); ok {
			t.Error("another product sees the job")
		}
	})
}
