package worker

// This file is what factories are tested against: a real node, one product of it for each test, and a door in between
// that a test may close.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
)

const rootToken = "flt_hidden_from_commands"

// api is a node that all tests share.
var api http.Handler

func TestMain(m *testing.M) { os.Exit(testAll(m)) }

func testAll(m *testing.M) int {
	for name, value := range map[string]string{ // what a factory may find in its own environment
		"MY_TOKEN": "hunter2-hunter2", "FLEET_TOKEN": rootToken, "FLEET_PARENT_ID": "inherited", "TRACEPARENT": "inherited", "PLAIN": "passed on",
	} {
		os.Setenv(name, value)
	}
	dir, err := os.MkdirTemp("", "fleet-worker-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	node, err := cluster.Start(cluster.Config{
		Name: "n1", DataDir: filepath.Join(dir, "n1"), NodeAddr: "n1:8401", GossipAddr: "n1:8402", BootstrapExpect: 1,
		Secret: []byte("a secret of this test"), Timing: cluster.TimingLocal,
		Network: cluster.NewMemoryNetwork().Host("n1"), Storage: cluster.NewMemoryStorage(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer node.Kill()
	api = rpc.New(rpc.Config{Node: node, RootToken: []byte(rootToken)})
	return m.Run()
}

// shop is one test's product.
type shop struct {
	t      *testing.T
	url    string
	api    http.Handler
	client *client.Client
	worker *client.Client // of the factory, in virtual time

	patience time.Duration // with what must end
	door     atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

var products atomic.Int64

func newShop(t *testing.T) *shop {
	t.Helper()
	t.Parallel()
	return openShop(t)
}

// openShop is newShop for a test that runs alone.
func openShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, api: api, patience: 20 * time.Second}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if door := s.door.Load(); door != nil && (*door)(w, r) {
			return
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	var err error
	s.client, err = client.New(client.Config{Addresses: []string{s.url}, Token: rootToken, Product: fmt.Sprintf("p%d", products.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at puts somebody at the door, who reports true for a request that he has answered himself.
func (s *shop) at(door func(http.ResponseWriter, *http.Request) bool) { s.door.Store(&door) }

// cut makes the cluster unreachable.
func (s *shop) cut() { s.at(hangUp) }

func (s *shop) mend() { s.door.Store(nil) }

func hangUp(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// submit submits a job that the factory of config takes.
func (s *shop) submit(change ...func(*fleet.Submission)) *fleet.Job {
	s.t.Helper()
	submission := fleet.Submission{BodyMd: "Fix it.\r\n", Capabilities: []string{"sh"}, Priority: fleet.High}
	for _, c := range change {
		c(&submission)
	}
	result, err := s.client.Submit(s.t.Context(), submission)
	if err != nil {
		s.t.Fatal(err)
	}
	return result.Job
}

// config is a factory that runs a script for one job.
func (s *shop) config(script string) Config {
	return Config{
		Client: s.client, FactoryID: "f1", Capabilities: []string{"sh"}, Once: true, look: 5 * time.Millisecond,
		Command: []string{"sh", "-c", strings.TrimSpace(script)},
	}
}

// running is a factory at work.
type running struct {
	*shop
	done    chan error
	signals chan os.Signal
}

func (s *shop) start(c Config) *running {
	s.t.Helper()
	r := &running{s, make(chan error, 1), make(chan os.Signal)}
	c.Signals = r.signals
	ctx, cancel := context.WithCancel(s.t.Context())
	go func() { r.done <- Run(ctx, c) }()
	s.t.Cleanup(cancel)
	return r
}

// end waits for the end of a factory.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(r.patience):
		r.t.Fatal("the factory does not end")
		return nil
	}
}

// ok waits for a good end.
func (r *running) ok() {
	r.t.Helper()
	if err := r.end(); err != nil {
		r.t.Fatalf("Run: got %v, want no error", err)
	}
}

// run runs a factory to its end.
func (s *shop) run(c Config) {
	s.t.Helper()
	s.start(c).ok()
}

func (s *shop) job(id string) *fleet.Job {
	s.t.Helper()
	job, err := s.client.Job(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return job
}

// last is the last run of a job.
func (s *shop) last(id string) *fleet.Run {
	s.t.Helper()
	runs, err := s.client.Runs(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(runs) == 0 {
		return &fleet.Run{}
	}
	return runs[len(runs)-1]
}

func (s *shop) events(id string) []fleet.Event {
	s.t.Helper()
	events, err := s.client.JobEvents(s.t.Context(), id, 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

// data is what the events of one type have to say.
func (s *shop) data(id string, kind fleet.EventType) (list []string) {
	s.t.Helper()
	for _, e := range s.events(id) {
		if e.Type == kind {
			list = append(list, string(e.Data))
		}
	}
	return list
}

// happened reports whether a job has an event.
func (s *shop) happened(id string, kind fleet.EventType) bool {
	return slices.ContainsFunc(s.events(id), func(e fleet.Event) bool { return e.Type == kind })
}

// await waits until something holds.
func (s *shop) await(what string, holds func() bool) {
	s.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(15 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-late:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// up waits for the first comment of a job: its command runs.
func (s *shop) up(id string) {
	s.t.Helper()
	s.await("the command", func() bool { return s.happened(id, fleet.EventComment) })
}

// fifo is a file on which a script waits until it is opened.
func fifo(t *testing.T) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

// content is a file that a script wrote, without white space around it.
func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// alive reports whether the process whose id is in a file runs.
func alive(t *testing.T, pidFile string) bool {
	t.Helper()
	pid, err := strconv.Atoi(content(t, pidFile))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return !errors.Is(err, os.ErrNotExist) && err == nil && !strings.Contains(string(stat), ") Z ")
}

// lines collects a factory's output.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watchReports calls see before each report that ends an attempt.
func watchReports(see func()) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			see()
		}
		return false
	}
}
