package cluster

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// faultyDisk is a memory disk whose every write first asks fault.
type faultyDisk struct {
	*MemoryStorage
	fault func(write string) error
}

func (d faultyDisk) Open(cfg *Config) (Stores, error) {
	s, err := d.MemoryStorage.Open(cfg)
	s.Log, s.Stable = faultyLog{s.Log, d.fault}, faultyStable{s.Stable, d.fault}
	return s, err
}

type faultyLog struct {
	raft.LogStore
	fault func(string) error
}

func (f faultyLog) StoreLogs(logs []*raft.Log) error {
	return errors.Join(f.fault("StoreLogs"), f.LogStore.StoreLogs(logs))
}

func (f faultyLog) DeleteRange(from, to uint64) error {
	return errors.Join(f.fault("DeleteRange"), f.LogStore.DeleteRange(from, to))
}

type faultyStable struct {
	raft.StableStore
	fault func(string) error
}

func (f faultyStable) Set(key, value []byte) error {
	name := "Set"
	if len(value) == 8+4 { // a number and its checksum
		name = "SetUint64"
	}
	return errors.Join(f.fault(name), f.StableStore.Set(key, value))
}

// writes are all that raft writes, without the halt that spares it a panic.
var writes = map[string]struct {
	store string
	do    func(Stores) error
}{
	"StoreLogs":   {logName, func(s Stores) error { return s.Log.StoreLogs(entries(11, 12, 1)) }},
	"DeleteRange": {logName, func(s Stores) error { return s.Log.DeleteRange(1, 2) }},
	"Set":         {stableName, func(s Stores) error { return s.Stable.(haltingStable).guardedStable.Set([]byte("k"), []byte("v")) }},
	"SetUint64":   {stableName, func(s Stores) error { return s.Stable.(haltingStable).guardedStable.SetUint64([]byte("k"), 1) }},
}

// The first error of a write ends the node, once, and no write works after it.
func TestWatchdogEndsTheNodeAtAnError(t *testing.T) {
	broken := errors.New("the disk is broken")
	for name, w := range writes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing := ""
				cfg := storeConfig("memory", "wal")
				cfg.Storage = faultyDisk{NewMemoryStorage(), func(write string) error {
					if write == failing {
						return broken
					}
					return nil
				}}
				var faults []error
				s, err := openStores(cfg, func(err error) { faults = append(faults, err) })
				if err != nil {
					t.Fatal(err)
				}
				mustStore(t, s, entries(1, 10, 1))
				if err := w.do(s); err != nil {
					t.Fatalf("a healthy disk: %v", err)
				}
				time.Sleep(markEvery) // so that the mark has nothing to write later
				synctest.Wait()
				failing = name
				if err := w.do(s); !errors.Is(err, broken) || !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), w.store) {
					t.Errorf("got %v, want %v of %s: %v", err, ErrStorage, w.store, broken)
				}
				failing = ""
				for later, w := range writes {
					if err := w.do(s); !errors.Is(err, broken) {
						t.Errorf("%s after the fault: got %v, want %v", later, err, broken)
					}
				}
				if len(faults) != 1 || !errors.Is(faults[0], broken) {
					t.Errorf("fatal was called with %v, want once, with %v", faults, broken)
				}
			})
		})
	}
}

// A write that hangs ends the node while it hangs, and is not acknowledged when it comes back after all.
func TestWatchdogEndsTheNodeWhileAWriteHangs(t *testing.T) {
	for name, w := range writes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hanging := ""
				healed := make(chan struct{})
				cfg := storeConfig("memory", "wal")
				cfg.Storage = faultyDisk{NewMemoryStorage(), func(write string) error {
					if write == hanging {
						<-healed
					}
					return nil
				}}
				faults := make(chan error, 9)
				s, err := openStores(cfg, func(err error) { faults <- err })
				if err != nil {
					t.Fatal(err)
				}
				mustStore(t, s, entries(1, 10, 1))
				time.Sleep(markEvery)
				synctest.Wait()
				hanging = name
				answer := make(chan error, 1)
				go func() { answer <- w.do(s) }()
				time.Sleep(writeLimit - time.Millisecond)
				synctest.Wait()
				if len(faults) != 0 {
					t.Errorf("before the limit: %v", <-faults)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if len(faults) != 1 {
					t.Fatalf("while it hangs: fatal was called %d times, want once", len(faults))
				}
				if err := <-faults; !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), w.store) {
					t.Errorf("while it hangs: got %v, want %v of %s", err, ErrStorage, w.store)
				}
				close(healed)
				if err := <-answer; !errors.Is(err, ErrStorage) {
					t.Errorf("the late write: got %v, want %v", err, ErrStorage)
				}
			})
		})
	}
}

// raft panics where it can't write its term. Its goroutine ends instead, with its deferred calls.
func TestWatchdogEndsRaftsGoroutine(t *testing.T) {
	cfg := storeConfig("memory", "wal")
	cfg.Storage = faultyDisk{NewMemoryStorage(), func(string) error { return errors.New("broken") }}
	faults := 0
	s, err := openStores(cfg, func(error) { faults++ })
	if err != nil {
		t.Fatal(err)
	}
	returned, done := false, make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Stable.SetUint64([]byte("CurrentTerm"), 1)
		returned = true
	}()
	<-done
	if returned || faults != 1 {
		t.Errorf("got returned %v, faults %d, want false, 1", returned, faults)
	}
}

// A library's panic over damaged bytes is an error of the store.
func TestWatchdogContainsPanics(t *testing.T) {
	var fault error
	dog := &watchdog{limit: writeLimit, fatal: func(err error) { fault = err }}
	err := dog.write(logName, func() error { panic("page 7 already freed") })
	if !errors.Is(err, ErrStorage) || fault == nil || !strings.Contains(fault.Error(), "page 7 already freed") {
		t.Errorf("got %v, fault %v", err, fault)
	}
}
