package fsm

// This file turns the state into a stream of records and back.
//
// The stream is a header (magic, level), records (kind, length, payload, CRC-32C of all three) and an end
// record with their count and the SHA-256 of all before it. What is derived from other tables is not in it: rebuild.go.

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
	"slices"

	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

const snapshotMagic = "fleetsn\n"

// maxRecord bounds a record. The largest are remembered answers of batches.
const maxRecord = 1 << 28

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordKind says what a record holds.
type recordKind byte

// The kinds of records, in the order in which they are written. Their numbers are for ever.
const (
	recordMeta       recordKind = 1
	recordServer     recordKind = 2
	recordToken      recordKind = 3
	recordRevoked    recordKind = 4
	recordDeadline   recordKind = 5
	recordEnded      recordKind = 6
	recordProduct    recordKind = 7 // what follows is in this product
	recordProfile    recordKind = 8
	recordFactory    recordKind = 9
	recordEndings    recordKind = 10
	recordJob        recordKind = 11 // what follows is of this job
	recordRun        recordKind = 12
	recordEvent      recordKind = 13
	recordArtifact   recordKind = 14
	recordBody       recordKind = 15
	recordRemembered recordKind = 16
	recordRaise      recordKind = 17 // in front of a backup that a cluster restores: a header and this, then the backup's own stream
	recordEnd        recordKind = 255
)

// recordWriter writes records. After an error it writes nothing more.
type recordWriter struct {
	w       *bufio.Writer
	sum     hash.Hash
	buf     []byte
	count   uint64
	written int64
	err     error
}

