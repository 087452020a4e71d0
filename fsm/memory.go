package fsm

// This file is where remembered answers are kept: each as the bytes of its snapshot record, in order of their numbers, which is
// that of time. So an answer is one piece of memory without pointers, hashed and written as it is, and taken apart only when it is
// looked at.
//
// They are found by a directory, which is derived from them and written in place. It belongs to whoever writes: a state that was
// frozen for a snapshot has none, and makes one anew if it is asked after all.

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"unsafe"

	"github.com/lysnrai/fleet"
)

// memory is what a product remembers.
type memory struct {
	next    uint64               // number of the next answer
	answers summed[uint64, memo] // by number
	bodies  summed[string, body] // free-form texts by their SHA-256
	dir     *directory           // nil: somebody else writes
	swept   struct {
		index uint64
		count int
	} // of the entry with this index; means nothing to another
}

// memo is a remembered answer as it is in a snapshot.
type memo string

// body is a text that remembered answers contain, kept once.
type body string

// remembered is one answer taken apart. Its strings are parts of what is kept.
type remembered struct {
	n       uint64
	at      fleet.Time
	named   string // caller and key, as Proposal.appendKey has them
	caller  string
	key     string
	request string
	answer  string // the encoded result with texts replaced by references to bodies
	size    share
	bodies  cutter // the hashes of those that the answer refers to, as often as it does
}

// share is what somebody takes of the memory's room: its bytes are those of answers, callers, keys and requests, without bodies.
type share struct{ documents, bytes int64 }

func (s *share) add(o share, sign int64) {
	s.documents += sign * o.documents
	s.bytes += sign * o.bytes
}

// over reports whether a share passes a part of the bounds.
func (s share) over(part int64) bool {
	return s.documents > maxMemoryDocuments/part || s.bytes > maxMemoryBytes/part
}

// directory finds answers.
type directory struct {
	byKey map[string]uint64 // caller and key → number of the answer
	lines map[string]*line  // by caller
	texts map[string]*text  // by SHA-256
	at    map[*byte]*text   // by where the text is
	total share
}

// line is what there is of one caller.
type line struct {
	numbers []uint64 // of its answers, oldest first; behind the first there may be some that are gone
	share   share
}

// text is who needs a body.
type text struct {
	name  string // the reference to it
	body  string
	users int
}

func newMemory() *memory { return &memory{next: 1, dir: newDirectory()} }

func newDirectory() *directory {
	return &directory{byKey: map[string]uint64{}, lines: map[string]*line{}, texts: map[string]*text{}, at: map[*byte]*text{}}
}

// fork is a memory for one who writes. This one is only read from now on.
func (m *memory) fork() *memory {
	f := *m
	f.answers, f.bodies = *m.answers.Copy(), *m.bodies.Copy()
	f.dir, m.dir = m.directory(), nil
	return &f
}

// directory is the memory's, or one that is made for the occasion. Its tables fit together: that was looked at when they were read.
func (m *memory) directory() *directory {
	if m.dir != nil {
		return m.dir
	}
	dir, _ := m.direct()
	return dir
}

// direct makes a directory. It refuses tables that do not fit together, so that no later entry trips over them.
func (m *memory) direct() (*directory, error) {
	dir := newDirectory()
	m.bodies.Scan(func(hash string, b body) bool { dir.know(hash, b); return true })
	var err error
	m.answers.Scan(func(n uint64, k memo) bool {
		r := k.open()
		if _, twice := dir.byKey[r.named]; twice || n >= m.next {
			err = fmt.Errorf("answer %d, to key %q of %s, is not the only one of its key, or has a number yet to come", n, r.key, r.caller)
		}
		for hash := range r.texts() {
			if dir.texts[hash] == nil {
				err = fmt.Errorf("the answer to key %q of %s lacks a text", r.key, r.caller)
			}
		}
		if err == nil {
			dir.enter(&r)
		}
		return err == nil
	})
	return dir, err
}

// know puts a text in that nobody needs yet.
func (dir *directory) know(hash string, b body) *text {
	t := &text{name: reference + hash, body: string(b)}
	dir.texts[hash] = t
	dir.at[unsafe.StringData(t.body)] = t
	return t
}

func (dir *directory) enter(r *remembered) {
	dir.byKey[r.named] = r.n
	l := dir.lines[r.caller]
	if l == nil {
		l = &line{}
		dir.lines[r.caller] = l
	}
	l.numbers = append(l.numbers, r.n)
	l.share.add(r.size, 1)
	dir.total.add(r.size, 1)
	for hash := range r.texts() {
		dir.texts[hash].users++
	}
}

// find is the answer with a name, however old it is.
func (m *memory) find(named []byte) (remembered, bool) {
	n, ok := m.directory().byKey[string(named)]
	if !ok {
		return remembered{}, false
	}
	k, _ := m.answers.Get(n)
	return k.open(), true
}

