package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A second after it was acknowledged an entry's loss is found, though the node never closed its stores.
func TestStoreMarkFollowsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := storeConfig("memory", "wal")
		disk := NewMemoryStorage()
		cfg.Storage = disk
		s := mustOpen(t, cfg)
		mustStore(t, s, entries(1, 10, 1))
		wantMark(t, disk, 0)
		time.Sleep(markEvery)
		synctest.Wait()
		wantMark(t, disk, 10)
		mustStore(t, s, entries(11, 20, 1))
		time.Sleep(markEvery)
		synctest.Wait()
		if err := disk.store.DeleteRange(20, 20); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, cfg, "entry 20 was acknowledged")
	})
}

// The mark is lowered before the end is cut off, and not by compaction.
func TestStoreMarkIsLoweredFirst(t *testing.T) {
	disk := raft.NewInmemStore()
	mark, err := loadMark(disk)
	if err != nil {
		t.Fatal(err)
	}
	log := markedLog{checkedLog{cutFails{disk}}, mark}
	if err := log.StoreLogs(entries(1, 10, 1)); err != nil {
		t.Fatal(err)
	}
	if err := mark.write(false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want uint64 }{{1, 3, 10}, {8, 12, 7}, {1, 10, 0}} {
		if err := log.DeleteRange(c.from, c.to); !errors.Is(err, errNoCut) {
			t.Errorf("got %v, want %v", err, errNoCut)
		}
		if got, _ := disk.GetUint64(markKey); got != c.want {
			t.Errorf("mark when %d to %d are about to go: got %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

const errNoCut = faultText("no cut")

// cutFails is a process that dies just before entries are deleted.
type cutFails struct{ *raft.InmemStore }

func (cutFails) DeleteRange(_, _ uint64) error { return errNoCut }

type faultText string

func (f faultText) Error() string { return string(f) }

func wantMark(t *testing.T, disk *MemoryStorage, want uint64) {
	t.Helper()
	if got, _ := (checkedStable{disk.store}).GetUint64(markKey); got != want {
		t.Errorf("mark: got %d, want %d", got, want)
	}
}
