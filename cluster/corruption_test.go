package cluster

// This file damages each kind of file of a data directory, a thousand times by one bit and a thousand times by cutting it off. What is opened
// afterwards has all that it had, or says that it can't be trusted, names the file and what to do.

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

const corruptLast = 120 // the last entry of the directory that is damaged

// corruptible makes a data directory with everything in it, and returns what it holds.
func corruptible(t *testing.T, cfg *Config) {
	t.Helper()
	dir, err := openDataDir(cfg.DataDir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.update(func(n *identity) { n.Started, n.ClusterID = true, "0123456789abcdef" }); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	mark, err := loadRestoreMark(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := mark.set(pendingRestore{Index: 40, Only: true}); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, cfg)
	for i := uint64(1); i < corruptLast; i += 5 {
		mustStore(t, s, entries(i, i+4, 5))
	}
	for _, index := range []uint64{40, 80} {
		writeSnapshot(t, s, index, strings.Repeat(fmt.Sprintf("state at %d;", index), 50))
	}
	if err := s.Log.DeleteRange(1, 40); err != nil {
		t.Fatal(err)
	}
	if err := s.Stable.SetUint64([]byte("LastVoteTerm"), 5); err != nil {
		t.Fatal(err)
	}
	if err := s.Stable.Set([]byte("LastVoteCand"), []byte("candidate")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

// soundOrError opens a data directory as a node does, and returns an error that is no ErrStorage if it holds something else than it should.
func soundOrError(cfg *Config) (err error) {
	dir, err := openDataDir(cfg.DataDir, "n1")
	if err != nil {
		return err
	}
	defer dir.Close()
	mark, err := loadRestoreMark(cfg.DataDir)
	if err != nil {
		return err
	}
	if p := mark.pending.Load(); p == nil || p.Index != 40 || !p.Only {
		return fmt.Errorf("the mark of a restore is %+v", p)
	}
	if id := dir.identity(); !id.Started || id.ClusterID != "0123456789abcdef" || id.Removed || id.Bootstrapping {
		return fmt.Errorf("the identity is %+v", id)
	}
	s, err := openStores(cfg, func(error) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := checkNotEmptied(dir.identity(), s); err != nil {
		return err
	}
	list, err := s.Snapshots.List()
	if err != nil {
		return err
	}
	from := uint64(1)
	if len(list) > 0 { // from here raft replays
		meta, content, err := s.Snapshots.Open(list[0].ID)
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(content)
		if closeErr := content.Close(); err != nil || closeErr != nil || string(raw) != strings.Repeat(fmt.Sprintf("state at %d;", meta.Index), 50) ||
			meta.Term != 1 || len(meta.Configuration.Servers) != 0 {
			return fmt.Errorf("the snapshot at %d of term %d is %.20q, %w", meta.Index, meta.Term, raw, err)
		}
		from = meta.Index + 1
	}
	if last, err := s.Log.LastIndex(); err != nil || last != corruptLast {
		return fmt.Errorf("the log ends at %d, %w", last, err)
	}
	for i := from; i <= corruptLast; i++ {
		var entry raft.Log
		if err := s.Log.(haltingLog).guardedLog.GetLog(i, &entry); err != nil {
			return fmt.Errorf("found only while running: %w", err)
		}
		if string(entry.Data) != string(payload(i)) || entry.Term != 5 {
			return fmt.Errorf("entry %d of term %d is %q", i, entry.Term, entry.Data)
		}
	}
	for key, want := range map[string]uint64{"CurrentTerm": 5, "LastVoteTerm": 5} {
		if got, err := s.Stable.GetUint64([]byte(key)); err != nil || got != want {
			return fmt.Errorf("%s is %d, %w", key, got, err)
		}
	}
	if got, err := s.Stable.Get([]byte("LastVoteCand")); err != nil || string(got) != "candidate" {
		return fmt.Errorf("the vote is %q, %w", got, err)
	}
	// It goes on: nothing is damaged that only a write would meet.
	if err := s.Stable.(haltingStable).guardedStable.SetUint64([]byte("CurrentTerm"), 6); err != nil {
		return err
	}
	for i := uint64(corruptLast + 1); i <= corruptLast+40; i += 10 { // over the end of a segment
		if err := s.Log.StoreLogs(entries(i, i+9, 6)); err != nil {
			return err
		}
	}
	return nil
}

// The kinds of files. A file that is only of use while a node runs is left out: LOCK.
func corruptFiles(t *testing.T, cfg *Config) map[string]string {
	t.Helper()
	glob := func(pattern string) []string {
		paths, err := filepath.Glob(filepath.Join(cfg.DataDir, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		return paths
	}
	if cfg.LogStore == "boltdb" {
		return map[string]string{boltLogFile: glob(boltLogFile)[0]}
	}
	segments, states, metas := glob("wal/*.wal"), glob("snapshots/*/state.bin"), glob("snapshots/*/meta.json")
	return map[string]string{
		"sealed segment": segments[len(segments)-2], "tail segment": segments[len(segments)-1], "wal-meta.db": glob("wal/wal-meta.db")[0],
		"stable.db": glob(stableFile)[0], "state.bin": states[len(states)-1], "meta.json": metas[len(metas)-1], "older state.bin": states[0],
		"node.json": glob("node.json")[0], "restore-pending": glob(restorePendingFile)[0],
	}
}

func TestNoDamageIsSilent(t *testing.T) {
	rounds := 40
	if testing.Short() { // under the race detector
		rounds = 4
	}
	if n, err := strconv.Atoi(os.Getenv("FLEET_TEST_CORRUPTIONS")); err == nil {
		rounds = n
	}
	for _, logStore := range []string{"wal", "boltdb"} {
		cfg := storeConfig(filepath.Join(t.TempDir(), "n1"), logStore)
		cfg.SegmentBytes = 8 << 10
		corruptible(t, cfg)
		if err := soundOrError(copyOf(t, cfg)); err != nil {
			t.Fatal(err)
		}
		for kind, path := range corruptFiles(t, cfg) {
			name, err := filepath.Rel(cfg.DataDir, path)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				corrupt(t, cfg, kind, name, rounds)
			})
		}
	}
}

// corrupt damages one file of a copy of a data directory, again and again.
func corrupt(t *testing.T, cfg *Config, kind, name string, rounds int) {
	random := rand.New(rand.NewPCG(11, uint64(len(name))))
	for _, cut := range []bool{false, true} {
		found, harmless := 0, 0
		for range rounds {
			bad := copyOf(t, cfg)
			what, err := damage(filepath.Join(bad.DataDir, name), cut, random)
			if err != nil {
				t.Fatal(err)
			}
			switch err := soundOrError(bad); {
			case err == nil:
				harmless++
			case !errors.Is(err, ErrStorage):
				t.Errorf("%s, %s: %v", name, what, err)
			case !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), bad.DataDir):
				t.Errorf("%s, %s: %q doesn't say where and what to do", name, what, err)
			default:
				found++
			}
			if err := os.RemoveAll(filepath.Dir(bad.DataDir)); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s, %s: %d times, found %d, harmless %d, neither %d", kind, map[bool]string{false: "one bit", true: "cut off"}[cut], rounds, found, harmless, rounds-found-harmless)
	}
}

// copyOf is a configuration with a copy of its data directory.
func copyOf(t *testing.T, cfg *Config) *Config {
	t.Helper()
	c := *cfg
	dir, err := os.MkdirTemp("/dev/shm", "fleet-corruption") //nolint:usetesting // thousands of copies that nobody needs on a disk
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c.DataDir = filepath.Join(dir, "n1")
	if err := os.CopyFS(c.DataDir, os.DirFS(cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	return &c
}
