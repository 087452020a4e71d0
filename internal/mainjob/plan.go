package mainjob

// This file turns what go list says into jobs.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/lysnrai/fleet"
)

// fallback is what is built where there is no module: enough of the standard library to keep a cluster busy.
const fallback = "net/http"

// A Package is one job: a package and those of the plan that it imports.
type Package struct {
	Path    string
	Imports []string
}

// A Plan is packages in an order in which each comes after those it imports.
type Plan struct {
	Packages []Package
	// Pretend is a plan whose jobs only say which package they would build: there is no go command.
	Pretend bool
}

// Load plans the packages of the module around dir, and those of the standard library that they need; outside a module,
// a part of the standard library alone. Without a go command the plan pretends.
func Load(ctx context.Context, dir string) (*Plan, error) {
	out, err := list(ctx, dir, "./...")
	if ctx.Err() == nil && (err != nil || len(bytes.TrimSpace(out)) == 0) {
		out, err = list(ctx, dir, fallback)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return &Plan{Packages: pretended, Pretend: true}, nil
	case err != nil:
		return nil, err
	}
	packages, err := parse(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	return &Plan{Packages: packages}, nil
}

// pretended is a small house with its rooms, enough to see jobs wait for each other.
var pretended = []Package{
	{Path: "vocabulary"},
	{Path: "machine", Imports: []string{"vocabulary"}},
	{Path: "client", Imports: []string{"vocabulary"}},
	{Path: "cluster", Imports: []string{"machine"}},
	{Path: "worker", Imports: []string{"client"}},
	{Path: "server", Imports: []string{"cluster"}},
	{Path: "program", Imports: []string{"server", "worker"}},
}

func list(ctx context.Context, dir, pattern string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Standard,Module,Imports,ImportMap,Incomplete", pattern)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("go list %s: %s", pattern, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

// listed is what go list says of one package.
type listed struct {
	ImportPath string
	Standard   bool
	Incomplete bool
	Imports    []string
	ImportMap  map[string]string
	Module     *struct{ Main bool }
}

// parse keeps the packages of the main module and of the standard library; go list names dependencies first.
func parse(r io.Reader) ([]Package, error) {
	var packages []Package
	planned := map[string]bool{}
	for d := json.NewDecoder(r); ; {
		var l listed
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading what go list says: %w", err)
		}
		ours := l.Module != nil && l.Module.Main
		if !ours && !l.Standard || l.ImportPath == "unsafe" || l.Incomplete {
			continue
		}
		p := Package{Path: l.ImportPath}
		for _, imported := range l.Imports {
			if mapped, ok := l.ImportMap[imported]; ok {
				imported = mapped
			}
			if planned[imported] {
				p.Imports = append(p.Imports, imported)
			}
		}
		planned[p.Path] = true
		packages = append(packages, p)
	}
}

// Key is the idempotency key of a package's job.
func Key(path string) string { return "check:" + path }

// Submissions is a job for each package, in the plan's order: it waits for the jobs of what the package imports.
func (p *Plan) Submissions() []fleet.Submission {
	jobs := make([]fleet.Submission, len(p.Packages))
	for i, pkg := range p.Packages {
		s := fleet.Submission{
			IdempotencyKey: Key(pkg.Path),
			BodyMd:         p.command(pkg),
			Capabilities:   []string{p.Capability()},
			Retry:          &fleet.Retry{Max: 1, Backoff: 1},
		}
		for _, imported := range pkg.Imports {
			s.Deps = append(s.Deps, "key:"+Key(imported))
		}
		jobs[i] = s
	}
	return jobs
}

// Capability is what a factory needs for these jobs.
func (p *Plan) Capability() string {
	if p.Pretend {
		return "shell"
	}
	return "go"
}

// command builds a package, with the settings of a static build, so that what one built the other finds in the cache.
// It does not vet: that also wants what the tests import, which a fresh clone would have to download and build first.
func (p *Plan) command(pkg Package) string {
	quoted := "'" + strings.ReplaceAll(pkg.Path, "'", `'\''`) + "'\n"
	if p.Pretend {
		return "echo " + quoted
	}
	return "CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /dev/null " + quoted
}
