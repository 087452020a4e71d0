package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustOpenDir(t *testing.T, path, name string) *dataDir {
	t.Helper()
	d, err := openDataDir(path, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestDataDirRemembersTheNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := mustOpenDir(t, path, "n1")
	if id := d.identity(); len(id.ServerID) != 32 || id.Name != "n1" {
		t.Errorf("at the first start: got %+v", id)
	}
	err := d.update(func(id *identity) {
		id.ClusterID, id.Promised, id.Minter, id.Bootstrapping, id.Removed = "c1", "c1", "m1", true, true
		id.Mint = []mintServer{{ID: "s1", Name: "n1", Addr: "h:1"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := d.identity()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := mustOpenDir(t, path, "n1").identity(); !reflect.DeepEqual(got, want) {
		t.Errorf("at the next start: got %+v, want %+v", got, want)
	}
	for file, mode := range map[string]os.FileMode{"": 0o700, "LOCK": 0o600, "node.json": 0o600} {
		info, err := os.Stat(filepath.Join(path, file))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode {
			t.Errorf("mode of %q: got %v, want %v", file, got, mode)
		}
	}
}

func TestDataDirIsForOneProcess(t *testing.T) {
	path := t.TempDir()
	d := mustOpenDir(t, path, "n1")
	wantDirRefusal(t, path, "n1", fmt.Sprintf("in use by process %d", os.Getpid()))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpenDir(t, path, "n1")
}

func TestDataDirIsForOneName(t *testing.T) {
	path := t.TempDir()
	_ = mustOpenDir(t, path, "n1").Close()
	wantDirRefusal(t, path, "n2", `belongs to the node named "n1", not "n2": start it with --name n1`)
}

// Every bit of the file is turned: the node starts as the same, or not at all.
func TestDataDirFindsAnyFlippedBit(t *testing.T) {
	path := t.TempDir()
	d := mustOpenDir(t, path, "n1")
	want := d.identity()
	_ = d.Close()
	good, err := os.ReadFile(filepath.Join(path, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range len(good) * 8 {
		bad := append([]byte(nil), good...)
		bad[i/8] ^= 1 << (i % 8)
		got, err := decodeIdentity(bad)
		if err != nil {
			refused++
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("bit %d of %q: got %+v, want %+v", i, good, got, want)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if err := os.WriteFile(filepath.Join(path, "node.json"), good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	wantDirRefusal(t, path, "n1", "node.json is damaged: wipe")
}

func TestDataDirRefusesANewerFormat(t *testing.T) {
	path := t.TempDir()
	_ = mustOpenDir(t, path, "n1").Close()
	file := filepath.Join(path, "node.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(raw), `"format":1`, `"format":2`, 1)
	if err := os.WriteFile(file, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	wantDirRefusal(t, path, "n1", "newer version")
}

func TestDataDirThatIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantDirRefusal(t, path, "n1", "is not a directory: choose another")
	wantDirRefusal(t, filepath.Join(path, "below"), "n1", "is not a directory: choose another")
}

// These need a disk of their own, so only the words are tested.
func TestDataDirSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.ENOSPC, "free some, then start again"},
		{unix.EDQUOT, "free some, then start again"},
		{unix.EROFS, "make it writable, or choose another"},
		{unix.EACCES, "make it writable, or choose another"},
		{unix.EIO, "look at its disk"},
	} {
		got := unusable("/d", &os.PathError{Op: "open", Path: "/d/LOCK", Err: c.err})
		if !strings.Contains(got.Error(), c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: got %q, want %q in it", c.err, got, c.want)
		}
	}
}

func wantDirRefusal(t *testing.T, path, name, words string) {
	t.Helper()
	d, err := openDataDir(path, name)
	if err == nil {
		_ = d.Close()
		t.Fatalf("the directory opened, want an error about %q", words)
	}
	if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line about %q", err, words)
	}
}
