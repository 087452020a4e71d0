package fsm

// This file reads bytes that are not to be trusted: it never panics, and never allocates much more than it was given.

import (
	"encoding/binary"
	"fmt"

	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

// reader reads what the append functions wrote. After an error every read gives a zero value.
type reader struct {
	b   []byte
	err error
}

func (d *reader) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

// level reads the level of a format and refuses a newer one.
func (d *reader) level() int {
	level := int(d.byte())
	switch {
	case d.err != nil:
	case level < firstLevel:
		d.fail(fmt.Errorf("%w: no format has level %d", ErrCorrupt, level))
	case level > MaxLevel:
		d.fail(fmt.Errorf("%w: it is of level %d, this build knows %d", ErrFormat, level, MaxLevel))
	}
	return level
}

// end refuses what follows the last field.
func (d *reader) end() {
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("%w: %d bytes too many", ErrCorrupt, len(d.b)))
	}
}

// take is the next n bytes, not copied.
func (d *reader) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.b)) {
		d.fail(fmt.Errorf("%w: it ends too early", ErrCorrupt))
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *reader) byte() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *reader) bool() bool {
	b := d.byte()
	if b > 1 {
		d.fail(fmt.Errorf("%w: %d is no truth value", ErrCorrupt, b))
	}
	return b == 1
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(fmt.Errorf("%w: a number is cut or too long", ErrCorrupt))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(fmt.Errorf("%w: a number is cut or too long", ErrCorrupt))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) text() string { return string(d.take(d.uvarint())) }

func (d *reader) texts() (list []string) {
	n := d.uvarint()
	for i := uint64(0); i < n && d.err == nil; i++ {
		list = append(list, d.text())
	}
	return list
}

// time, like all that is kept of it, in nanoseconds.
func (d *reader) time() fleet.Time { return fleet.Time(d.varint()) }

// document reads what appendDocument wrote.
func (d *reader) document(doc msgp.Unmarshaler) {
	b := d.take(d.uvarint())
	if d.err != nil {
		return
	}
	rest, err := wellFormed(b, fleet.MaxNesting)
	if err == nil {
		rest, err = doc.UnmarshalMsg(b)
	}
	switch {
	case err != nil:
		d.fail(fmt.Errorf("%w: %T: %w", ErrCorrupt, doc, err))
		return
	case len(rest) > 0:
		d.fail(fmt.Errorf("%w: %T with %d bytes too many", ErrCorrupt, doc, len(rest)))
		return
	}
	fillEmpty(doc)
}

// wellFormed reads over one value, so that no header in it promises more than there is: the generated decoders make
// room for what a header says. A list of objects, which are much larger in memory than the least of their bytes, is
// bounded by number.
func wellFormed(b []byte, depth int) ([]byte, error) {
	var n uint32
	var err error
	switch kind := msgp.NextType(b); {
	case depth == 0:
		return b, fmt.Errorf("nested too deep")
	case kind == msgp.ArrayType:
		if n, b, err = msgp.ReadArrayHeaderBytes(b); err != nil {
			return b, err
		}
		if next := msgp.NextType(b); n > fleet.MaxBatch && next == msgp.MapType {
			return b, fmt.Errorf("a list of %d objects", n)
		}
	case kind == msgp.MapType:
		if n, b, err = msgp.ReadMapHeaderBytes(b); err != nil {
			return b, err
		}
		if n > 1<<30 {
			return b, msgp.ErrShortBytes
		}
		n *= 2
	default:
		return msgp.Skip(b)
	}
	if uint64(n) > uint64(len(b)) {
		return b, msgp.ErrShortBytes
	}
	for range n {
		if b, err = wellFormed(b, depth-1); err != nil {
			return b, err
		}
	}
	return b, nil
}
