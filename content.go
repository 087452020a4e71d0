package fleet

// This file is the identity of what was submitted: two submissions with one ContentHash ask for the same.

import (
	"crypto/sha256"
	"strconv"
	"sync"
)

// ContentHash is the SHA-256 of a submission's content in canonical form: a JSON object of every submitted field but
// idempotencyKey, without those that have their default. Members are sorted by name at every depth, there is no white
// space, a character of a string is escaped only where it must be, and numbers of free-form values keep their text.
//
// It is the same before and after Normalize, and may be called by many at once.
func (s *Submission) ContentHash() [32]byte {
	c := canonicals.Get().(*canonical)
	defer canonicals.Put(c)
	normal := *s
	normal.Normalize()
	c.buf = c.buf[:0]
	c.submission(&normal)
	return sha256.Sum256(c.buf)
}

var canonicals = sync.Pool{New: func() any { return &canonical{buf: make([]byte, 0, 4096)} }}

// submission appends what was submitted; the order of the lines is that of the names.
func (c *canonical) submission(s *Submission) {
	c.open()
	c.text("bodyMd", s.BodyMd)
	c.budget(s.Budget)
	c.texts("capabilities", s.Capabilities)
	if p := s.Checkpoint; p != nil {
		c.member("checkpoint")
		c.open()
		c.text("wipBase", p.WipBase)
		c.text("wipBranch", p.WipBranch)
		c.text("wipCommit", p.WipCommit)
		c.close()
	}
	c.texts("deps", s.Deps)
	if s.DepsMode != Hard {
		c.text("depsMode", string(s.DepsMode))
	}
	c.text("engineClass", s.EngineClass)
	if s.Kind != Leaf {
		c.text("kind", string(s.Kind))
	}
	if len(s.Labels) > 0 {
		c.member("labels")
		c.open()
		for _, label := range s.Labels {
			c.member(label.Key)
			c.string(label.Value)
		}
		c.close()
	}
	if !empty(s.ManifestSnapshot) {
		c.member("manifestSnapshot")
		c.free(s.ManifestSnapshot)
	}
	if s.NotBefore != 0 {
		c.text("notBefore", s.NotBefore.String())
	}
	c.text("parentId", s.ParentID)
	if s.Priority != Medium {
		c.text("priority", string(s.Priority))
	}
	c.text("profile", s.Profile)
	c.retry(s.Retry)
	c.text("trackerItemId", s.TrackerItemID)
	c.close()
}

func (c *canonical) budget(b *Budget) {
	if b == nil {
		return
	}
	c.member("budget")
	c.open()
	if b.Tokens != nil {
		c.integer("tokens", *b.Tokens)
	}
	if b.USD != nil {
		c.member("usd")
		c.buf = append(c.buf, b.USD.String()...)
	}
	if b.Wall != nil {
		c.integer("wall", *b.Wall)
	}
	c.close()
}

func (c *canonical) retry(r *Retry) {
	if r == nil {
		return
	}
	c.member("retry")
	c.open()
	if r.Backoff != 0 {
		c.integer("backoff", r.Backoff)
	}
	if r.Max != 0 {
		c.integer("max", r.Max)
	}
	if r.MaxLeaseLosses != nil && *r.MaxLeaseLosses != DefaultLeaseLosses {
		c.integer("maxLeaseLosses", *r.MaxLeaseLosses)
	}
	c.texts("on", r.On)
	c.close()
}

func (c *canonical) open()  { c.buf = append(c.buf, '{') }
func (c *canonical) close() { c.buf = append(c.buf, '}') }

// member starts a member of the object that was opened last.
func (c *canonical) member(name string) {
	if c.buf[len(c.buf)-1] != '{' {
		c.buf = append(c.buf, ',')
	}
	c.string(name)
	c.buf = append(c.buf, ':')
}

// text appends a member whose default is empty.
func (c *canonical) text(name, value string) {
	if value == "" {
		return
	}
	c.member(name)
	c.string(value)
}

// texts appends a member whose default is no entry.
func (c *canonical) texts(name string, values []string) {
	if len(values) == 0 {
		return
	}
	c.member(name)
	c.buf = append(c.buf, '[')
	for i, value := range values {
		if i > 0 {
			c.buf = append(c.buf, ',')
		}
		c.string(value)
	}
	c.buf = append(c.buf, ']')
}

func (c *canonical) integer(name string, n int64) {
	c.member(name)
	c.buf = strconv.AppendInt(c.buf, n, 10)
}
