package fleet

// This file keeps the house in order: a room imports only rooms below it (docs/architecture.md).

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lysnrai/fleet"

// floors says on which floor each room is. A directory below a room belongs to it.
var floors = map[string]int{
	".":                  1,
	"fsm":                2,
	"rpc/client":         2,
	"internal/nearest":   2,
	"internal/release":   2,
	"internal/placement": 2,
	"internal/jobfile":   3,
	"internal/check":     3,
	"internal/bench":     3,
	"cluster":            3,
	"worker":             3,
	"internal/mainjob":   4,
	"rpc":                4,
	"dashboard":          4,
	"testcluster":        5,
	"internal/chaos":     5,
	"internal/mutants":   5,
	"cmd/fleet-node":     5,
	"examples":           5,
}

// forbidden is what a room never imports, beside the rooms of its own floor and above.
var forbidden = map[string][]string{
	"fsm":        {"net", "os", "math/rand", "crypto/rand", "log", "syscall", "github.com/hashicorp/raft"},
	"rpc/client": {module + "/fsm", module + "/cluster", module + "/rpc", module + "/dashboard"},
	"worker":     {module + "/fsm", module + "/cluster", module + "/dashboard", module + "/rpc"},
	"examples":   {module + "/fsm", module + "/cluster", module + "/testcluster", module + "/dashboard"},
}

// clock is what package time offers that reads or awaits the clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}

func TestRooms(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range productionFiles(t) {
		room := roomOf(path.Dir(file))
		if room == "" {
			t.Errorf("%s: its package is on no floor: add it to floors, and to docs/architecture.md", file)
			continue
		}
		seen[room] = true
		src := parse(t, file)
		for _, spec := range src.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := refusal(room, imported); why != "" {
				t.Errorf("%s imports %s: %s", file, imported, why)
			}
		}
		if room == "fsm" {
			for _, what := range impurities(src) {
				t.Errorf("%s: %s: the state machine is a pure function of the log", file, what)
			}
		}
	}
	if !seen["."] || !seen["fsm"] {
		t.Errorf("got rooms %v, want at least the root and fsm: the walk is broken", seen)
	}
}

// The rules themselves can fail.
func TestRoomsRefuse(t *testing.T) {
	for _, c := range []struct{ room, imported string }{
		{".", "github.com/google/btree"},
		{".", module + "/fsm"},
		{"fsm", "net/http"},
		{"fsm", "os"},
		{"fsm", "math/rand/v2"},
		{"fsm", "github.com/hashicorp/raft"},
		{"fsm", module + "/cluster"},
		{"rpc/client", module + "/rpc"},
		{"worker", module + "/cluster"},
		{"worker", module + "/fsm"},
		{"cluster", module + "/rpc"},
		{"rpc", module + "/testcluster"},
		{"cmd/fleet-node", module + "/testcluster"},
		{"cluster", "github.com/hashicorp/go-metrics"},
	} {
		if refusal(c.room, c.imported) == "" {
			t.Errorf("%s imports %s: got nothing, want a refusal", c.room, c.imported)
		}
	}
	for _, c := range []struct{ room, imported string }{
		{".", "github.com/tinylib/msgp/msgp"},
		{".", "net/url"},
		{"fsm", module},
		{"worker", module + "/rpc/client"},
		{"rpc", module + "/cluster"},
		{"cluster", module + "/cluster/wal"},
		{"cluster", "github.com/hashicorp/go-metrics/compat"},
	} {
		if why := refusal(c.room, c.imported); why != "" {
			t.Errorf("%s imports %s: got %q, want no refusal", c.room, c.imported, why)
		}
	}
	impure := `package fsm
import "time"
func f() time.Time { go f(); return time.Now() }`
	src, err := parser.ParseFile(token.NewFileSet(), "impure.go", impure, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := impurities(src); len(got) != 2 {
		t.Errorf("got %q, want the goroutine and the clock", got)
	}
}

// refusal says why a room may not import a package, empty if it may.
func refusal(room, imported string) string {
	if imported == "github.com/hashicorp/go-metrics" {
		return "only its compat package is imported, or raft's metrics vanish"
	}
	for _, never := range forbidden[room] {
		exact := strings.HasPrefix(never, module) // a room below another room is another room
		if imported == never || !exact && strings.HasPrefix(imported, never+"/") {
			return room + " never does"
		}
	}
	inside, ours := strings.CutPrefix(imported, module)
	if !ours {
		std := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
		if room == "." && !std && imported != "github.com/tinylib/msgp/msgp" {
			return "the root imports only the standard library and msgp"
		}
		return ""
	}
	target := roomOf(path.Join(".", inside))
	if target != room && floors[target] >= floors[room] {
		return target + " is not on a floor below " + room
	}
	return ""
}

// impurities is where a file starts a goroutine or asks the clock.
func impurities(src *ast.File) []string {
	var found []string
	ast.Inspect(src, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "a goroutine")
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				found = append(found, "time."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// roomOf is the room that a directory belongs to, empty if none.
func roomOf(dir string) string {
	for room := strings.TrimPrefix(path.Clean(dir), "/"); ; room = path.Dir(room) {
		if _, ok := floors[room]; ok && (room != "." || dir == ".") {
			return room
		}
		if room == "." {
			return ""
		}
	}
}

// productionFiles are the Go files of this module that are no tests.
func productionFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != "." {
			_, err := os.Stat(path.Join(file, "go.mod"))
			if name := d.Name(); err == nil || name == "testdata" || name == "bin" || name[0] == '.' || name[0] == '_' {
				return fs.SkipDir
			}
		}
		if strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") {
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	src, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
