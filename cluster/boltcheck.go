package cluster

// This file looks at a bolt file before bbolt does. bbolt trusts its pages: over damaged ones it panics, in goroutines of its own too, or reads
// beyond the file, which is a fault no Go code survives; it drops the last commit when its meta page is damaged, and calls a key not found in a
// page that lost its count.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
)

// The layout of a bolt file, in this machine's byte order.
const (
	boltMagic       = 0xED0CDAED
	boltVersion     = 2
	boltPageHead    = 16 // id 8, flags 2, count 2, overflow 4
	boltMetaSum     = 56 // magic 4, version 4, page size 4, flags 4, root 8, sequence 8, freelist 8, pages 8, transaction 8; then the checksum
	boltBranchPage  = 0x01
	boltLeafPage    = 0x02
	boltMetaPage    = 0x04
	boltFreePage    = 0x10
	boltBucketFlag  = 0x01
	boltBucketHead  = 16 // root 8, sequence 8
	boltNoFreelist  = ^uint64(0)
	boltFreeCounted = 0xFFFF
	boltLeastPage   = 512
	boltMostPage    = 64 << 10
	boltDeepest     = 64
)

// boltFile is a bolt file that is being looked at.
type boltFile struct {
	file     *os.File
	pageSize uint64
	meta     boltMeta
	used     []bool // by page
}

// boltMeta is what a meta page says.
type boltMeta struct{ root, freelist, pages, transaction uint64 }

// checkBolt tells whether bbolt can be let near a file: it is as long as it says, both its meta pages are intact and one transaction apart,
// and every page is in its place, holds what it should and is used once. It must have the buckets named, and no others. What the values say
// is for those to judge who wrote them.
func checkBolt(path string, buckets ...string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil { // an earlier process may have been killed before it did
		return err
	}
	b := &boltFile{file: file}
	if err := contain(func() error { return b.check(buckets) }); err != nil {
		return fmt.Errorf("%s is damaged: %w: %s", path, err, remedy)
	}
	return nil
}

func (b *boltFile) check(buckets []string) error {
	info, err := b.file.Stat()
	if err != nil {
		return err
	}
	if err := b.readMeta(uint64(info.Size())); err != nil {
		return err
	}
	b.used = make([]bool, b.meta.pages)
	b.used[0], b.used[1] = true, true
	names, err := b.tree(b.meta.root, 0)
	if err != nil {
		return err
	}
	slices.Sort(buckets)
	if !slices.Equal(names, buckets) {
		return fmt.Errorf("it has the buckets %q instead of %q", names, buckets)
	}
	if b.meta.freelist == boltNoFreelist {
		return nil
	}
	return b.free()
}

// readMeta reads both meta pages. A crash leaves each of them old or new, as they are within one sector; one that is damaged would silently
// cost the last commit.
func (b *boltFile) readMeta(size uint64) error {
	head := make([]byte, boltPageHead+boltMetaSum+8)
	var metas [2]boltMeta
	for i := range metas {
		if _, err := b.file.ReadAt(head, int64(uint64(i)*b.pageSize)); err != nil {
			return fmt.Errorf("meta page %d: %w", i, err)
		}
		id, flags := binary.NativeEndian.Uint64(head), binary.NativeEndian.Uint16(head[8:])
		m := head[boltPageHead:]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:boltMetaSum])
		if id != uint64(i) || flags != boltMetaPage || binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			binary.NativeEndian.Uint64(m[boltMetaSum:]) != sum.Sum64() {
			return fmt.Errorf("meta page %d: %w", i, errChecksum)
		}
		pageSize := uint64(binary.NativeEndian.Uint32(m[8:]))
		if pageSize < boltLeastPage || pageSize > boltMostPage || i > 0 && pageSize != b.pageSize {
			return fmt.Errorf("meta page %d says that pages have %d bytes", i, pageSize)
		}
		b.pageSize = pageSize
		metas[i] = boltMeta{
			root: binary.NativeEndian.Uint64(m[16:]), freelist: binary.NativeEndian.Uint64(m[32:]),
			pages: binary.NativeEndian.Uint64(m[40:]), transaction: binary.NativeEndian.Uint64(m[48:]),
		}
	}
	b.meta = metas[0]
	older := metas[1]
	if older.transaction > b.meta.transaction {
		b.meta, older = older, b.meta
	}
	if b.meta.transaction != older.transaction+1 {
		return fmt.Errorf("its meta pages are of transactions %d and %d", older.transaction, b.meta.transaction)
	}
	if b.meta.pages < 4 || b.meta.pages > size/b.pageSize {
		return fmt.Errorf("it has %d bytes, and should have %d pages of %d", size, b.meta.pages, b.pageSize)
	}
	return nil
}

// page reads a page with what overflows from it, and marks it as used.
func (b *boltFile) page(id uint64) (flags uint16, count int, page []byte, err error) {
	if id < 2 || id >= b.meta.pages {
		return 0, 0, nil, fmt.Errorf("page %d of %d", id, b.meta.pages)
	}
	page = make([]byte, b.pageSize)
	if _, err := b.file.ReadAt(page, int64(id*b.pageSize)); err != nil {
		return 0, 0, nil, fmt.Errorf("page %d: %w", id, err)
	}
	overflow := uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id || overflow >= b.meta.pages-id {
		return 0, 0, nil, fmt.Errorf("page %d calls itself page %d with %d more", id, binary.NativeEndian.Uint64(page), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if b.used[i] {
			return 0, 0, nil, fmt.Errorf("page %d is used twice", i)
		}
		b.used[i] = true
	}
	if overflow > 0 {
		more := make([]byte, overflow*b.pageSize)
		if _, err := b.file.ReadAt(more, int64((id+1)*b.pageSize)); err != nil {
			return 0, 0, nil, fmt.Errorf("page %d: %w", id, err)
		}
		page = append(page, more...)
	}
	return binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:])), page, nil
}

