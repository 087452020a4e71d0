package worker

// This file keeps a command's output: all of it (within bounds) in the log file, its end for the report, its lines for
// whoever watches the factory.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// How much of the output is kept: of a log over logBytes its first half, and at least its last quarter.
const (
	logBytes  = 100 << 20
	tailBytes = 8 << 10
	lineBytes = 64 << 10 // a longer line is shown in pieces
)

// terminal is the output that all jobs share, written in whole lines.
type terminal struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (t *terminal) print(prefix string, line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.out.Write(append(append([]byte(prefix), line...), '\n'))
}

// capture takes a command's output.
type capture struct {
	terminal *terminal
	prefix   string

	mu      sync.Mutex // guards all below
	file    *os.File
	limit   int64    // of the file
	written int64    // to the file
	newer   *os.File // what came after the head of the log, at most a quarter of limit
	older   *os.File // what came before newer; whole
	size    int64    // of newer
	total   int64
	last    []byte // at least the tail
	line    []byte // begun
}

// newCapture opens the log.
func newCapture(path string, t *terminal, jobID string) (*capture, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &capture{terminal: t, prefix: short(jobID) + "│ ", file: file, limit: logBytes}, nil
}

// short is an id as people tell it from others: its beginning and its end.
func short(id string) string {
	if len(id) <= 7 {
		return id
	}
	return id[:4] + "…" + id[len(id)-2:]
}

// Write takes output in. It never fails: a full disk must not stop a command.
func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store(b)
	c.last = append(c.last, b...)
	if len(c.last) > 4*tailBytes { // masking shortens it: keep more than is shown
		c.last = append([]byte(nil), c.last[len(c.last)-2*tailBytes:]...)
	}
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		c.line = append(c.line, line...)
		if whole || len(c.line) > lineBytes {
			c.terminal.print(c.prefix, bytes.TrimSuffix(c.line, []byte("\r")))
			c.line = c.line[:0]
		}
		rest = after
	}
	return len(b), nil
}

// say puts a line of the factory's own into the output.
func (c *capture) say(text string) { _, _ = c.Write([]byte("fleet: " + text + "\n")) }

// store writes to the head of the log, and what it has no room for to two files that take turns.
func (c *capture) store(b []byte) {
	c.total += int64(len(b))
	head := min(int64(len(b)), max(0, c.limit/2-c.written))
	if n, _ := c.file.Write(b[:head]); n > 0 {
		c.written += int64(n)
	}
	if b = b[head:]; len(b) == 0 {
		return
	}
	if c.newer == nil || c.size+int64(len(b)) > c.limit/4 {
		next, err := os.OpenFile(c.file.Name()+".rest", os.O_CREATE|os.O_RDWR|os.O_TRUNC|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		_ = os.Remove(next.Name()) // it lives as long as it is open
		if c.older != nil {
			_ = c.older.Close()
		}
		c.older, c.newer, c.size = c.newer, next, 0
	}
	n, _ := c.newer.Write(b)
	c.size += int64(n)
}

// Close puts the log together.
func (c *capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.line) > 0 {
		c.terminal.print(c.prefix, c.line)
		c.line = nil
	}
	var errs []error
	if c.newer != nil {
		kept := c.size
		if c.older != nil {
			if at, err := c.older.Seek(0, io.SeekCurrent); err == nil {
				kept += at
			}
		}
		if dropped := c.total - c.written - kept; dropped > 0 {
			_, err := fmt.Fprintf(c.file, "\n--- fleet: %d bytes were dropped here ---\n", dropped)
			errs = append(errs, err)
		}
		for _, part := range []*os.File{c.older, c.newer} {
			if part == nil {
				continue
			}
			_, err := part.Seek(0, io.SeekStart)
			if err == nil {
				_, err = io.Copy(c.file, part)
			}
			errs = append(errs, err, part.Close())
		}
	}
	return errors.Join(append(errs, c.file.Close())...)
}

// tail is the end of the output, with its secrets masked.
func (c *capture) tail(secrets masker) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := secrets.mask(string(c.last))
	if c.total > int64(len(c.last)) {
		text = secrets.maskCut(string(c.last))
	}
	return string(bytes.ToValidUTF8([]byte(text[max(0, len(text)-tailBytes):]), nil))
}

// withTail adds the tail to a result; one that is no object becomes the member value of one.
func withTail(result fleet.JSON, tail string) fleet.JSON {
	members := map[string]jsontext.Value{}
	if result != "" && (!result.IsObject() || json.Unmarshal([]byte(result), &members) != nil) {
		members["value"] = jsontext.Value(result)
	}
	if _, taken := members["tail"]; taken {
		return result
	}
	text, err := json.Marshal(tail)
	if err != nil {
		return result
	}
	members["tail"] = text
	b, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return result
	}
	return fleet.JSON(b)
}
