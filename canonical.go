package fleet

// This file writes free-form JSON in one form: two texts of the same value, number for number, come out the same.

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// canonical is a buffer that canonical JSON is appended to, with the room it takes to sort.
type canonical struct {
	buf     []byte
	members []member
}

// member is where one member of an object stands in the buffer: its name from start to name, all of it up to end.
type member struct{ start, name, end int }

// free appends a free-form value. A text that is not well-formed is appended as it is: it is not for this to judge.
func (c *canonical) free(value JSON) {
	start := len(c.buf)
	c.members = c.members[:0]
	if i, ok := c.value(string(value), 0, 0); !ok || skipSpace(string(value), i) != len(value) {
		c.buf = append(c.buf[:start], value...)
	}
}

// value appends the value that starts at src[i] and returns where it ends.
func (c *canonical) value(src string, i, depth int) (int, bool) {
	i = skipSpace(src, i)
	if i == len(src) || depth > 2*MaxNesting {
		return i, false
	}
	switch src[i] {
	case '{':
		return c.object(src, i+1, depth+1)
	case '[':
		return c.array(src, i+1, depth+1)
	case '"':
		return c.quoted(src, i+1)
	}
	start := i
	for i < len(src) && isLiteral(src[i]) {
		i++
	}
	c.buf = append(c.buf, src[start:i]...)
	return i, i > start
}

func (c *canonical) array(src string, i, depth int) (int, bool) {
	c.buf = append(c.buf, '[')
	if i = skipSpace(src, i); i < len(src) && src[i] == ']' {
		c.buf = append(c.buf, ']')
		return i + 1, true
	}
	for {
		var ok bool
		if i, ok = c.value(src, i, depth); !ok {
			return i, false
		}
		i = skipSpace(src, i)
		if i == len(src) || src[i] != ',' && src[i] != ']' {
			return i, false
		}
		c.buf = append(c.buf, src[i])
		if i++; src[i-1] == ']' {
			return i, true
		}
	}
}

func (c *canonical) object(src string, i, depth int) (int, bool) {
	c.buf = append(c.buf, '{')
	first := len(c.members)
	defer func() { c.members = c.members[:first] }()
	if i = skipSpace(src, i); i < len(src) && src[i] == '}' {
		c.buf = append(c.buf, '}')
		return i + 1, true
	}
	for {
		m := member{start: len(c.buf)}
		var ok bool
		if i = skipSpace(src, i); i == len(src) || src[i] != '"' {
			return i, false
		}
		if i, ok = c.quoted(src, i+1); !ok {
			return i, false
		}
		m.name = len(c.buf)
		if i = skipSpace(src, i); i == len(src) || src[i] != ':' {
			return i, false
		}
		c.buf = append(c.buf, ':')
		if i, ok = c.value(src, i+1, depth); !ok {
			return i, false
		}
		m.end = len(c.buf)
		c.members = append(c.members, m)
		i = skipSpace(src, i)
		if i == len(src) || src[i] != ',' && src[i] != '}' {
			return i, false
		}
		c.buf = append(c.buf, src[i])
		if i++; src[i-1] == '}' {
			c.sort(c.members[first:])
			return i, true
		}
	}
}

// sort puts the members of the object that ends the buffer in the order of their names, as they stand there: behind
// the quote that opens them, with their escapes.
func (c *canonical) sort(members []member) {
	compare := func(a, b member) int {
		return bytes.Compare(c.buf[a.start+1:a.name-1], c.buf[b.start+1:b.name-1])
	}
	if slices.IsSortedFunc(members, compare) {
		return
	}
	start, end := members[0].start, len(c.buf)
	slices.SortStableFunc(members, compare)
	for i, m := range members {
		if i > 0 {
			c.buf = append(c.buf, ',')
		}
		c.buf = append(c.buf, c.buf[m.start:m.end]...)
	}
	n := copy(c.buf[start:], c.buf[end:])
	c.buf = append(c.buf[:start+n], '}')
}

// quoted appends the string whose text starts at src[i], behind the quote, and returns where it ends, behind the other.
func (c *canonical) quoted(src string, i int) (int, bool) {
	for end := i; end < len(src); end++ {
		switch src[end] {
		case '"':
			c.buf = append(append(append(c.buf, '"'), src[i:end]...), '"')
			return end + 1, true
		case '\\':
			return c.escaped(src, i)
		}
	}
	return len(src), false
}

// escaped is quoted for a string with escapes: it writes what they stand for, and escapes anew what must be.
func (c *canonical) escaped(src string, i int) (int, bool) {
	c.buf = append(c.buf, '"')
	for i < len(src) {
		switch b := src[i]; {
		case b == '"':
			c.buf = append(c.buf, '"')
			return i + 1, true
		case b != '\\':
			c.buf = append(c.buf, b)
			i++
		default:
			r, n := unescape(src[i:])
			if n == 0 {
				return i, false
			}
			if r < utf8.RuneSelf {
				c.char(byte(r))
			} else {
				c.buf = utf8.AppendRune(c.buf, r)
			}
			i += n
		}
	}
	return i, false
}

// unescape reads the escape at the start of s and says how long it is, 0 if it is none.
func unescape(s string) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r, ok := hexRune(s)
	if !ok || !utf16.IsSurrogate(r) {
		if !ok {
			return 0, 0
		}
		return r, 6
	}
	low, ok := hexRune(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hexRune reads \uXXXX.
func hexRune(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil
}

// string appends a string that is not escaped yet.
func (c *canonical) string(s string) {
	c.buf = append(c.buf, '"')
	done := 0
	for i := range len(s) {
		if b := s[i]; b < ' ' || b == '"' || b == '\\' {
			c.buf = append(c.buf, s[done:i]...)
			c.char(b)
			done = i + 1
		}
	}
	c.buf = append(append(c.buf, s[done:]...), '"')
}

// char appends an ASCII character of a string, escaped if it must be.
func (c *canonical) char(b byte) {
	const digits = "0123456789abcdef"
	switch {
	case b == '"' || b == '\\':
		c.buf = append(c.buf, '\\', b)
	case b < ' ':
		c.buf = append(c.buf, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
	default:
		c.buf = append(c.buf, b)
	}
}

// isLiteral reports whether a character can be part of a number, true, false or null.
func isLiteral(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b == '-' || b == '+' || b == '.' || b == 'E'
}

func skipSpace(src string, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\t' || src[i] == '\n' || src[i] == '\r') {
		i++
	}
	return i
}

// Equal reports whether two texts are the same value, number for number: the order of members and white space apart.
func (j JSON) Equal(other JSON) bool {
	if j == other {
		return true
	}
	var a, b canonical
	a.free(j)
	b.free(other)
	return bytes.Equal(a.buf, b.buf)
}
