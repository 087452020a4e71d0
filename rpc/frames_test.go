package rpc

// This file tests that live readers share encoded events, and nothing else.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/lysnrai/fleet"
)

// An event is encoded once, also if another one is at the same place; a large one is not kept.
func TestFramesAreShared(t *testing.T) {
	f := newFrames()
	frame := func(e *fleet.Event) []byte {
		text, err := f.of(e)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("id: %d\nevent: comment\ndata: {", e.Index); !strings.HasPrefix(string(text), want) || !strings.Contains(string(text), string(e.Data)) {
			t.Errorf("got %.100q, want %q and its data", text, want)
		}
		return text
	}
	first := &fleet.Event{Index: 1, ProductID: "p", Type: "comment", Data: `{"of":"one"}`}
	once := frame(first)
	if again := frame(first); &once[0] != &again[0] {
		t.Error("an event was encoded twice")
	}
	same := &fleet.Event{Index: 1, ProductID: "p", Type: "comment", Data: `{"of":"another"}`} // as after a restore
	frame(same)
	frame(first)
	frame(&fleet.Event{Index: 1 + keptFrames, ProductID: "p", Type: "comment", Data: `{"of":"a third"}`})
	frame(first)

	large := &fleet.Event{Index: 2, ProductID: "p", Type: "comment", Data: fleet.JSON(`"` + strings.Repeat("x", maxFrame) + `"`)}
	frame(large)
	for i := range f.kept {
		if kept := f.kept[i].Load(); kept != nil && kept.event == large {
			t.Errorf("a frame of %d bytes is kept, want none over %d", len(kept.text), maxFrame)
		}
	}
}

// Two products have events with the same indexes. A reader sees its own product's.
func TestFramesOfTwoProducts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t)
		products := []string{"p1", "p2"}
		var readers []*reader
		for _, p := range products {
			readers = append(readers, c.stream("", "X-Product-Id", p), c.stream("?after=0", "X-Product-Id", p))
		}
		for i := range 3 {
			for _, p := range products {
				c.call("POST", "/fleet/jobs", fmt.Sprintf(`{"bodyMd":"x","idempotencyKey":"%d"}`, i), "X-Product-Id", p)
			}
		}
		for i, r := range readers {
			text := r.got()
			if got := strings.Count(text, fmt.Sprintf(`"productId":%q`, products[i/2])); r.status != http.StatusOK || got != 3 || strings.Count(text, "\nid: ") != 3 {
				t.Errorf("a reader of %s got %q, want its three events and no others", products[i/2], text)
			}
			r.leave()
			<-r.ended
		}
	})
}
