package mutants_test

// This file sets the whole suite on each bug: which tests besides the one that is named find it, and does that one find it among all others.

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

// All tests run against each mutant in a copy of the tree, those of packages that it can't reach only once. FLEET_MUTANTS_SUITE is which to
// plant: all, or a regular expression of their names. One takes minutes.
func TestSuite(t *testing.T) {
	which := chosen(t, "FLEET_MUTANTS_SUITE", "make soak")
	tree := copyTree(t)
	if found := suite(t, tree); len(found) > 0 {
		t.Fatalf("with no bug planted these fail: %s", strings.Join(found, ", "))
	}
	for _, m := range loadAll(t) {
		if !which.MatchString(m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			for file, source := range m.files {
				path := filepath.Join(tree, file)
				is, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, source, 0o600); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := os.WriteFile(path, is, 0o600); err != nil {
						t.Error(err)
					}
				}()
			}
			found := suite(t, tree)
			if len(found) == 0 {
				t.Fatalf("it survived all tests: %s", m.breaks)
			}
			report(t, "%-32s %-4s found by %d tests: %s", m.name, m.promise, len(found), strings.Join(found, ", "))
		})
	}
}

// suite runs all tests of a tree, and returns the names of those that failed. What passed before and did not change is not run again.
func suite(t *testing.T, tree string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-timeout", "20m", "./...")
	cmd.Dir = tree
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "FLEET_") }) // this test is one of all
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("[build failed]")) {
		t.Fatalf("it does not build:\n%s", out)
	}
	var found []string
	for _, name := range failed.FindAllSubmatch(out, -1) {
		found = append(found, string(name[1]))
	}
	slices.Sort(found)
	if err != nil && len(found) == 0 { // a panic, or a test that took too long
		found = append(found, "a package that ended: "+firstComplaint(out))
	}
	return slices.Compact(found)
}

// copyTree is a copy of the module without what was built and what git keeps.
func copyTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		to := filepath.Join(tree, name)
		switch {
		case name == ".git" || name == "bin":
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(to, 0o700)
		case !e.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, info.Mode().Perm()|0o200)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
