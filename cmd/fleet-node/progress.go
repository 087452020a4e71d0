package main

// This file is the one line on stderr that says how far something is.

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// quietWait is how long progress keeps silent where it can't overwrite its line.
const quietWait = 5 * time.Second

// progress writes a line that overwrites itself on a terminal; elsewhere a line now and then. All methods may be called
// at once.
type progress struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards what follows
	last  time.Time
	shown string
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// say replaces the line.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case text == p.shown:
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	case time.Since(p.last) < quietWait:
		return
	default:
		fmt.Fprintln(p.w, text)
	}
	p.shown, p.last = text, time.Now()
}

// line writes a line that stays, in place of the one that does not.
func (p *progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, text)
	p.shown = ""
}

// passing replaces the line on a terminal, and is silent elsewhere; empty takes it away.
func (p *progress) passing(text string) {
	if p.terminal {
		p.say(text)
	}
}

// tenths is a duration in seconds with one decimal.
func tenths(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
