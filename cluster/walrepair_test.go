package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// failingMeta fails to commit when it is told to, as a full disk does, or a process that dies.
type failingMeta struct {
	*walMeta
	failing bool
}

func (m *failingMeta) CommitState(state types.PersistentState) error {
	if m.failing {
		return errors.New("no space left on device")
	}
	return m.walMeta.CommitState(state)
}

// leaveUnfinished makes a log whose last segment was sealed, and whose successor was never committed. It returns the last entry.
func leaveUnfinished(t *testing.T, cfg *Config) (last uint64) {
	t.Helper()
	s := mustOpen(t, cfg)
	mustStore(t, s, entries(1, 10, 1))
	mustClose(t, s)
	inner, err := openWALMeta(filepath.Join(cfg.DataDir, walDir))
	if err != nil {
		t.Fatal(err)
	}
	meta := &failingMeta{walMeta: inner}
	log, err := wal.Open(filepath.Join(cfg.DataDir, walDir),
		wal.WithMetaStore(meta), wal.WithSegmentSize(cfg.SegmentBytes), wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		t.Fatal(err)
	}
	checked := checkedLog{log}
	meta.failing = true
	last = 10
	for err == nil {
		if err = checked.StoreLogs(entries(last+1, last+10, 1)); err == nil {
			last += 10
		}
	}
	if !errors.Is(err, wal.ErrSealed) {
		t.Fatalf("appending after a rotation that failed: got %v, want %v", err, wal.ErrSealed)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	_ = meta.Close() // the log closed it
	return last
}

func repair(t *testing.T, dir string) (repaired bool, err error) {
	t.Helper()
	meta, err := openWALMeta(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	return finishRotation(dir, meta, privateFS{walfs.New()})
}

// raft-wal alone could not append any more.
func TestStoreFinishesARotation(t *testing.T) {
	cfg := storeConfig(t.TempDir(), "wal")
	last := leaveUnfinished(t, cfg)
	dir := filepath.Join(cfg.DataDir, walDir)
	if repaired, err := repair(t, dir); err != nil || !repaired {
		t.Fatalf("repair: got %v, %v, want true", repaired, err)
	}
	if repaired, err := repair(t, dir); err != nil || repaired {
		t.Fatalf("repair of a sound log: got %v, %v, want false", repaired, err)
	}
	wantAppends(t, cfg, last)
}

// Opening the stores is all that is needed.
func TestStoreRepairsItselfAtOpen(t *testing.T) {
	cfg := storeConfig(t.TempDir(), "wal")
	wantAppends(t, cfg, leaveUnfinished(t, cfg))
}

// The successor was committed, but the disk was full when its file was made: it is there, and empty.
func TestStoreGoesOnWithAnEmptySuccessor(t *testing.T) {
	cfg := storeConfig(t.TempDir(), "wal")
	last := leaveUnfinished(t, cfg)
	dir := filepath.Join(cfg.DataDir, walDir)
	if _, err := repair(t, dir); err != nil {
		t.Fatal(err)
	}
	meta := &metadb.BoltMetaDB{}
	state, err := meta.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := meta.Close(); err != nil {
		t.Fatal(err)
	}
	successor := segment.FileName(state.Segments[len(state.Segments)-1])
	if err := os.WriteFile(filepath.Join(dir, successor), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantAppends(t, cfg, last)
}

// wantAppends appends over some segments, twice.
func wantAppends(t *testing.T, cfg *Config, last uint64) {
	t.Helper()
	for range 2 {
		s := mustOpen(t, cfg)
		wantRange(t, s.Log, 1, last)
		mustStore(t, s, entries(last+1, last+500, 1))
		mustStore(t, s, entries(last+501, last+1000, 1))
		last += 1000
		mustClose(t, s)
	}
	s := mustOpen(t, cfg)
	wantRange(t, s.Log, 1, last)
	mustClose(t, s)
}

// crashDir tells the test's own program, started again, to write until it is killed.
const crashDir = "FLEET_TEST_STORE_CRASH_DIR"

// TestStoreCrashWriter appends to the log with the next free index and prints what was acknowledged. It is no test by itself.
func TestStoreCrashWriter(t *testing.T) {
	where, logStore, _ := strings.Cut(os.Getenv(crashDir), "|")
	if where == "" {
		t.Skip("started by TestStoreSurvivesKills")
	}
	s := mustOpen(t, storeConfig(where, logStore))
	last, err := s.Log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if last%97 == 96 { // now and then a conflict is cut off, and the log compacted
			if err := s.Log.DeleteRange(last-2, last); err != nil {
				t.Fatal(err)
			}
			last -= 3
			fmt.Println("acked", last)
		}
		n := last%5 + 1
		mustStore(t, s, entries(last+1, last+n, 1))
		last += n
		fmt.Println("acked", last)
	}
}

// A process that is killed at any moment loses nothing that it acknowledged, and always starts again.
func TestStoreSurvivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	onEach(t, true, func(t *testing.T, cfg *Config) {
		for round := range 12 {
			child := exec.Command(program, "-test.run=^TestStoreCrashWriter$", "-test.v")
			child.Env = append(os.Environ(), crashDir+"="+cfg.DataDir+"|"+cfg.LogStore)
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			var acked uint64
			lines, told := bufio.NewScanner(out), 0
			for lines.Scan() {
				if n, _ := fmt.Sscanf(lines.Text(), "acked %d", &acked); n == 0 {
					continue
				}
				if told++; told == 60+round*17 {
					if err := child.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			_ = child.Wait() // killed
			if told < 60 {
				t.Fatalf("round %d: the writer ended by itself after %d writes", round, told)
			}
			s := mustOpen(t, cfg)
			last, err := s.Log.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			if last+3 < acked { // the last line may be about entries that were then cut off
				t.Fatalf("round %d: the log ends at %d, but %d was acknowledged", round, last, acked)
			}
			var l raft.Log
			if err := s.Log.GetLog(last, &l); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
		}
	})
}
