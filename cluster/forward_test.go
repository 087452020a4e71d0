package cluster

// This file tests the frames between a follower and its leader.

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	w := bufio.NewWriter(&wire)
	sent := []frame{{framePropose, 1, []byte("abc")}, {frameReadIndex, 1 << 60, nil}, {frameRemove, 3, bytes.Repeat([]byte("x"), 100_000)}}
	for _, f := range sent {
		if err := writeFrame(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(&wire)
	for i, want := range sent {
		got, err := readFrame(r)
		if err != nil || got.kind != want.kind || got.number != want.number || !bytes.Equal(got.payload, want.payload) {
			t.Errorf("frame %d: got kind %d number %d with %d bytes, %v; want kind %d number %d with %d bytes",
				i, got.kind, got.number, len(got.payload), err, want.kind, want.number, len(want.payload))
		}
	}
}

func TestFrameOverTheLimitIsRefused(t *testing.T) {
	_, err := readFrame(bufio.NewReader(strings.NewReader("\xff\xff\xff\xff" + strings.Repeat("\x00", 100))))
	if err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("reading a frame of 4 GiB: got %v, want a refusal", err)
	}
}

func FuzzProposalsFromTheWire(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodeProposals(b); err == nil && len(p.proposals) == 0 {
			t.Error("an empty frame was accepted")
		}
	})
}

// What a follower is told when its frame was turned away, and when nobody knows.
func TestAnswersTellWhetherItWasProposed(t *testing.T) {
	for _, want := range []error{errNotProposed, errUnknown} {
		p := newPending()
		p.finish(nil, want)
		if _, err := decodeAnswers(encodeAnswers(p), 1); !errors.Is(err, want) {
			t.Errorf("answers of a frame that ended with %v: got %v", want, err)
		}
	}
	if _, err := decodeAnswers([]byte{replyOK, 0xff}, 1); !errors.Is(err, errUnknown) {
		t.Errorf("answers that can't be read: got %v, want %v", err, errUnknown)
	}
}
