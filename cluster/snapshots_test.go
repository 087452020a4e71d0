package cluster

import (
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

func writeSnapshot(t *testing.T, s Stores, index uint64, content string) {
	t.Helper()
	sink, err := s.Snapshots.Create(1, index, 1, raft.Configuration{}, 1, anyTransport(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, content); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

// anyTransport is for the file store, which encodes addresses with it.
func anyTransport(t *testing.T) raft.Transport {
	_, transport := raft.NewInmemTransport("")
	t.Cleanup(func() { _ = transport.Close() })
	return transport
}

func wantSnapshots(t *testing.T, s Stores, want ...uint64) {
	t.Helper()
	list, err := s.Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, meta := range list {
		got = append(got, meta.Index)
	}
	if len(got) != len(want) {
		t.Fatalf("snapshots: got %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("snapshots: got %v, want %v", got, want)
		}
	}
}

// damageSnapshot turns a bit in the snapshot that holds the text.
func damageSnapshot(t *testing.T, cfg *Config, text string) {
	t.Helper()
	if m, ok := cfg.Storage.(*MemoryStorage); ok {
		for _, s := range m.snapshots.newest {
			if string(s.content) == text {
				s.content[0] ^= 1
			}
		}
		return
	}
	flip(t, cfg.DataDir, text)
}

func TestSnapshotsAreKept(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 100, 1))
		for _, index := range []uint64{20, 40, 60} {
			writeSnapshot(t, s, index, "the state")
		}
		mustClose(t, s)
		s = mustOpen(t, cfg)
		wantSnapshots(t, s, 60, 40)
		list, err := s.Snapshots.List()
		if err != nil {
			t.Fatal(err)
		}
		meta, content, err := s.Snapshots.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(content)
		if err != nil || string(got) != "the state" || meta.Size != int64(len(got)) {
			t.Errorf("got %q, size %d, %v", got, meta.Size, err)
		}
		_ = content.Close()
		mustClose(t, s)
	})
}

// One that was not finished, or was given up, does not exist.
func TestSnapshotUnfinishedIsNone(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 100, 1))
		for range 2 {
			sink, err := s.Snapshots.Create(1, 20, 1, raft.Configuration{}, 1, anyTransport(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(sink, "half"); err != nil {
				t.Fatal(err)
			}
			wantSnapshots(t, s)
			if err := sink.Cancel(); err != nil {
				t.Fatal(err)
			}
		}
		wantSnapshots(t, s)
		mustClose(t, s)
		s = mustOpen(t, cfg)
		wantSnapshots(t, s)
		mustClose(t, s)
	})
}

// The newest is damaged, and the log since the one before is there: start from that.
func TestSnapshotDamagedIsSkipped(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 100, 1))
		writeSnapshot(t, s, 40, "older state")
		writeSnapshot(t, s, 60, "newer state")
		if err := s.Log.DeleteRange(1, 40); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		damageSnapshot(t, cfg, "newer state")
		s = mustOpen(t, cfg)
		wantSnapshots(t, s, 40)
		mustClose(t, s)
	})
}

// The newest is damaged, and the log since the one before is gone: say so, don't panic.
func TestSnapshotDamagedWithoutTheLogEndsTheStart(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 100, 1))
		writeSnapshot(t, s, 40, "older state")
		writeSnapshot(t, s, 60, "newer state")
		if err := s.Log.DeleteRange(1, 50); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		damageSnapshot(t, cfg, "newer state")
		wantRefusal(t, cfg, "none of 2 snapshots is usable, and the log starts at entry 51: wipe")
	})
}

// Damage that is met while the node runs takes the snapshot off the list.
func TestSnapshotFoundDamagedLater(t *testing.T) {
	onEach(t, false, func(t *testing.T, cfg *Config) {
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 100, 1))
		writeSnapshot(t, s, 40, "older state")
		writeSnapshot(t, s, 60, "newer state")
		wantSnapshots(t, s, 60, 40)
		list, err := s.Snapshots.List()
		if err != nil {
			t.Fatal(err)
		}
		damageSnapshot(t, cfg, "newer state")
		if _, _, err := s.Snapshots.Open(list[0].ID); err == nil {
			t.Error("a damaged snapshot was opened")
		}
		wantSnapshots(t, s, 40)
		mustClose(t, s)
	})
}