// tree walks the bucket of buckets, and returns their names.
func (b *boltFile) tree(root uint64, depth int) (names []string, err error) {
	_, _, err = b.walk(root, depth, func(flags uint32, key, value []byte) error {
		if flags != boltBucketFlag || len(value) < boltBucketHead {
			return fmt.Errorf("%q is no bucket", key)
		}
		names = append(names, string(key))
		own := func(flags uint32, key, _ []byte) error {
			if flags != 0 {
				return fmt.Errorf("%q has flags %x", key, flags)
			}
			return nil
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			_, _, err := b.walk(root, 0, own)
			return err
		}
		inline := value[boltBucketHead:]
		if len(inline) < boltPageHead || binary.NativeEndian.Uint64(inline) != 0 || binary.NativeEndian.Uint16(inline[8:]) != boltLeafPage {
			return fmt.Errorf("bucket %q has no page", key)
		}
		_, _, err := b.leaf(inline, int(binary.NativeEndian.Uint16(inline[10:])), own)
		return err
	})
	return names, err
}

// walk calls visit with each element below a page, in order, and returns the first and the last key.
func (b *boltFile) walk(id uint64, depth int, visit func(flags uint32, key, value []byte) error) (first, last []byte, err error) {
	flags, count, page, err := b.page(id)
	switch {
	case err != nil:
		return nil, nil, err
	case depth > boltDeepest:
		return nil, nil, fmt.Errorf("page %d is too deep", id)
	case flags == boltLeafPage:
		if count == 0 && depth > 0 {
			return nil, nil, fmt.Errorf("page %d is empty", id)
		}
		if first, last, err = b.leaf(page, count, visit); err != nil {
			err = fmt.Errorf("page %d: %w", id, err)
		}
		return first, last, err
	case flags != boltBranchPage || count == 0:
		return nil, nil, fmt.Errorf("page %d has flags %x, and %d elements", id, flags, count)
	}
	at := boltPageHead + count*16
	for i := range count { // position 4, key 4, page 8
		e := page[boltPageHead+i*16:]
		key, err := packed(page, boltPageHead+i*16, binary.NativeEndian.Uint32(e), at, binary.NativeEndian.Uint32(e[4:]))
		if err != nil {
			return nil, nil, fmt.Errorf("page %d: element %d: %w", id, i, err)
		}
		at += len(key)
		from, to, err := b.walk(binary.NativeEndian.Uint64(e[8:]), depth+1, visit)
		if err != nil {
			return nil, nil, err
		}
		if bytes.Compare(from, key) < 0 || last != nil && bytes.Compare(last, key) >= 0 {
			return nil, nil, fmt.Errorf("page %d: element %d is out of order", id, i)
		}
		if i == 0 {
			first = from
		}
		last = to
	}
	return first, last, nil
}

// leaf visits the elements of a leaf page.
func (*boltFile) leaf(page []byte, count int, visit func(flags uint32, key, value []byte) error) (first, last []byte, err error) {
	at := boltPageHead + count*16
	for i := range count { // flags 4, position 4, key 4, value 4
		e := page[boltPageHead+i*16:]
		keys := binary.NativeEndian.Uint32(e[8:])
		both, err := packed(page, boltPageHead+i*16, binary.NativeEndian.Uint32(e[4:]), at, keys+binary.NativeEndian.Uint32(e[12:]))
		if err != nil || keys == 0 || uint64(keys) > uint64(len(both)) {
			return nil, nil, fmt.Errorf("element %d has a key of %d bytes: %w", i, keys, err)
		}
		at += len(both)
		key := both[:keys]
		if last != nil && bytes.Compare(last, key) >= 0 {
			return nil, nil, fmt.Errorf("element %d is out of order", i)
		}
		if i == 0 {
			first = key
		}
		last = key
		if err := visit(binary.NativeEndian.Uint32(e), key, both[keys:]); err != nil {
			return nil, nil, err
		}
	}
	return first, last, nil
}

// packed is what an element points at, which is where the one before ends.
func packed(page []byte, element int, position uint32, want int, size uint32) ([]byte, error) {
	if at := uint64(element) + uint64(position); at != uint64(want) || at+uint64(size) > uint64(len(page)) {
		return nil, fmt.Errorf("it is at %d with %d bytes instead of %d", at, size, want)
	}
	return page[want : want+int(size)], nil
}

// free checks that all pages are either used or free.
func (b *boltFile) free() error {
	flags, count, page, err := b.page(b.meta.freelist)
	if err != nil {
		return err
	}
	ids := page[boltPageHead:]
	if count == boltFreeCounted {
		count, ids = int(binary.NativeEndian.Uint64(ids)), ids[8:]
	}
	if flags != boltFreePage || count < 0 || count > len(ids)/8 {
		return fmt.Errorf("the list of free pages has flags %x, and %d pages", flags, count)
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(ids[i*8:])
		if id >= b.meta.pages || b.used[id] {
			return fmt.Errorf("page %d is free and used, or beyond the end", id)
		}
		b.used[id] = true
	}
	if lost := slices.Index(b.used, false); lost >= 0 {
		return fmt.Errorf("page %d is neither free nor used", lost)
	}
	return nil
}
