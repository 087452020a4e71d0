package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// storages are what one suite runs against.
var storages = []struct {
	name      string
	onDisk    bool
	monotonic bool // refuses holes
	config    func(dir string) *Config
}{
	{"wal", true, true, func(dir string) *Config { return storeConfig(dir, "wal") }},
	{"boltdb", true, false, func(dir string) *Config { return storeConfig(dir, "boltdb") }},
	{"memory", false, false, func(dir string) *Config {
		cfg := storeConfig(dir, "wal")
		cfg.Storage = NewMemoryStorage()
		return cfg
	}},
}

func storeConfig(dir, logStore string) *Config {
	return &Config{DataDir: dir, LogStore: logStore, SegmentBytes: 64 << 10, Logger: hclog.NewNullLogger()}
}

// onEach runs a test against each storage.
func onEach(t *testing.T, onDiskOnly bool, test func(t *testing.T, cfg *Config)) {
	for _, s := range storages {
		if onDiskOnly && !s.onDisk {
			continue
		}
		t.Run(s.name, func(t *testing.T) { test(t, s.config(t.TempDir())) })
	}
}

// noFault fails the test if the stores call it.
func noFault(t *testing.T) func(error) {
	return func(err error) { t.Errorf("the stores gave up: %v", err) }
}

func mustOpen(t *testing.T, cfg *Config) Stores {
	t.Helper()
	s, err := openStores(cfg, noFault(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s Stores) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// entries are from, …, to of one term, as a leader makes them.
func entries(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: payload(i)})
	}
	return logs
}

func payload(i uint64) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("entry-%06d;", i)), 10)
}

// mustStore stores entries under a term that is in the stable store, as raft does.
func mustStore(t *testing.T, s Stores, logs []*raft.Log) {
	t.Helper()
	if err := s.Stable.SetUint64([]byte("CurrentTerm"), logs[len(logs)-1].Term); err != nil {
		t.Fatal(err)
	}
	if err := s.Log.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

func wantRange(t *testing.T, log raft.LogStore, first, last uint64) {
	t.Helper()
	gotFirst, err := log.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	gotLast, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if gotFirst != first || gotLast != last {
		t.Errorf("range of the log: got %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
}

func TestStoreKeepsTheLog(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		logs := entries(1, 200, 3)
		logs[7].Type, logs[8].Type, logs[8].Data = raft.LogConfiguration, raft.LogNoop, nil
		mustStore(t, s, logs[:100])
		mustStore(t, s, logs[100:])
		if err := s.Log.DeleteRange(1, 50); err != nil {
			t.Fatal(err)
		}
		if err := s.Log.DeleteRange(181, 200); err != nil {
			t.Fatal(err)
		}
		wantRange(t, s.Log, 51, 180)
		mustStore(t, s, entries(181, 190, 4))
		if err := s.Log.DeleteRange(51, 60); err != nil {
			t.Fatal(err)
		}
		writeSnapshot(t, s, 70, "state")
		mustClose(t, s)

		s = mustOpen(t, cfg)
		wantRange(t, s.Log, 61, 190)
		for i := uint64(61); i <= 190; i++ {
			var got raft.Log
			if err := s.Log.GetLog(i, &got); err != nil {
				t.Fatal(err)
			}
			term := uint64(3)
			if i > 180 {
				term = 4
			}
			if !bytes.Equal(got.Data, payload(i)) || got.Term != term {
				t.Errorf("entry %d: got term %d, %q", i, got.Term, got.Data)
			}
			if err := verifyLog(&got); err != nil {
				t.Error(err)
			}
		}
		if err := s.Log.GetLog(191, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("an entry that is not there: got %v, want %v", err, raft.ErrLogNotFound)
		}
		mustClose(t, s)
	})
}

func TestStoreSaysWhetherItIsMonotonic(t *testing.T) {
	for _, c := range storages {
		s := mustOpen(t, c.config(t.TempDir()))
		if got := s.Log.(raft.MonotonicLogStore).IsMonotonic(); got != c.monotonic {
			t.Errorf("%s: got %v, want %v", c.name, got, c.monotonic)
		}
		mustClose(t, s)
	}
}

func TestStoreKeepsTermAndVote(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		if err := s.Stable.SetUint64([]byte("CurrentTerm"), 7); err != nil {
			t.Fatal(err)
		}
		if err := s.Stable.Set([]byte("LastVoteCand"), []byte("n2")); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		s = mustOpen(t, cfg)
		term, err := s.Stable.GetUint64([]byte("CurrentTerm"))
		if err != nil || term != 7 {
			t.Errorf("term: got %d, %v, want 7", term, err)
		}
		vote, err := s.Stable.Get([]byte("LastVoteCand"))
		if err != nil || string(vote) != "n2" {
			t.Errorf("vote: got %q, %v, want n2", vote, err)
		}
		mustClose(t, s)
	})
}

// A log may be emptied, as raft does after it has received a snapshot, and go on after it.
func TestStoreMayBeEmptied(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 20, 1))
		writeSnapshot(t, s, 1000, "state")
		if err := s.Log.DeleteRange(1, 20); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		s = mustOpen(t, cfg)
		wantRange(t, s.Log, 0, 0)
		mustStore(t, s, entries(1001, 1005, 1))
		mustClose(t, s)
		s = mustOpen(t, cfg)
		wantRange(t, s.Log, 1001, 1005)
		mustClose(t, s)
	})
}

