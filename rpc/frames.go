package rpc

// This file encodes an event once for all who read it live.

import (
	"fmt"
	"hash/maphash"
	"sync/atomic"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
)

const (
	keptFrames = 256      // so that readers at different places of a burst share what they read
	maxFrame   = 16 << 10 // bytes of a frame that is kept: all take 4 MiB at most
)

// frames are the latest events as they go to live readers. What a reader may see is judged where it gets its events from: a frame is
// found by the event itself, which never changes, so there is no other that it could be taken for.
type frames struct {
	seed maphash.Seed
	kept [keptFrames]atomic.Pointer[frame]
}

type frame struct {
	event *fleet.Event
	text  []byte
}

func newFrames() *frames { return &frames{seed: maphash.MakeSeed()} }

// of is an event's frame, not to be written to. The JSON is one line, so it is one data line.
func (f *frames) of(e *fleet.Event) ([]byte, error) {
	place := &f.kept[(maphash.String(f.seed, e.ProductID)+e.Index)%keptFrames]
	if kept := place.Load(); kept != nil && kept.event == e {
		return kept.text, nil
	}
	data, err := json.Marshal(e, answerOptions)
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.Index, e.Type, data)
	if len(text) <= maxFrame {
		place.Store(&frame{e, text})
	}
	return text, nil
}
