package cluster

// This file is a disk in memory that knows what was synced, for tests of what a power cut leaves.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// SimDisk is one node's disk in memory, a Storage for Config. It outlives the node. What was not synced survives a power cut by chance, drawn
// from a seed: a sector of a file may be old, new or garbled, and of the changes to a directory the last ones may be missing. It fails,
// hangs and is slow as it is told. All methods may be called at once, but only one node at a time may have it open.
type SimDisk struct {
	mu       sync.Mutex // guards all but pace; never held while an operation waits
	random   *rand.Rand
	root     *simDir
	values   map[string][]byte // what is replaced atomically: each is durable when it is set
	era      int               // raised when the process ends: handles of an earlier one are dead
	open     []simStores       // not closed yet, the present era's last
	written  int               // durable operations so far
	trace    []string          // their names, if they are recorded
	record   bool
	cutAt    int  // the power is cut at this operation, counted from 1; 0 is never
	cutAfter bool // just after it rather than just before
	cut      bool // the power is off
	failAt   int  // this operation fails
	failWith error

	onSnapshot func(written int)

	pace pace
}

// NewSimDisk is an empty disk.
func NewSimDisk(seed uint64) *SimDisk {
	d := &SimDisk{random: rand.New(rand.NewPCG(seed, 0)), root: newSimDir(), values: map[string][]byte{}}
	d.pace.changed = make(chan struct{})
	return d
}

// errProcessGone: whoever called belongs to a process that has ended, or to a machine without power.
var errProcessGone = errors.New("the process has ended")

// simDir is a directory: what it holds, and what of that is durable.
type simDir struct {
	names   map[string]any // *simDir or *simFile
	durable map[string]any
	pending []func(names map[string]any) // since the last sync, in order
}

func newSimDir() *simDir {
	return &simDir{names: map[string]any{}, durable: map[string]any{}}
}

// change changes the names; the change is durable once the directory is synced.
func (d *simDir) change(f func(names map[string]any)) {
	f(d.names)
	d.pending = append(d.pending, f)
}

func (d *simDir) sync() {
	for _, f := range d.pending {
		f(d.durable)
	}
	d.pending = nil
}

// lost is what a power cut leaves of a directory, and of all that is below. It shares nothing with what the process had: that may still read.
func (d *simDir) lost(random *rand.Rand) *simDir {
	left := maps.Clone(d.durable)
	for _, f := range d.pending[:random.IntN(len(d.pending)+1)] {
		f(left)
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		switch e := left[name].(type) {
		case *simDir:
			left[name] = e.lost(random)
		case *simFile:
			left[name] = e.lost(random)
		}
	}
	return &simDir{names: left, durable: maps.Clone(left)}
}

// simFile is a file. Behind its data it is all zeros up to its size.
type simFile struct {
	data  []byte
	size  int64
	undo  []undo // since the last sync
	sized int64  // the size at the last sync
}

// undo is what a write has overwritten.
type undo struct {
	at  int64
	old []byte
}

func (f *simFile) write(b []byte, at int64) {
	end := at + int64(len(b))
	if grow := end - int64(len(f.data)); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
	}
	f.undo = append(f.undo, undo{at, slices.Clone(f.data[at:end])})
	copy(f.data[at:], b)
	f.size = max(f.size, end)
}

func (f *simFile) sync() { f.undo, f.sized = nil, f.size }

// lost makes what was written to each sector since the last sync old, new or garbled, and the size the old or the new. Bytes that were not
// written stay as they were.
func (f *simFile) lost(random *rand.Rand) *simFile {
	data := slices.Clone(f.data)
	fate := random.IntN(4) // of all sectors alike, or each its own
	fates := map[int64]int{}
	for _, u := range slices.Backward(f.undo) {
		for i, old := range u.old {
			at := u.at + int64(i)
			own, drawn := fates[at/sector]
			if !drawn {
				if own = fate; fate == 3 {
					own = random.IntN(3)
				}
				fates[at/sector] = own
			}
			switch own {
			case 0:
				data[at] = old
			case 2:
				data[at] = byte(random.Uint32())
			}
		}
	}
	size := f.size
	if f.size != f.sized && random.IntN(2) == 0 {
		size = f.sized
		data = data[:min(int64(len(data)), size)]
	}
	return &simFile{data: data, size: size, sized: size}
}