// The process died between receiving a snapshot and emptying the log: what follows the snapshot must still find room.
func TestStoreGoesOnAfterASnapshotBeyondItsEnd(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 20, 1))
		writeSnapshot(t, s, 1000, "state")
		mustClose(t, s)
		s = mustOpen(t, cfg)
		mustStore(t, s, entries(1001, 1005, 1))
		mustClose(t, s)
		mustClose(t, mustOpen(t, cfg))
	})
}

// What was acknowledged and is gone is found out when the stores open.
func TestStoreFindsALostEnd(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 20, 1))
		mustClose(t, s)
		meddle(t, cfg, func(inner Stores) error { return inner.Log.DeleteRange(20, 20) })
		wantRefusal(t, cfg, "the log ends at entry 19, but entry 20 was acknowledged")
	})
}

func TestStoreFindsALostTerm(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 20, 9))
		mustClose(t, s)
		meddle(t, cfg, func(inner Stores) error { return checkedStable{inner.Stable}.SetUint64([]byte("CurrentTerm"), 8) })
		wantRefusal(t, cfg, "votes are forgotten")
	})
}

func TestStoreRefusesTheOtherLogStore(t *testing.T) {
	for _, swap := range [][2]string{{"wal", "boltdb"}, {"boltdb", "wal"}} {
		dir := t.TempDir()
		mustClose(t, mustOpen(t, storeConfig(dir, swap[0])))
		wantRefusal(t, storeConfig(dir, swap[1]), "start with --log-store="+swap[0])
	}
}

// One bit that has turned while the node was down is found when the stores open.
func TestStoreFindsAFlippedBitAtOpen(t *testing.T) {
	onEach(t, true, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 200, 1))
		mustStore(t, s, entries(201, 202, 1))
		mustClose(t, s)
		flip(t, cfg.DataDir, "entry-000100;")
		wantRefusal(t, cfg, "reading entry 100 of the log")
	})
}

// One bit that turns while the node runs is found when the entry is read: the node ends, and the reader gets nothing.
func TestStoreFindsAFlippedBitAtGetLog(t *testing.T) {
	onEach(t, true, func(t *testing.T, cfg *Config) {
		var fault error
		s, err := openStores(cfg, func(err error) { fault = err })
		if err != nil {
			t.Fatal(err)
		}
		mustStore(t, s, entries(1, 200, 1)) // boltdb caches the last 64
		flip(t, cfg.DataDir, "entry-000100;")
		err = s.Log.(haltingLog).guardedLog.GetLog(100, &raft.Log{})
		if !errors.Is(err, errChecksum) || !errors.Is(fault, ErrStorage) {
			t.Errorf("GetLog: got %v, fault %v, want %v and a fault", err, fault, errChecksum)
		}
		returned, done := false, make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Log.GetLog(100, &raft.Log{})
			returned = true
		}()
		<-done
		if returned {
			t.Error("raft's goroutine went on after a fault, and would panic")
		}
		if err := s.Log.StoreLogs(entries(201, 201, 1)); !errors.Is(err, ErrStorage) {
			t.Errorf("a write after the fault: got %v, want %v", err, ErrStorage)
		}
	})
}

func TestStoreIsForItsOwnerOnly(t *testing.T) {
	onEach(t, true, func(t *testing.T, cfg *Config) {
		cfg.DataDir = filepath.Join(cfg.DataDir, "data")
		dir, err := openDataDir(cfg.DataDir, "n1")
		if err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, cfg)
		for i := uint64(0); i < 10; i++ { // over some segments
			mustStore(t, s, entries(i*200+1, i*200+200, 1))
		}
		writeSnapshot(t, s, 1000, "state")
		mustClose(t, s)
		files := 0
		err = filepath.WalkDir(cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			files++
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if files < 7 {
			t.Errorf("got %d files, want more", files)
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// meddle changes a closed storage behind the back of checksums and mark.
func meddle(t *testing.T, cfg *Config, change func(Stores) error) {
	t.Helper()
	storage := cfg.Storage
	if storage == nil {
		storage = diskStorage{}
	}
	inner, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := change(inner); err != nil {
		t.Fatal(err)
	}
	mustClose(t, inner)
}

func wantRefusal(t *testing.T, cfg *Config, words string) {
	t.Helper()
	s, err := openStores(cfg, noFault(t))
	if err == nil {
		mustClose(t, s)
		t.Fatalf("the stores opened, want an error about %q", words)
	}
	if !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line about %q", err, words)
	}
}

// flip turns a bit behind each place in the log's files that holds the text.
func flip(t *testing.T, dir, text string) {
	t.Helper()
	turned := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for at := 0; ; {
			i := bytes.Index(content[at:], []byte(text))
			if i < 0 {
				return nil
			}
			at += i
			if _, err := f.WriteAt([]byte{content[at] ^ 1}, int64(at)); err != nil {
				return err
			}
			at += len(text)
			turned++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if turned == 0 {
		t.Fatalf("nothing holds %q", text)
	}
}

// Stores that somebody has emptied under a node that had a log are refused: it would vote again where it has voted.
func TestStoreThatWasEmptiedIsRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		cfg := Config{Name: "n1", BootstrapExpect: 1, DataDir: t.TempDir(), NodeAddr: "n1:8401"}
		n := member(t, NewMemoryNetwork(), cfg)
		eventually(t, "it has written down that it has a log", func() bool { return n.dir.identity().Started })
		n.Kill()
		cfg.GossipAddr, cfg.Secret, cfg.Storage, cfg.Network = "n1:8402", []byte("s"), NewMemoryStorage(), NewMemoryNetwork().Host("n1")
		if _, err := Start(cfg); !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("starting it with empty stores: got %v, want %v that says what to do", err, ErrStorage)
		}
	})
}
