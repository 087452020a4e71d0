package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// Any file of the stores is damaged, at random places but the same in every run: the stores open with all they had, or say that
// they can't. They never open with something else. The file of a boltdb log is left out: over damaged pages bbolt panics in a
// goroutine of its own, which ends the process just as well, but a test's too.
func TestStoreFindsAnyDamage(t *testing.T) {
	const last = 300
	onEach(t, true, func(t *testing.T, cfg *Config) {
		cfg.SegmentBytes = 16 << 10
		s := mustOpen(t, cfg)
		for i := uint64(1); i < last; i += 10 {
			mustStore(t, s, entries(i, i+9, 5))
		}
		if err := s.Stable.SetUint64([]byte("LastVoteTerm"), 5); err != nil {
			t.Fatal(err)
		}
		if err := s.Stable.Set([]byte("LastVoteCand"), []byte("candidate")); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		good := os.DirFS(cfg.DataDir)
		files, err := filepath.Glob(filepath.Join(cfg.DataDir, stableFile))
		if err != nil {
			t.Fatal(err)
		}
		more, err := filepath.Glob(filepath.Join(cfg.DataDir, walDir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
		random := rand.New(rand.NewPCG(1, 2))
		found, harmless := 0, 0
		for _, file := range files {
			name, err := filepath.Rel(cfg.DataDir, file)
			if err != nil {
				t.Fatal(err)
			}
			for round := range 16 {
				bad := *cfg
				bad.DataDir = filepath.Join(t.TempDir(), "copy")
				if err := os.CopyFS(bad.DataDir, good); err != nil {
					t.Fatal(err)
				}
				what, err := damage(filepath.Join(bad.DataDir, name), round%4 == 0, random)
				if err != nil {
					t.Fatal(err)
				}
				switch err := wholeOrError(&bad, last); {
				case err == nil:
					harmless++
				case errors.Is(err, ErrStorage):
					found++
				default:
					t.Errorf("%s, %s: %v", name, what, err)
				}
			}
		}
		t.Logf("%d files: found %d, harmless %d", len(files), found, harmless)
		if found == 0 {
			t.Error("no damage was found")
		}
	})
}

// damage cuts a file off, or turns one bit of it, where it isn't empty if it can.
func damage(path string, cut bool, random *rand.Rand) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	at := random.IntN(len(content))
	if cut {
		return fmt.Sprintf("cut off at %d", at), os.Truncate(path, int64(at))
	}
	for range 1000 { // a segment that was just made is all empty
		if content[at] != 0 {
			break
		}
		at = random.IntN(len(content))
	}
	content[at] ^= 1 << random.IntN(8)
	return fmt.Sprintf("a bit of byte %d", at), os.WriteFile(path, content, 0o600)
}

// wholeOrError opens the stores, and returns an error that is no ErrStorage if they hold something else than they should.
func wholeOrError(cfg *Config, last uint64) error {
	s, err := openStores(cfg, func(error) {})
	if err != nil {
		return err
	}
	defer s.Close()
	if got, err := s.Log.LastIndex(); err != nil || got != last {
		return fmt.Errorf("the log ends at %d, %w", got, err)
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := s.Log.(haltingLog).guardedLog.GetLog(i, &l); err != nil {
			return err
		}
		if string(l.Data) != string(payload(i)) {
			return fmt.Errorf("entry %d is %q", i, l.Data)
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
	return nil
}
