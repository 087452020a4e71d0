package cluster

// This file ends the node at the first error of its disk, and when a write hangs. A leader whose disk hangs would lead for ever,
// and a follower that carries on after an error can acknowledge entries above a hole.

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// writeLimit is how long a write may take.
const writeLimit = 10 * time.Second

// watchdog calls fatal once: with the first error of a store, or when a write takes longer than limit, while it still hangs.
type watchdog struct {
	limit time.Duration
	fatal func(error)
	first atomic.Pointer[error]
	// stored measures a write of entries; set before Raft starts.
	stored func(took time.Duration)
}

// fail ends the node and returns why: the first reason stays the reason.
func (w *watchdog) fail(store string, err error) error {
	err = fmt.Errorf("%w: %s: %w", ErrStorage, store, err)
	if w.first.CompareAndSwap(nil, &err) {
		w.fatal(err)
	}
	return *w.first.Load()
}

func (w *watchdog) failed() error {
	if err := w.first.Load(); err != nil {
		return *err
	}
	return nil
}

// write runs a write. One that comes back after the limit is not acknowledged: the node is ending.
func (w *watchdog) write(store string, op func() error) error {
	if err := w.failed(); err != nil {
		return err
	}
	timer := time.AfterFunc(w.limit, func() { _ = w.fail(store, fmt.Errorf("a write hangs for over %s", w.limit)) })
	defer timer.Stop()
	if err := contain(op); err != nil {
		return w.fail(store, err)
	}
	return w.failed()
}

// contain turns the panic of a library over damaged bytes into an error, a fault in a file it has mapped too.
func contain(op func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return op()
}

// guardedLog is a log store whose errors end the node.
type guardedLog struct {
	markedLog
	dog *watchdog
}

const logName = "the log store"

func (g guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g guardedLog) StoreLogs(logs []*raft.Log) error {
	began := time.Now()
	err := g.dog.write(logName, func() error { return g.markedLog.StoreLogs(logs) })
	if g.dog.stored != nil {
		g.dog.stored(time.Since(began))
	}
	return err
}

func (g guardedLog) DeleteRange(from, to uint64) error {
	return g.dog.write(logName, func() error { return g.markedLog.DeleteRange(from, to) })
}

// GetLog ends the node when an entry is damaged or can't be read. An entry that is not there is no fault.
func (g guardedLog) GetLog(index uint64, l *raft.Log) error {
	err := contain(func() error { return g.markedLog.GetLog(index, l) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return g.dog.fail(logName, err)
	}
	return err
}

// guardedStable is a stable store whose errors end the node.
type guardedStable struct {
	checkedStable
	dog *watchdog
}

const stableName = "the stable store"

func (g guardedStable) Set(key, value []byte) error {
	return g.dog.write(stableName, func() error { return g.checkedStable.Set(key, value) })
}

func (g guardedStable) SetUint64(key []byte, value uint64) error {
	return g.dog.write(stableName, func() error { return g.checkedStable.SetUint64(key, value) })
}

// haltingLog and haltingStable are what raft gets. Where raft would panic on an error, its goroutine ends instead: nothing is
// acknowledged after it, as with a panic, but the node can still say why it ends, with its exit status.
type (
	haltingLog    struct{ guardedLog }
	haltingStable struct{ guardedStable }
)

func (h haltingLog) GetLog(index uint64, l *raft.Log) error {
	return halt(h.guardedLog.GetLog(index, l))
}

func (h haltingStable) Set(key, value []byte) error {
	return halt(h.guardedStable.Set(key, value))
}

func (h haltingStable) SetUint64(key []byte, value uint64) error {
	return halt(h.guardedStable.SetUint64(key, value))
}

func halt(err error) error {
	if errors.Is(err, ErrStorage) {
		runtime.Goexit()
	}
	return err
}