func (f *simFile) readAt(b []byte, at int64) (int, error) {
	if at >= f.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), f.size-at))
	clear(b[:n])
	if at < int64(len(f.data)) {
		copy(b[:n], f.data[at:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// find is the entry at a path. The caller holds mu.
func (d *SimDisk) find(path string) (any, error) {
	var e any = d.root
	for _, name := range parts(path) {
		dir, ok := e.(*simDir)
		if !ok {
			return nil, syscall.ENOTDIR
		}
		if e, ok = dir.names[name]; !ok {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
	}
	return e, nil
}

func (d *SimDisk) dir(path string) (*simDir, error) {
	e, err := d.find(path)
	if err != nil {
		return nil, err
	}
	dir, ok := e.(*simDir)
	if !ok {
		return nil, syscall.ENOTDIR
	}
	return dir, nil
}

func (d *SimDisk) file(path string) (*simFile, error) {
	e, err := d.find(path)
	if err != nil {
		return nil, err
	}
	file, ok := e.(*simFile)
	if !ok {
		return nil, syscall.EISDIR
	}
	return file, nil
}

func parts(path string) []string {
	var names []string
	for path = filepath.Clean(path); path != "." && path != "/"; path = filepath.Dir(path) {
		names = append(names, filepath.Base(path))
	}
	slices.Reverse(names)
	return names
}

// PowerCut takes the power away: what was not synced is lost or garbled, and every write that the process still tries fails. The next
// node to open the disk finds what is left.
func (d *SimDisk) PowerCut() {
	d.mu.Lock()
	d.lose()
	d.mu.Unlock()
	d.Resume()
}

func (d *SimDisk) lose() {
	d.era++
	d.cut, d.cutAt, d.failAt = false, 0, 0
	d.root = d.root.lost(d.random)
}

// Detach ends the process, as kill -9 does: all that it wrote is there, synced or not, and every write that it still tries fails.
func (d *SimDisk) Detach() {
	d.mu.Lock()
	d.era++
	d.cut, d.cutAt, d.failAt = false, 0, 0
	d.mu.Unlock()
	d.Resume()
}

// Release lets go of what processes that have ended had open. A node that can't trust its disk any more leaves that to its process's end.
func (d *SimDisk) Release() {
	d.mu.Lock()
	var open []simStores
	d.open = slices.DeleteFunc(d.open, func(s simStores) bool {
		if s.era != d.era {
			open = append(open, s)
		}
		return s.era != d.era
	})
	d.mu.Unlock()
	for _, s := range open {
		_ = s.log.Close() // it may be closed
	}
}

// FailAt makes the n-th durable operation from now on fail with an error, such as syscall.EIO; what it should have written may be there in
// part. Those after it work. Zero takes it back.
func (d *SimDisk) FailAt(n int, with error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failAt = 0; n > 0 {
		d.failAt, d.failWith = d.written+n, with
	}
}

// Writes is how many durable operations there were.
func (d *SimDisk) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// OnSnapshot is called while a snapshot is written, with the bytes of it so far. What it waits for the snapshot waits for.
func (d *SimDisk) OnSnapshot(tell func(written int)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSnapshot = tell
}

// Hang makes every write wait until Resume, or until the process ends.
func (d *SimDisk) Hang() { d.pace.set(func(p *pace) { p.hung = true }) }

// Resume ends Hang.
func (d *SimDisk) Resume() { d.pace.set(func(p *pace) { p.hung = false }) }

// Slow makes every write of entries, of term and vote, and of a piece of a snapshot take as long as least to most. Zero makes it quick again.
func (d *SimDisk) Slow(least, most time.Duration) {
	d.pace.set(func(p *pace) { p.least, p.most = least, most })
}

// do runs one durable operation of a process of some era. torn does a part of it, if it fails.
func (d *SimDisk) do(era int, name string, whole, torn func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.era != era || d.cut {
		return errProcessGone
	}
	d.written++
	if d.record {
		d.trace = append(d.trace, name)
	}
	if d.written == d.cutAt && !d.cutAfter {
		d.cut = true
		return errProcessGone
	}
	if d.written == d.failAt {
		if torn != nil && d.random.IntN(2) == 0 {
			torn()
		}
		return d.failWith
	}
	whole()
	if d.written == d.cutAt {
		d.cut = true
		return errProcessGone
	}
	return nil
}

// see runs what finds something by its name. What a process has open already it may read even after its end: that goes nowhere.
func (d *SimDisk) see(era int, read func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.era != era || d.cut {
		return errProcessGone
	}
	return read()
}

// pace is how long writes take. They wait before they enter the stores, where locks would be held.
type pace struct {
	mu          sync.Mutex // guards what follows
	hung        bool
	least, most time.Duration
	changed     chan struct{} // closed when hung changes
	waited      uint64
}

func (p *pace) set(change func(*pace)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait waits as long as a write takes.
func (p *pace) wait() {
	p.mu.Lock()
	p.waited++
	long := p.least
	if more := p.most - p.least; more > 0 {
		long += time.Duration(p.waited * 0x9e3779b97f4a7c15 % uint64(more))
	}
	p.mu.Unlock()
	if long > 0 {
		time.Sleep(long)
	}
	for {
		p.mu.Lock()
		hung, changed := p.hung, p.changed
		p.mu.Unlock()
		if !hung {
			return
		}
		<-changed
	}
}
