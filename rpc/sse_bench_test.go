package rpc_test

// This file measures the live feed: one event to a thousand readers.

import (
	"bufio"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/lysnrai/fleet/fsm"
)

// BenchmarkFeed writes one event, and waits until each of 1,000 readers has read it, over a connection of its own.
func BenchmarkFeed(b *testing.B) {
	const readers = 1000
	n := newBench(b)
	url := n.serve() + "/fleet/events"
	web := &http.Client{Transport: &http.Transport{}}
	var begun, reading, ended sync.WaitGroup
	for range readers {
		begun.Add(1)
		ended.Go(func() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
			if err != nil {
				b.Error(err)
				return
			}
			headers(req.Header)
			req.Header.Set("Accept", "text/event-stream")
			answer, err := web.Do(req)
			begun.Done()
			if err != nil {
				b.Error(err)
				return
			}
			defer answer.Body.Close()
			for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "data: ") {
					reading.Done()
				}
			}
		})
	}
	begun.Wait() // the stream's head is written when its place in the feed is known
	b.Cleanup(ended.Wait)
	b.ReportAllocs()
	for b.Loop() {
		reading.Add(readers)
		n.propose(&fsm.Comment{ProductID: "p", JobID: "job0", Data: `{"text":"half way"}`})
		reading.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readers, "ns/reader")
}
