package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// filled is a machine with jobs of 1 KiB.
func filled(jobs int) *fsm.Machine {
	m := fsm.New()
	for i := range jobs {
		s := fleet.Submission{BodyMd: fmt.Sprintf("%08d %s", i, strings.Repeat("a body of some length ", 46))}
		s.Normalize()
		m.Apply(uint64(i+1), &fsm.Entry{Stamp: 1_000_000, Proposals: []fsm.Proposal{{
			Caller: fsm.Caller{Actor: fsm.ActorRoot}, Request: "r", Command: &fsm.Submit{ProductID: "p", JobID: fmt.Sprintf("j%08d", i), Submission: s},
		}}})
	}
	return m
}

// A snapshot read by several goroutines is the one that one goroutine reads, or is refused for the same reason; and they end.
func TestDecodeAhead(t *testing.T) {
	var whole bytes.Buffer
	if _, err := filled(5000).Handle().WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	for _, what := range []struct {
		name  string
		spoil func(b []byte) []byte
	}{
		{"whole", func(b []byte) []byte { return b }},
		{"empty", func(b []byte) []byte { return nil }},
		{"cut in its middle", func(b []byte) []byte { return b[:len(b)/2] }},
		{"without an end", func(b []byte) []byte { return b[:len(b)-60] }},
		{"a bit turned near its beginning", func(b []byte) []byte { b[1000] ^= 1; return b }},
		{"a bit turned in its middle", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"two bits turned", func(b []byte) []byte { b[len(b)/2], b[len(b)-1000] = b[len(b)/2]^1, b[len(b)-1000]^1; return b }},
		{"a record of no kind at its beginning", func(b []byte) []byte { // who reads on is stopped
			head := len("fleetsn\n") + 1
			record := []byte{200, 0}
			record = binary.LittleEndian.AppendUint32(record, crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
			return slices.Insert(b, head, record...)
		}},
		{"more after its end", func(b []byte) []byte { return append(b, 0) }},
	} {
		t.Run(what.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which sees that no goroutine is left
				file := what.spoil(bytes.Clone(whole.Bytes()))
				one, more := fsm.New(), fsm.New()
				want, got := one.Restore(bytes.NewReader(file)), more.RestoreAhead(bytes.NewReader(file), decodeAhead)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("got %v, one goroutine says %v", got, want)
				}
				if (want == nil) != (what.name == "whole") || more.Hash() != one.Hash() {
					t.Errorf("got %v, and the same state is %t", want, more.Hash() == one.Hash())
				}
			})
		})
	}
}
