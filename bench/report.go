package main

// This file says what a run came to: a median over the rounds, and in parentheses the lowest and the highest of them.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// subject is the row that the others are compared with.
const subject = "fleet"

// report writes what a README can quote, then every figure behind it. It fails if something was not measured.
func (r *results) report(w io.Writer, p plan) error {
	fmt.Fprintf(w, "%s.\n", r.machine())
	if r.disturbed() {
		fmt.Fprintln(w, "Others worked on the machine meanwhile: don't quote this run.")
	}
	fmt.Fprintf(w, "%d rounds of %s after %s of warm-up, bodies of %d bytes, %d jobs queued.\n\n", p.rounds, p.duration, p.warmUp, bodySize, p.backlog)
	for _, one := range p.peers {
		fmt.Fprintf(w, "- %s: %s\n", one.name(), one.about())
	}
	rows := r.rows()
	if slices.Contains(rows, subject) {
		r.ratios(w, p, rows)
	}
	r.details(w, p, rows)
	return errors.Join(r.failed...)
}

// rows are the names of what was measured: the subject's first.
func (r *results) rows() []string {
	var names []string
	for at := range r.cells {
		if !slices.Contains(names, at.row) {
			names = append(names, at.row)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		own := func(name string) int {
			if strings.HasPrefix(name, subject) {
				return 0
			}
			return 1
		}
		return cmp.Or(own(a)-own(b), strings.Compare(a, b))
	})
	return names
}

// ratios is how many times as fast the subject is. One job a call is compared with one job a call; its batches only with itself.
func (r *results) ratios(w io.Writer, p plan, rows []string) {
	var others []string
	head := "\n| clients | fleet, cycles/s |"
	for _, name := range rows {
		if name == subject {
			continue
		}
		others = append(others, name)
		if strings.HasPrefix(name, subject) {
			head += fmt.Sprintf(" %s ÷ fleet |", name)
		} else {
			head += fmt.Sprintf(" fleet ÷ %s |", name)
		}
	}
	fmt.Fprintln(w, head)
	fmt.Fprintln(w, "|"+strings.Repeat(" --- |", len(others)+2))
	for _, n := range p.clients {
		fmt.Fprintf(w, "| %d | %s |", n, r.rates(subject, n, p.rounds))
		for _, name := range others {
			above, below := subject, name
			if strings.HasPrefix(name, subject) {
				above, below = name, subject
			}
			fmt.Fprintf(w, " %s |", r.ratio(above, below, n, p.rounds))
		}
		fmt.Fprintln(w)
	}
}

func (r *results) details(w io.Writer, p plan, rows []string) {
	fmt.Fprintln(w, "\n| clients | what | jobs/s | p50 of a cycle, ms | p99, ms |\n| --- | --- | --- | --- | --- |")
	for _, n := range p.clients {
		for _, name := range rows {
			fmt.Fprintf(w, "| %d | %s | %s | %s | %s |\n", n, name, r.rates(name, n, p.rounds),
				r.latency(name, n, p.rounds, func(f figures) time.Duration { return f.p50 }),
				r.latency(name, n, p.rounds, func(f figures) time.Duration { return f.p99 }))
		}
	}
}

// ratio divides within each round: what slowed the machine then slowed both.
func (r *results) ratio(above, below string, clients, rounds int) string {
	var all []float64
	for round := range rounds {
		a, okA := r.cells[place{above, clients, round}]
		b, okB := r.cells[place{below, clients, round}]
		if okA && okB {
			all = append(all, a.perSecond/b.perSecond)
		}
	}
	return format(all, func(v float64) string { return fmt.Sprintf("%.2f", v) })
}

func (r *results) rates(name string, clients, rounds int) string {
	return format(collect(r, name, clients, rounds, func(f figures) float64 { return f.perSecond }),
		func(v float64) string { return fmt.Sprintf("%.0f", v) })
}

func (r *results) latency(name string, clients, rounds int, which func(figures) time.Duration) string {
	return format(collect(r, name, clients, rounds, which), millis)
}

// collect is one figure of all rounds.
func collect[T any](r *results, name string, clients, rounds int, which func(figures) T) []T {
	var all []T
	for round := range rounds {
		if f, ok := r.cells[place{name, clients, round}]; ok {
			all = append(all, which(f))
		}
	}
	return all
}

// format writes a median and its spread, or a dash for nothing.
func format[T float64 | time.Duration](all []T, text func(T) string) string {
	if len(all) == 0 {
		return "–"
	}
	low, mid, high := spread(all)
	if len(all) == 1 {
		return text(mid)
	}
	return fmt.Sprintf("%s (%s–%s)", text(mid), text(low), text(high))
}

// spread is the lowest, the median and the highest of at least one value.
func spread[T float64 | time.Duration](all []T) (low, mid, high T) {
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return all[0], (all[(n-1)/2] + all[n/2]) / 2, all[n-1]
}

// millis is milliseconds, without the unit.
func millis(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
