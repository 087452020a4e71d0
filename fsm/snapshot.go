package fsm

// This file turns the state into a stream of records; restore.go reads it.
//
// The stream is a header (magic, level), records (kind, length, payload, CRC-32C of all three) and an end
// record with their count and the SHA-256 of all before it. What is derived from other tables is not in it: rebuild.go.

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

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
