package chaos

// This file follows the feed of one node, and resumes where it was when the node comes back.

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/check"
)

// feed is what one reader was shown by one node.
type feed struct {
	product string

	mu     sync.Mutex // guards events
	events []*fleet.Event
}

func (f *feed) last() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) == 0 {
		return 0
	}
	return f.events[len(f.events)-1].Index
}

// follow reads until the context ends.
func (f *feed) follow(ctx context.Context, n *Node, history *check.History) {
	client := newClient()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		_ = f.read(ctx, client, n, history) // it ends whenever its node does
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *feed) read(ctx context.Context, client *http.Client, n *Node, history *check.History) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTPAddr+"/fleet/events?after=0", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+RootToken)
	request.Header.Set("X-Product-Id", f.product)
	request.Header.Set("Accept", "text/event-stream")
	if last := f.last(); last > 0 {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(last, 10))
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	lines := bufio.NewReaderSize(response.Body, 1<<20)
	var data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			data = rest
		}
		if line != "" || data == "" {
			continue
		}
		e := &fleet.Event{}
		if err := json.Unmarshal([]byte(data), e); err != nil {
			return err
		}
		data = ""
		history.Saw(e)
		f.mu.Lock()
		f.events = append(f.events, e)
		f.mu.Unlock()
	}
}

// whole is I7 for a reader that resumes: it missed nothing and was shown nothing twice.
func (f *feed) whole(all []*fleet.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) > len(all) {
		return fmt.Errorf("I7: a reader was shown %d events, there are %d", len(f.events), len(all))
	}
	for i, e := range f.events {
		if *e != *all[i] {
			return fmt.Errorf("I7: a reader was shown %+v, the feed has %+v there", *e, *all[i])
		}
	}
	return nil
}