// oldest is the oldest answer of a caller.
func (m *memory) oldest(caller string) (remembered, bool) {
	l := m.directory().lines[caller]
	if l == nil {
		return remembered{}, false
	}
	k, _ := m.answers.Get(l.numbers[0])
	return k.open(), true
}

// full reports whether the product, or the caller's quarter of it, is over its bounds.
func (m *memory) full(caller string) bool {
	dir := m.directory()
	l := dir.lines[caller]
	return dir.total.over(1) || l != nil && l.share.over(4)
}

// keep puts an answer in. Its bodies are there.
func (m *memory) keep(k memo) {
	r := k.open()
	m.answers.Set(r.n, k)
	m.dir.enter(&r)
}

func (m *memory) drop(r *remembered) {
	m.answers.Delete(r.n)
	delete(m.dir.byKey, r.named)
	m.dir.total.add(r.size, -1)
	m.leave(r)
	for hash := range r.texts() {
		t := m.dir.texts[hash]
		if t.users--; t.users == 0 {
			m.bodies.Delete(hash)
			delete(m.dir.texts, hash)
			delete(m.dir.at, unsafe.StringData(t.body))
		}
	}
}

// leave takes an answer that is gone out of its caller's line.
func (m *memory) leave(r *remembered) {
	l := m.dir.lines[r.caller]
	l.share.add(r.size, -1)
	for len(l.numbers) > 0 {
		if _, there := m.answers.Get(l.numbers[0]); there {
			return
		}
		l.numbers = l.numbers[1:]
	}
	delete(m.dir.lines, r.caller)
}

// body is the reference to a text, which is kept from now on. A job's text stays where it is through all that the job goes through:
// most are known without a look at them.
func (m *memory) body(s string) string {
	if t, ok := m.dir.at[unsafe.StringData(s)]; ok && t.body == s {
		return t.name
	}
	sum := bodyHash(s)
	if t, ok := m.dir.texts[string(sum[:])]; ok {
		return t.name
	}
	hash := string(sum[:])
	m.bodies.Set(hash, body(s))
	return m.dir.know(hash, body(s)).name
}

func bodyHash(text string) [sha256.Size]byte {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	b := append(d.b[:0], text...)
	d.b = b[:0]
	return sha256.Sum256(b)
}

// appendRemembered appends what is kept of an answer.
func appendRemembered(b []byte, r *remembered, answer []byte, documents int64, bodies []string) []byte {
	b = appendTime(binary.AppendUvarint(b, r.n), r.at)
	b = appendText(appendText(appendText(binary.AppendUvarint(b, 4), r.caller), r.key), r.request)
	b = append(binary.AppendUvarint(b, uint64(len(answer))), answer...)
	return appendTexts(binary.AppendVarint(b, documents), bodies)
}

// open takes apart what appendRemembered made.
func (k memo) open() remembered {
	r, _ := k.parse()
	return r
}

// parse is open for what may be damaged: ok is false then.
func (k memo) parse() (r remembered, ok bool) {
	c := cutter{s: string(k)}
	r.n, r.at = c.uvarint(), fleet.Time(c.varint())
	texts := c.uvarint()
	named := c.s
	r.caller, r.key = c.text(), c.text()
	r.named = named[:len(named)-len(c.s)]
	r.request, r.answer = c.text(), c.text()
	r.size = share{c.varint(), int64(len(r.answer) + len(r.caller) + len(r.key) + len(r.request))}
	bodies := c.uvarint()
	r.bodies = c
	for i := uint64(0); i < bodies && !c.bad; i++ {
		c.text()
	}
	return r, !c.bad && texts == 4 && c.s == ""
}

// texts are the hashes of the bodies.
func (r *remembered) texts() iter.Seq[string] {
	return func(yield func(hash string) bool) {
		for c := r.bodies; c.s != "" && yield(c.text()); {
		}
	}
}

// cutter cuts a string into its parts, without a copy.
type cutter struct {
	s   string
	bad bool // it ended too early
}

func (c *cutter) skip(n int) {
	if n <= 0 || n > len(c.s) {
		c.s, c.bad = "", true
		return
	}
	c.s = c.s[n:]
}

func (c *cutter) uvarint() uint64 {
	v, n := binary.Uvarint([]byte(c.s[:min(len(c.s), binary.MaxVarintLen64)]))
	c.skip(n)
	return v
}

func (c *cutter) varint() int64 {
	v, n := binary.Varint([]byte(c.s[:min(len(c.s), binary.MaxVarintLen64)]))
	c.skip(n)
	return v
}

func (c *cutter) text() string {
	n := c.uvarint()
	if n > uint64(len(c.s)) {
		c.s, c.bad = "", true
		return ""
	}
	s := c.s[:n]
	c.s = c.s[n:]
	return s
}
