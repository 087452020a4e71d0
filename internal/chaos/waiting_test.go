package chaos

// This file is a cluster at which very many wait: claims for a job, and readers for an event. What they take is in the report.

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// waiting is a cluster with its waiting clients.
type waiting struct {
	*Cluster
	t       *testing.T
	granted chan struct{} // one for each claim that got a job
	read    atomic.Int64  // events, by all readers
}

// FLEET_WAITERS claims wait at three nodes, then as many live readers too. Of jobs that are submitted each wakes one claim a node at most, goes to one, and every
// reader hears of it.
func TestWaiting(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("FLEET_WAITERS"))
	if err != nil {
		t.Skip("make waiting runs this; FLEET_WAITERS is how many claims and readers")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Max < uint64(2*n+200) {
		t.Fatalf("so many clients need %d open files, and %d are allowed (ulimit -Hn): %v", 2*n+200, files.Max, err)
	}
	w := &waiting{Cluster: New(t, Config{Nodes: 3, Timing: "lan", SegmentBytes: 64 << 20, SnapshotBytes: 64 << 20, Direct: true}), t: t, granted: make(chan struct{}, n)}
	w.Start(t)
	api := w.dial(0)
	seats, hour := int64(fleet.MaxSeats), int64(fleet.MaxHeartbeatSeconds)
	for i := range 8 {
		if _, err := api.Heartbeat(t.Context(), fleet.HeartbeatRequest{FactoryID: fmt.Sprintf("f%d", i), SeatLimit: &seats, HeartbeatSeconds: &hour}); err != nil {
			t.Fatal(err)
		}
	}
	w.idle("with nobody")
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for i := range n {
		all.Go(func() { w.claim(ctx, i) })
	}
	w.await("all claims wait", func() bool { return w.count("fleet_longpoll_waiting") >= float64(n) })
	w.idle(fmt.Sprintf("with %d claims", n))
	w.submit(api, jobs)
	for i := range n {
		all.Go(func() { w.follow(ctx, i) })
	}
	w.await("all readers are there", func() bool { return w.count("fleet_sse_clients") >= float64(n) })
	w.idle(fmt.Sprintf("with %d claims and %d readers", n-jobs, n))
	w.submit(api, jobs)
	w.await("every reader has every event", func() bool { return w.read.Load() == int64(n)*2*jobs })
	write(t, fmt.Sprintf("every reader has read %d events", 2*jobs))
}

// jobs is how many are submitted at a time.
const jobs = 100

// submit submits jobs, one after the other: each when the one before was granted. Every node wakes one claim for a job, and one of them gets it.
func (w *waiting) submit(api *client.Client, jobs int64) {
	before := w.Nodes[0].Applied()
	var took times
	for range jobs {
		began := time.Now()
		if _, err := api.Submit(w.t.Context(), fleet.Submission{BodyMd: "do"}); err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-w.granted:
		case <-time.After(2 * time.Minute):
			w.t.Fatal("no claim was granted a job that was submitted")
		}
		took = append(took, time.Since(began))
	}
	entries := w.Nodes[0].Applied() - before
	write(w.t, fmt.Sprintf("%d jobs, one after the other: from submit to the granted claim %s; %d entries in the log", jobs, took, entries))
	if most := uint64(jobs) * uint64(1+len(w.Nodes)); entries > most+10 { // and a few of the cluster's own
		w.t.Errorf("%d entries for %d jobs, want at most %d: more than one claim of a node was woken for a job", entries, jobs, most)
	}
	if more := len(w.granted); more > 0 {
		w.t.Errorf("%d claims more than jobs were granted", more)
	}
}

func (w *waiting) dial(i int) *client.Client {
	c, err := client.New(client.Config{Addresses: []string{w.Nodes[i%3].HTTPAddr}, Token: RootToken, Product: Product})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// await waits until something has come true.
func (w *waiting) await(what string, is func() bool) {
	w.t.Helper()
	if why := within(2*time.Minute, func() string {
		if is() {
			return ""
		}
		return what
	}); why != "" {
		w.t.Fatalf("waited in vain until %s", why)
	}
}

// count is a gauge, over all nodes.
func (w *waiting) count(name string) (sum float64) {
	for _, n := range w.Nodes {
		v, err := n.Gauge(name)
		if err != nil {
			w.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// idle reports what the nodes take while nothing happens.
func (w *waiting) idle(who string) {
	const lasts = 10 * time.Second
	time.Sleep(2 * time.Second) // what has come is settled
	before, entries := w.count("process_cpu_seconds_total"), w.Nodes[0].Applied()
	time.Sleep(lasts)
	spent := w.count("process_cpu_seconds_total") - before
	var memory int64
	for _, n := range w.Nodes {
		f, err := n.footprint()
		if err != nil {
			w.t.Fatal(err)
		}
		memory += f.memory
	}
	write(w.t, fmt.Sprintf("%s: three nodes take %d MiB, and %.1f %% of a processor while nothing happens for %s; %d entries in the log",
		who, memory>>20, 100*spent/lasts.Seconds(), lasts, w.Nodes[0].Applied()-entries))
}

// claim waits for one job, again and again until it is told to stop or has one.
func (w *waiting) claim(ctx context.Context, i int) {
	body := fmt.Sprintf(`{"factoryId":"f%d","leaseSeconds":3600,"waitSeconds":60}`, i%8)
	for ctx.Err() == nil {
		answer, err := w.call(ctx, i, http.MethodPost, "/fleet/claim", body)
		if err != nil {
			return
		}
		_ = answer.Body.Close()
		switch answer.StatusCode {
		case http.StatusOK:
			w.granted <- struct{}{}
			return
		case http.StatusNoContent:
		default:
			w.t.Errorf("claiming: %s", answer.Status)
			return
		}
	}
}

// follow reads the live feed until it is told to stop.
func (w *waiting) follow(ctx context.Context, i int) {
	answer, err := w.call(ctx, i, http.MethodGet, "/fleet/events", "")
	if err != nil {
		return
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			w.read.Add(1)
		}
	}
}

// call is one request over a connection of its own.
func (w *waiting) call(ctx context.Context, i int, method, path, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+w.Nodes[i%3].HTTPAddr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+RootToken)
	request.Header.Set("X-Product-Id", Product)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodGet {
		request.Header.Set("Accept", "text/event-stream")
	}
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
}
