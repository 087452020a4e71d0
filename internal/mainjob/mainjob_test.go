package mainjob

// This file tests the plan on what go list prints, and the verdict on what a cluster may have kept.

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lysnrai/fleet"
)

const listing = `
{"ImportPath":"unsafe","Standard":true}
{"ImportPath":"errors","Standard":true,"Imports":["unsafe"]}
{"ImportPath":"vendor/golang.org/x/text","Standard":true,"Imports":["errors"]}
{"ImportPath":"fmt","Standard":true,"Imports":["errors","golang.org/x/text"],"ImportMap":{"golang.org/x/text":"vendor/golang.org/x/text"}}
{"ImportPath":"example.org/other","Imports":["fmt"],"Module":{}}
{"ImportPath":"example.org/mine","Imports":["fmt","example.org/other"],"Module":{"Main":true}}
`

func plan(t *testing.T) *Plan {
	t.Helper()
	packages, err := parse(strings.NewReader(listing))
	if err != nil {
		t.Fatal(err)
	}
	return &Plan{Packages: packages}
}

func TestPlan(t *testing.T) {
	want := []Package{
		{Path: "errors"},
		{Path: "vendor/golang.org/x/text", Imports: []string{"errors"}},
		{Path: "fmt", Imports: []string{"errors", "vendor/golang.org/x/text"}},
		{Path: "example.org/mine", Imports: []string{"fmt"}},
	}
	p := plan(t)
	if diff := cmp.Diff(want, p.Packages); diff != "" {
		t.Errorf("packages (-want +got)\n%s", diff)
	}
	jobs := p.Submissions()
	if problems := fleet.ValidateBatch(jobs); len(problems) > 0 {
		t.Errorf("got problems %v, want none", problems)
	}
	if got, want := jobs[3].BodyMd, "CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /dev/null 'example.org/mine'\n"; got != want {
		t.Errorf("got the body %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"key:check:errors", "key:check:vendor/golang.org/x/text"}, jobs[2].Deps); diff != "" {
		t.Errorf("deps (-want +got)\n%s", diff)
	}
}

// Outside a module there is still something to build.
func TestLoadOutsideAModule(t *testing.T) {
	p, err := Load(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if last := p.Packages[len(p.Packages)-1]; last.Path != fallback || len(last.Imports) == 0 {
		t.Errorf("got %+v as the last package, want %s with its imports", last, fallback)
	}
}

// Without a go command there is still something to watch.
func TestLoadWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p, err := Load(t.Context(), t.TempDir())
	if err != nil || !p.Pretend {
		t.Fatalf("got %+v, %v, want a plan that pretends", p, err)
	}
	jobs := p.Submissions()
	if problems := fleet.ValidateBatch(jobs); len(problems) > 0 {
		t.Errorf("got problems %v, want none", problems)
	}
	known := map[string]bool{}
	for _, j := range jobs {
		for _, dep := range j.Deps {
			if !known[dep] {
				t.Errorf("%s waits for %s, which does not come before it", j.IdempotencyKey, dep)
			}
		}
		known["key:"+j.IdempotencyKey] = true
		if !strings.HasPrefix(j.BodyMd, "echo ") {
			t.Errorf("%s: got the body %q, want one that needs no go command", j.IdempotencyKey, j.BodyMd)
		}
	}
}

func TestVerify(t *testing.T) {
	p := plan(t)
	var jobs []*fleet.Job
	var events []fleet.Event
	for i, pkg := range p.Packages {
		id := "j" + pkg.Path
		jobs = append(jobs, &fleet.Job{
			ID: id, Stage: fleet.Shipped, Attempt: 1, CreatedAt: 1e9, FinishedAt: fleet.Time(i+2) * 1e9,
			Submission: fleet.Submission{IdempotencyKey: Key(pkg.Path)},
		})
		events = append(events, fleet.Event{JobID: id, Type: fleet.EventClaimed},
			fleet.Event{JobID: id, Type: fleet.EventShipped, Data: `{"factoryId":"f1"}`})
	}
	jobs[1].Attempt = 3
	good := p.Verify(jobs, events)
	want := Report{Packages: 4, Retries: 2, Factories: map[string]int{"f1": 4}, Took: 4 * time.Second}
	if diff := cmp.Diff(want, good); diff != "" || !good.OK() {
		t.Errorf("OK %v (-want +got)\n%s", good.OK(), diff)
	}
	if got, want := good.String(), "4 packages, each done exactly once as far as reports go; retries: 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	jobs[0].Stage, jobs[0].Reason = fleet.Failed, "exit_1"
	twice := append(events, fleet.Event{JobID: jobs[2].ID, Type: fleet.EventShipped})
	bad := p.Verify(jobs[:3], twice)
	if bad.OK() {
		t.Error("got OK, want not: one failed, one shipped twice, one has no job")
	}
	if diff := cmp.Diff([]string{"errors: failed, exit_1", "example.org/mine: has no job"}, bad.Failed); diff != "" {
		t.Errorf("failed (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"fmt: shipped 2 times"}, bad.NotOnce); diff != "" {
		t.Errorf("not once (-want +got)\n%s", diff)
	}
}
