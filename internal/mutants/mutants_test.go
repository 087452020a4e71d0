package mutants_test

// This file plants each bug, and sees whether its test finds it.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// root is the module's directory.
const root = "../.."

// mutant is one planted bug.
type mutant struct {
	name    string
	breaks  string // what is wrong, in words
	promise string // which invariant or finding: I2, A, …
	pkg     string // of the test that must find it
	test    string
	env     []string // FLEET_SEED=…
	files   map[string][]byte
}

// load reads a mutant and applies it to the sources in memory.
func load(path string) (*mutant, error) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	m := &mutant{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), files: map[string][]byte{}}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "breaks":
			m.breaks = value
		case "promise":
			m.promise = value
		case "test":
			m.pkg, m.test, _ = strings.Cut(value, " ")
		case "env":
			m.env = append(m.env, value)
		case "":
		default:
			return nil, fmt.Errorf("%s: %q is none of breaks, promise, test, env", path, key)
		}
	}
	if m.breaks == "" || m.promise == "" || m.test == "" {
		return nil, fmt.Errorf("%s: it must say what it breaks, which promise, and the package and test that must find it", path)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		is, becomes := archive.Files[i], archive.Files[i+1]
		is.Data, becomes.Data = bytes.TrimSuffix(is.Data, []byte("\n")), bytes.TrimSuffix(becomes.Data, []byte("\n"))
		file, ok := strings.CutPrefix(is.Name, "is ")
		if !ok || becomes.Name != "becomes "+file {
			return nil, fmt.Errorf("%s: got sections %q and %q, want \"is FILE\" and \"becomes FILE\"", path, is.Name, becomes.Name)
		}
		source := m.files[file]
		if source == nil {
			if source, err = os.ReadFile(filepath.Join(root, file)); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(source, is.Data); n != 1 || len(is.Data) == 0 {
			return nil, fmt.Errorf("%s: %s has this text %d times, want it once:\n%s", path, file, n, is.Data)
		}
		m.files[file] = bytes.Replace(source, is.Data, becomes.Data, 1)
	}
	if len(m.files) == 0 || len(archive.Files)%2 != 0 {
		return nil, fmt.Errorf("%s: it must have sections \"is FILE\" and \"becomes FILE\"", path)
	}
	return m, nil
}

func loadAll(t *testing.T) (all []*mutant) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		m, err := load(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// Every mutant still fits the sources, and the test that it names exists.
func TestMutantsFit(t *testing.T) {
	all := loadAll(t)
	if len(all) < 30 {
		t.Errorf("there are %d mutants, want 30 at least", len(all))
	}
	for _, m := range all {
		for file, source := range m.files {
			if _, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		if !hasTest(t, m.pkg, m.test) {
			t.Errorf("%s: %s has no test %s", m.name, m.pkg, m.test)
		}
	}
}

func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ = strings.Cut(name, "/")
	return slices.ContainsFunc(files, func(file string) bool {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(source, []byte("func "+name+"("))
	})
}

// patience is how long a test may take to find its mutant, once it is built: twice what is meant, for machines that do other work.
const patience = 60 * time.Second

// chosen is which mutants a variable names: all, or those that a regular expression fits. Without it the test is skipped.
func chosen(t *testing.T, variable, target string) *regexp.Regexp {
	t.Helper()
	pattern := os.Getenv(variable)
	switch pattern {
	case "":
		t.Skipf("%s says which to plant: all, or a regular expression (%s)", variable, target)
	case "all":
		pattern = "."
	}
	return regexp.MustCompile(pattern)
}

// Each mutant is found by the test that it names. FLEET_MUTANTS is which to plant: all, or a regular expression of their names.
func TestMutants(t *testing.T) {
	which := chosen(t, "FLEET_MUTANTS", "make mutants")
	planted, killed := 0, 0
	for _, m := range loadAll(t) {
		if !which.MatchString(m.name) {
			continue
		}
		planted++
		t.Run(m.name, func(t *testing.T) {
			began := time.Now()
			found, err := m.find(t)
			if err != nil {
				t.Fatal(err)
			}
			if found == "" {
				t.Fatalf("it survived %s %s %v: %s", m.pkg, m.test, m.env, m.breaks)
			}
			killed++
			report(t, "%-32s %-4s found in %4.1fs by %s %s: %s", m.name, m.promise, time.Since(began).Seconds(), m.test, strings.Join(m.env, " "), found)
		})
	}
	report(t, "%d mutants planted, %d found", planted, killed)
	if planted == 0 {
		t.Errorf("no mutant is named like %s", which)
	}
}

// report writes a line to the test's log, and to the file that FLEET_REPORT names.
func report(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	path := os.Getenv("FLEET_REPORT")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// find runs the mutant's test, and returns the first thing that it complained of.
func (m *mutant) find(t *testing.T) (complaint string, err error) {
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for file, source := range m.files {
		original, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		planted := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(planted, source, 0o600); err != nil {
			return "", err
		}
		overlay.Replace[original] = planted
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	plan, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "planted.test")
	if err := os.WriteFile(plan, b, 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", plan, "-o", binary, m.pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building it: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience+10*time.Second)
	defer cancel()
	args := []string{"-test.run", "^" + strings.ReplaceAll(m.test, "/", "$/^") + "$", "-test.timeout", patience.String(), "-test.short=false"}
	if m.pkg == "./fsm" { // its properties would leave what they found in the tree
		args = append(args, "-rapid.nofailfile")
	}
	run := exec.CommandContext(ctx, binary, args...)
	run.Dir = filepath.Join(root, m.pkg)
	run.Env = append(os.Environ(), m.env...)
	run.WaitDelay = time.Second
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		if bytes.Contains(out, []byte("no tests to run")) {
			return "", errors.New("no test has that name")
		}
		return "", nil
	case !errors.As(err, &exit):
		return "", err
	case ctx.Err() != nil, bytes.Contains(out, []byte("panic: test timed out")):
		return "", nil // that nothing was said in time is no finding
	}
	return firstComplaint(out), nil
}

// firstComplaint is the line that says what a test found.
func firstComplaint(out []byte) string {
	said := regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.*)$|^(panic: .*)$`)
	if found := said.FindSubmatch(out); found != nil {
		if line := string(found[1]) + string(found[2]); line != "" {
			return line[:min(len(line), 120)]
		}
	}
	return "it ended with an error"
}
