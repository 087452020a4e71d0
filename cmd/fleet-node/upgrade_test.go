package main

// This file upgrades a real cluster from the release before, one node at a time, while clients write to it.
//
//	make upgrade BINARY=/path/to/the/release/before

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// load is clients that submit jobs with a key each, by every node in turn, and send the same again until they know the outcome.
type load struct {
	a    *agents
	stop chan struct{}
	wait sync.WaitGroup

	mu   sync.Mutex        // guards what follows
	told map[string]string // job id by key
	bad  []string
}

func newLoad(a *agents, clients int) *load {
	l := &load{a: a, stop: make(chan struct{}), told: map[string]string{}}
	for c := range clients {
		l.wait.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.submit(fmt.Sprintf("c%d-%d", c, k), c+k)
			}
		})
	}
	return l
}

// submit submits one job, twice: the second time another node must know it.
func (l *load) submit(key string, node int) {
	body := fmt.Sprintf(`{"bodyMd":%q,"idempotencyKey":%q}`, key, key)
	var first string
	for deadline, try := time.Now().Add(time.Minute), node; ; try++ {
		status, b := l.a.call(try%l.a.n, "POST", "/fleet/jobs", body, key)
		var job struct{ ID, BodyMd, Code string }
		_ = json.Unmarshal(b, &job)
		switch {
		case status/100 == 2 && job.BodyMd == key && first == "":
			first = job.ID
			continue // the same again, elsewhere
		case status/100 == 2 && job.ID == first && job.BodyMd == key:
			l.mu.Lock()
			l.told[key] = first
			l.mu.Unlock()
			return
		case (status == 0 || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout) && time.Now().Before(deadline):
			time.Sleep(5 * time.Millisecond) // it is down, or stopping, or without a leader
			continue
		}
		l.mu.Lock()
		l.bad = append(l.bad, fmt.Sprintf("%s at n%d: got %d %s, %s before", key, try%l.a.n+1, status, b, first))
		l.mu.Unlock()
		return
	}
}

// end stops the clients and holds what they were told against every node.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wait.Wait()
	for _, bad := range l.bad {
		t.Errorf("a wrong answer: %s", bad)
	}
	for i := range l.a.n {
		has, cursor := map[string]string{}, ""
		for more := true; more; more = cursor != "" {
			var page struct {
				Jobs       []struct{ ID, IdempotencyKey string }
				NextCursor string
			}
			status, b := l.a.call(i, "GET", "/fleet/jobs?limit=1000&cursor="+cursor, "", "")
			if cursor == "" {
				status, b = l.a.call(i, "GET", "/fleet/jobs?limit=1000", "", "")
			}
			if err := json.Unmarshal(b, &page); err != nil || status != http.StatusOK {
				t.Fatalf("listing jobs at n%d: got %d %s", i+1, status, b)
			}
			for _, job := range page.Jobs {
				if other, twice := has[job.IdempotencyKey]; twice {
					t.Errorf("n%d has %s as %s and as %s", i+1, job.IdempotencyKey, other, job.ID)
				}
				has[job.IdempotencyKey] = job.ID
			}
			cursor = page.NextCursor
		}
		for key, id := range l.told {
			if has[key] != id {
				t.Errorf("n%d has %q for %s, a client was told %s", i+1, has[key], key, id)
			}
		}
	}
	t.Logf("%d jobs, each submitted twice", len(l.told))
	if len(l.told) < 100 {
		t.Errorf("only %d jobs were submitted", len(l.told))
	}
}

// Nodes of the release before and of this one are one cluster: nothing is lost or done twice on the way, any node may go back until the
// last was upgraded, and none after that.
func TestUpgrade(t *testing.T) {
	old := oldBinary(t)
	a := newAgents(t, t.TempDir(), 3)
	for i := range a.n {
		a.start(i, old)
	}
	for i := range a.n {
		a.ready(i)
	}
	swap := func(i int, binary string) {
		t.Helper()
		a.stop(i)
		a.start(i, binary)
		a.ready(i)
		for k := range a.n {
			if got := a.level(k); got != "1" {
				t.Fatalf("n%d is at level %s while n%d of the old release is or was a member", k+1, got, i+1)
			}
		}
	}
	l := newLoad(a, 4)
	pause := func() { // until some more was written, and everybody was greeted
		l.mu.Lock()
		was := len(l.told)
		l.mu.Unlock()
		began := time.Now()
		a.until("some more is written", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.told) >= was+50 && time.Since(began) > 3*time.Second
		})
	}
	pause()
	swap(0, ownBinary)
	pause()
	swap(1, ownBinary)
	pause()
	swap(0, old) // back
	pause()
	swap(0, ownBinary)
	pause()

	a.stop(2)
	a.start(2, ownBinary)
	for i := range a.n {
		a.until(fmt.Sprintf("n%d is at the newest level", i+1), func() bool { return a.level(i) == fmt.Sprint(fsm.MaxLevel) })
	}
	pause()
	a.stop(1)
	a.start(1, old)
	if status := a.wait(1); status != exitStorage || !strings.Contains(a.logs[1].String(), fsm.ErrFormat.Error()) {
		t.Errorf("the old release on what this one wrote ended with status %d, want %d and words\n%s", status, exitStorage, a.logs[1].String())
	}
	a.start(1, ownBinary)
	for i := range a.n {
		a.ready(i)
	}
	pause()
	l.end(t)
}

// A node of the release before that would join a cluster of this one is kept out, and hears why.
func TestOldReleaseIsNotLetIn(t *testing.T) {
	old := oldBinary(t)
	a := newAgents(t, t.TempDir(), 1)
	a.start(0, ownBinary)
	a.ready(0)
	a.until("it is at the newest level", func() bool { return a.level(0) == fmt.Sprint(fsm.MaxLevel) })
	a.n = 2
	a.start(1, old)
	a.until("the old release says why it is kept out", func() bool {
		return strings.Contains(a.logs[1].String(), fmt.Sprintf("the cluster is at level %d", fsm.MaxLevel))
	})
	if status, _ := a.call(1, "GET", "/readyz", "", ""); status != http.StatusServiceUnavailable {
		t.Errorf("its /readyz: got %d, want %d", status, http.StatusServiceUnavailable)
	}
	a.stop(1)
}

// Whoever is only kept out may try again with another binary; whoever has newer data must not be restarted over it.
func TestStatusesOfAnOldRelease(t *testing.T) {
	for want, err := range map[int]error{
		exitFailed:  fmt.Errorf("%w: the cluster is at level 2", cluster.ErrTooOld),
		exitStorage: fmt.Errorf("%w: decoding entry 7: %w", cluster.ErrStorage, fsm.ErrFormat),
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: got status %d, want %d", err, got, want)
		}
	}
}