func writeSnapshot(w io.Writer, st *state) (int64, error) {
	rw := &recordWriter{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	rw.write(append([]byte(snapshotMagic), byte(st.level)))
	rw.state(st)
	rw.record(recordEnd, func(b []byte) ([]byte, error) {
		return rw.sum.Sum(binary.AppendUvarint(b, rw.count)), nil
	})
	if rw.err == nil {
		rw.err = rw.w.Flush()
	}
	if rw.err != nil {
		return rw.written, fmt.Errorf("writing a snapshot: %w", rw.err)
	}
	return rw.written, nil
}

func (rw *recordWriter) write(b []byte) {
	if rw.err != nil {
		return
	}
	var n int
	n, rw.err = rw.w.Write(b)
	rw.written += int64(n)
	rw.sum.Write(b)
}

// record writes one record with the payload that fill appends.
func (rw *recordWriter) record(kind recordKind, fill func(b []byte) ([]byte, error)) {
	if rw.err != nil {
		return
	}
	const room = 1 + binary.MaxVarintLen64
	b, err := fill(append(rw.buf[:0], make([]byte, room)...))
	if rw.buf = b; err == nil && len(b)-room > maxRecord {
		err = fmt.Errorf("a record of kind %d has %d bytes, the most is %d", kind, len(b)-room, maxRecord)
	}
	if err != nil {
		rw.err = err
		return
	}
	head := binary.AppendUvarint([]byte{byte(kind)}, uint64(len(b)-room))
	b = b[room-len(head):]
	copy(b, head)
	rw.buf = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	rw.write(rw.buf)
	rw.count++
}

// document writes a record that is one document.
func (rw *recordWriter) document(kind recordKind, doc msgp.Marshaler) {
	rw.record(kind, func(b []byte) ([]byte, error) { return appendDocument(b, doc) })
}

// errInvalid is why a stream is no snapshot.
func errInvalid(format string, args ...any) error {
	return fmt.Errorf("reading a snapshot: %w", fleet.Errorf(fleet.InvalidSnapshot, format, args...))
}

// seal is one record as it is in a stream.
func seal(kind recordKind, payload []byte) []byte {
	b := append(binary.AppendUvarint([]byte{byte(kind)}, uint64(len(payload))), payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readSnapshot reads a stream, and raises what it holds if it says so.
func readSnapshot(r io.Reader) (*state, error) {
	st, raise, err := readStream(r)
	if err == nil && raise != nil {
		st.raise(raise)
	}
	if err == nil {
		st.count()
	}
	return st, err
}

// readStream reads a stream as it was written, and what stands in front of it.
func readStream(r io.Reader) (*state, *Raise, error) {
	rr := &recordReader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	level, err := rr.header()
	if err != nil {
		return nil, nil, err
	}
	var raise *Raise
	l, d := &loader{st: newState()}, &reader{}
	for {
		kind, payload, err := rr.next()
		if err != nil {
			return nil, nil, err
		}
		d.b = payload
		if kind == recordEnd {
			if n := d.uvarint(); n != rr.count || !bytes.Equal(d.b, rr.before[:]) {
				return nil, nil, errInvalid("its records are not those that were written")
			}
			break
		}
		if kind == recordRaise && rr.count == 0 && raise == nil {
			raise = d.raise()
			raise.level = level
			if d.end(); d.err != nil {
				return nil, nil, errInvalid("what is in front of it: %v", d.err)
			}
			rr.sum.Reset()
			if level, err = rr.header(); err != nil {
				return nil, nil, err
			}
			continue
		}
		l.load(kind, d)
		if d.end(); d.err != nil {
			return nil, nil, errInvalid("record %d: %v", rr.count, d.err)
		}
		rr.count++
	}
	if _, err := rr.r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, nil, errInvalid("something follows its end")
	}
	l.st.level = level
	if err := l.st.rebuild(); err != nil {
		return nil, nil, errInvalid("%v", err)
	}
	return l.st, raise, nil
}

// recordReader reads records and checks each.
type recordReader struct {
	r      *bufio.Reader
	sum    hash.Hash
	before [sha256.Size]byte // the sum of all that is before an end
	buf    []byte
	count  uint64
}

// header reads the level of what follows.
func (rr *recordReader) header() (level int, err error) {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(rr.r, head); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return 0, errInvalid("it is no snapshot of a fleet")
	}
	rr.sum.Write(head)
	level = int(head[len(snapshotMagic)])
	switch {
	case level < firstLevel:
		return 0, errInvalid("no format has level %d", level)
	case level > MaxLevel:
		return 0, fmt.Errorf("%w: %w", errInvalid("it is of level %d, this build knows %d", level, MaxLevel), ErrFormat)
	}
	return level, nil
}

// recordPart is how much of a record is read at a time.
const recordPart = 64 << 10

// next reads one record. Its payload is good until the next call. Memory grows with what is there, not with what a length promises.
func (rr *recordReader) next() (recordKind, []byte, error) {
	kind, err := rr.r.ReadByte()
	if err != nil {
		return 0, nil, errInvalid("it ends after %d records, without an end", rr.count)
	}
	n, err := binary.ReadUvarint(rr.r)
	if err != nil || n > maxRecord {
		return 0, nil, errInvalid("record %d is damaged", rr.count)
	}
	rr.buf = binary.AppendUvarint(append(rr.buf[:0], kind), n)
	head := len(rr.buf)
	for left := int(n) + crc32.Size; left > 0; {
		part := min(left, recordPart)
		at := len(rr.buf)
		rr.buf = slices.Grow(rr.buf, part)[:at+part]
		if _, err := io.ReadFull(rr.r, rr.buf[at:]); err != nil {
			return 0, nil, errInvalid("it ends within record %d", rr.count)
		}
		left -= part
	}
	if recordKind(kind) == recordEnd {
		rr.sum.Sum(rr.before[:0])
	}
	rr.sum.Write(rr.buf)
	body, crc := rr.buf[:len(rr.buf)-crc32.Size], rr.buf[len(rr.buf)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(crc) {
		return 0, nil, errInvalid("record %d is damaged", rr.count)
	}
	return recordKind(kind), body[head:], nil
}
