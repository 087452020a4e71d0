package fsm

// This file reads a snapshot's stream: in parts that are verified as they come, decoded by whoever has a processor to spare, and loaded
// in order. It starts no goroutine; who restores may.

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"iter"
	"slices"
	"sync"
)

// Restore replaces the state by that of a snapshot stream. After an error the state is as it was.
func (m *Machine) Restore(r io.Reader) error {
	return m.RestoreAhead(r, inTurn)
}

// RestoreAhead is Restore with its work on more than one processor: ahead gives out the parts that it is given, all and in order, and
// may have read further than it gave out, and called Decode, on goroutines that end before it does.
func (m *Machine) RestoreAhead(r io.Reader, ahead func(parts iter.Seq[*Part]) iter.Seq[*Part]) error {
	st, err := readSnapshot(r, ahead)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st.tally = m.st.tally
	m.st, m.checkpoints = st, nil // another history may have brought it
	return nil
}

// inTurn decodes nothing ahead.
func inTurn(parts iter.Seq[*Part]) iter.Seq[*Part] { return parts }

// readSnapshot reads a stream, and raises what it holds if it says so.
func readSnapshot(r io.Reader, ahead func(iter.Seq[*Part]) iter.Seq[*Part]) (*state, error) {
	st, raise, err := readStream(r, ahead)
	if err == nil && raise != nil {
		st.raise(raise)
	}
	if err == nil {
		st.count()
	}
	return st, err
}

// readStream reads a stream as it was written, and what stands in front of it.
func readStream(r io.Reader, ahead func(iter.Seq[*Part]) iter.Seq[*Part]) (*state, *Raise, error) {
	rr := &recordReader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	if err := rr.header(); err != nil {
		return nil, nil, err
	}
	l := &loader{st: newState()}
	for p := range ahead(rr.parts()) {
		if err := p.load(l); err != nil {
			return nil, nil, err
		}
	}
	l.st.level = rr.level
	if err := l.st.rebuild(); err != nil {
		return nil, nil, errInvalid("%v", err)
	}
	return l.st, rr.raise, nil
}

// partBytes is how much of a stream makes a part: enough that to hand it over costs nothing beside what is in it.
const partBytes = 256 << 10

// Part is some records that follow one another in a stream.
type Part struct {
	first   uint64 // the number of its first record
	records []sealedRecord
	room    *partRoom // nil once they are decoded
	puts    []func(l *loader)
	err     error // what is wrong with what comes after them
}

// sealedRecord is a record in a part's bytes.
type sealedRecord struct {
	kind     recordKind
	from, to int // where its payload is
}

// partRoom is where a part's bytes are.
type partRoom struct{ b []byte }

var partRooms = sync.Pool{New: func() any { return &partRoom{make([]byte, 0, partBytes+recordPart)} }}

// Decode does the greater part of what it takes to load a part. Any goroutine may call it, one at a time.
func (p *Part) Decode() {
	if p.room == nil {
		return
	}
	d := &reader{}
	p.puts = make([]func(*loader), 0, len(p.records))
	for i, r := range p.records {
		d.b = p.room.b[r.from:r.to]
		put := d.decode(r.kind)
		if d.end(); d.err != nil {
			p.err = errInvalid("record %d: %v", p.first+uint64(i), d.err)
			break
		}
		p.puts = append(p.puts, put)
	}
	if cap(p.room.b) <= 2*partBytes { // else a record was very long
		p.room.b = p.room.b[:0]
		partRooms.Put(p.room)
	}
	p.room = nil
}

// load puts what is in a part into a state.
func (p *Part) load(l *loader) error {
	p.Decode()
	for i, put := range p.puts {
		if err := l.load(p.records[i].kind, put); err != nil {
			return errInvalid("record %d: %v", p.first+uint64(i), err)
		}
	}
	return p.err
}

// recordReader reads records and checks each.
type recordReader struct {
	r      *bufio.Reader
	sum    hash.Hash
	before [sha256.Size]byte // the sum of all that is before an end
	count  uint64
	level  int
	raise  *Raise // what stands in front
}

// parts reads to the end, or to where something is wrong.
func (rr *recordReader) parts() iter.Seq[*Part] {
	return func(yield func(*Part) bool) {
		for more := true; more; {
			p := &Part{first: rr.count, room: partRooms.Get().(*partRoom)}
			for more && len(p.room.b) < partBytes {
				more, p.err = rr.read(p)
			}
			more = yield(p) && more // p is another's from here on
		}
	}
}

// read reads one record of a part. It is false after the stream's end, and after an error.
func (rr *recordReader) read(p *Part) (more bool, err error) {
	r, err := rr.next(p.room)
	if err != nil {
		return false, err
	}
	d := &reader{b: p.room.b[r.from:r.to]}
	switch {
	case r.kind == recordEnd:
		if n := d.uvarint(); n != rr.count || !bytes.Equal(d.b, rr.before[:]) {
			return false, errInvalid("its records are not those that were written")
		}
		if _, err := rr.r.ReadByte(); !errors.Is(err, io.EOF) {
			return false, errInvalid("something follows its end")
		}
		return false, nil
	case r.kind == recordRaise && rr.count == 0 && rr.raise == nil:
		rr.raise = d.raise()
		rr.raise.level = rr.level
		if d.end(); d.err != nil {
			return false, errInvalid("what is in front of it: %v", d.err)
		}
		p.room.b = p.room.b[:0]
		rr.sum.Reset()
		err := rr.header()
		return err == nil, err
	}
	p.records = append(p.records, r)
	rr.count++
	return true, nil
}

// header reads the level of what follows.
func (rr *recordReader) header() error {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(rr.r, head); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return errInvalid("it is no snapshot of a fleet")
	}
	rr.sum.Write(head)
	level := int(head[len(snapshotMagic)])
	switch {
	case level < firstLevel:
		return errInvalid("no format has level %d", level)
	case level > MaxLevel:
		return fmt.Errorf("%w: %w", errInvalid("it is of level %d, this build knows %d", level, MaxLevel), ErrFormat)
	}
	rr.level = level
	return nil
}

// recordPart is how much of a record is read at a time.
const recordPart = 64 << 10

// next reads one record to the end of a part's room. Memory grows with what is there, not with what a length promises.
func (rr *recordReader) next(room *partRoom) (sealedRecord, error) {
	kind, err := rr.r.ReadByte()
	if err != nil {
		return sealedRecord{}, errInvalid("it ends after %d records, without an end", rr.count)
	}
	n, err := binary.ReadUvarint(rr.r)
	if err != nil || n > maxRecord {
		return sealedRecord{}, errInvalid("record %d is damaged", rr.count)
	}
	start := len(room.b)
	room.b = binary.AppendUvarint(append(room.b, kind), n)
	from := len(room.b)
	for left := int(n) + crc32.Size; left > 0; {
		part := min(left, recordPart)
		at := len(room.b)
		room.b = slices.Grow(room.b, part)[:at+part]
		if _, err := io.ReadFull(rr.r, room.b[at:]); err != nil {
			return sealedRecord{}, errInvalid("it ends within record %d", rr.count)
		}
		left -= part
	}
	if recordKind(kind) == recordEnd {
		rr.sum.Sum(rr.before[:0])
	}
	whole, to := room.b[start:], len(room.b)-crc32.Size
	rr.sum.Write(whole)
	if crc32.Checksum(room.b[start:to], castagnoli) != binary.LittleEndian.Uint32(room.b[to:]) {
		return sealedRecord{}, errInvalid("record %d is damaged", rr.count)
	}
	return sealedRecord{recordKind(kind), from, to}, nil
}
