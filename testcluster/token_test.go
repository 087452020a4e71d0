package testcluster_test

// This file takes tokens away while calls made with them are under way, in virtual time.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

const (
	tokenLife  = 30 * time.Second // of a token that expires
	mayGoOn    = time.Second      // what was begun with a token ends this soon after the entry that ends the token
	tokenLimit = 20 * time.Second // what has not come this long after it was due does not come
	tokenBatch = 2                // jobs in a batch
	oneWay     = 20 * time.Millisecond
	batchEvery = 15 * time.Millisecond // at each node: some are always under way
)

// tokenUser calls the nodes of a cluster, with a token that will end.
type tokenUser struct {
	t       *testing.T
	c       *testcluster.Cluster
	web     *http.Client
	id      string
	secret  string
	expires time.Time // if it does
}

// answered is what a node answered, or could not.
type answered struct {
	status int
	index  uint64 // Fleet-Index
	body   []byte
	at     time.Time
	err    error
}

func newTokenUser(t *testing.T, expires bool) *tokenUser {
	u := &tokenUser{t: t, c: testcluster.Start(t, 3)}
	u.web = u.c.HTTPClient(t)
	at := ""
	if expires {
		u.expires = time.Now().Add(tokenLife).Truncate(time.Second)
		at = fmt.Sprintf(`,"expiresAt":%q`, u.expires.UTC().Format(time.RFC3339))
	}
	made := u.call(0, "POST", "/cluster/tokens", testcluster.Token, fmt.Sprintf(`{"roles":["reader","submitter","factory"],"products":[%q]%s}`, testcluster.Product, at))
	var token struct{ ID, Secret string }
	if err := json.Unmarshal(made.body, &token); err != nil || made.status != http.StatusCreated {
		t.Fatalf("making a token: got %d %s, %v", made.status, made.body, made.err)
	}
	u.id, u.secret = token.ID, token.Secret
	u.c.Converged(t)
	return u
}

func (u *tokenUser) open(node int, method, path, secret, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(u.t.Context(), method, u.c.Addresses()[node]+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("X-Product-Id", testcluster.Product)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if path == "/fleet/events" {
		r.Header.Set("Accept", "text/event-stream")
	}
	return u.web.Do(r)
}

func (u *tokenUser) call(node int, method, path, secret, body string) (a answered) {
	answer, err := u.open(node, method, path, secret, body)
	if err != nil {
		return answered{err: err, at: time.Now()}
	}
	defer answer.Body.Close()
	a.status = answer.StatusCode
	a.index, _ = strconv.ParseUint(answer.Header.Get("Fleet-Index"), 10, 64)
	a.body, a.err = io.ReadAll(answer.Body)
	a.at = time.Now()
	return a
}

// gone says when a node has applied the end of the token, and at which index of its log at the latest.
type gone struct {
	at    time.Time
	index uint64
}

// watch looks at a node's state, a thousand times a second, until it does not hold the token any more.
func (u *tokenUser) watch(node int) <-chan gone {
	seen := make(chan gone, 1)
	go func() {
		for u.t.Context().Err() == nil {
			var held bool
			var index uint64
			u.c.Node(node).View(func(v fsm.View) {
				index = v.Index()
				held = slices.ContainsFunc(v.Tokens(), func(t *fleet.Token) bool { return t.ID == u.id })
			})
			if !held {
				seen <- gone{time.Now(), index}
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return seen
}

func (u *tokenUser) revoke(node int) {
	u.t.Helper()
	if a := u.call(node, "DELETE", "/cluster/tokens/"+u.id, testcluster.Token, ""); a.status/100 != 2 {
		u.t.Fatalf("revoking: got %d %s, %v", a.status, a.body, a.err)
	}
}

// within fails the test when what is awaited does not come: time is virtual, so a wait without a bound never ends.
func within[T any](t *testing.T, limit time.Duration, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("waited %s of virtual time in vain until %s", limit, what)
		panic("unreachable")
	}
}

func endings(t *testing.T, test func(t *testing.T, expires bool)) {
	for _, how := range []string{"revoked", "expired"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, how == "expired") })
		})
	}
}

// A token that is revoked or expires ends every stream that it opened, and every claim that waits, at the leader and at followers, within a
// second of the entry that ends it being applied there.
func TestTokenEndsWhileInUse(t *testing.T) {
	endings(t, func(t *testing.T, expires bool) {
		u := newTokenUser(t, expires)
		var streams, claims [3]chan answered
		var ends [3]<-chan gone
		for i := range 3 {
			if beat := u.call(i, "POST", "/fleet/factories/heartbeat", u.secret, fmt.Sprintf(`{"factoryId":"f%d"}`, i)); beat.status/100 != 2 {
				t.Fatalf("node %d: a heartbeat: got %d %s, %v", i, beat.status, beat.body, beat.err)
			}
			stream, err := u.open(i, "GET", "/fleet/events", u.secret, "")
			if err != nil || stream.StatusCode != http.StatusOK {
				t.Fatalf("node %d: opening a stream: %v", i, err)
			}
			reader := bufio.NewReader(stream.Body)
			if first, err := reader.ReadString('\n'); err != nil {
				t.Fatalf("node %d: got %q, %v", i, first, err)
			}
			streams[i], claims[i], ends[i] = make(chan answered, 1), make(chan answered, 1), u.watch(i)
			go func() {
				_, _ = io.Copy(io.Discard, reader)
				_ = stream.Body.Close()
				streams[i] <- answered{at: time.Now()}
			}()
			ahead := fmt.Sprintf(`{"factoryId":"ahead%d","waitSeconds":55}`, i) // in the same line, with a token that stays
			if beat := u.call(i, "POST", "/fleet/factories/heartbeat", testcluster.Token, ahead[:strings.Index(ahead, ",")]+"}"); beat.status/100 != 2 {
				t.Fatalf("node %d: a heartbeat: got %d %s, %v", i, beat.status, beat.body, beat.err)
			}
			go u.call(i, "POST", "/fleet/claim", testcluster.Token, ahead)
			synctest.Wait()
			go func() {
				claims[i] <- u.call(i, "POST", "/fleet/claim", u.secret, fmt.Sprintf(`{"factoryId":"f%d","waitSeconds":55}`, i))
			}()
		}
		synctest.Wait() // the claims wait
		if !expires {
			u.revoke(1)
		}
		for i := range 3 {
			end := within(t, tokenLife+tokenLimit, fmt.Sprintf("node %d has applied the end of the token", i), ends[i])
			if took := within(t, tokenLimit, fmt.Sprintf("the stream of node %d ends", i), streams[i]).at.Sub(end.at); took > mayGoOn {
				t.Errorf("node %d: a stream ended %s after its token, want %s at most", i, took, mayGoOn)
			}
			claim := within(t, tokenLimit, fmt.Sprintf("the claim that waits at node %d ends", i), claims[i])
			if took := claim.at.Sub(end.at); took > mayGoOn || claim.status != http.StatusUnauthorized {
				t.Errorf("node %d: a claim that waited ended %s after its token with %d %s, %v, want 401 within %s", i, took, claim.status, claim.body, claim.err, mayGoOn)
			}
			if late := u.call(i, "POST", "/fleet/jobs/batch", u.secret, `{"jobs":[{"bodyMd":"late"}]}`); late.status != http.StatusUnauthorized {
				t.Errorf("node %d: a batch with a token that is gone: got %d %s, %v, want 401", i, late.status, late.body, late.err)
			}
		}
		u.c.Converged(t)
	})
}

// Batches that are under way when their token ends are decided by their place in the log: those before its end are there as a whole, at
// every node, and nothing is there of the others.
func TestTokenEndsWhileBatchesAreUnderWay(t *testing.T) {
	endings(t, func(t *testing.T, expires bool) {
		u := newTokenUser(t, expires)
		for i := range 3 {
			for j := range i {
				u.c.Network().Delay(u.c.Node(i).Name(), u.c.Node(j).Name(), oneWay)
			}
		}
		if expires {
			time.Sleep(time.Until(u.expires) - 5*oneWay)
		}
		type batch struct {
			node int
			name string
			sent time.Time
			answered
		}
		end, over, batches := u.watch(u.c.Leader(t)), make(chan struct{}), make(chan batch)
		var senders sync.WaitGroup
		for node := range 3 {
			senders.Go(func() {
				for n := 0; ; n++ {
					senders.Go(func() {
						b := batch{node: node, name: fmt.Sprintf("b%d-%d", node, n), sent: time.Now()}
						job := fmt.Sprintf(`{"bodyMd":"x","labels":{"batch":%q}}`, b.name)
						b.answered = u.call(node, "POST", "/fleet/jobs/batch", u.secret, `{"jobs":[`+strings.Repeat(job+",", tokenBatch-1)+job+`]}`)
						batches <- b
					})
					select {
					case <-over:
						return
					case <-time.After(batchEvery):
					}
				}
			})
		}
		go func() {
			senders.Wait()
			close(batches)
		}()
		all := make(chan []batch, 1)
		go func() {
			var list []batch
			for b := range batches {
				list = append(list, b)
			}
			all <- list
		}()
		ends := u.expires // and it has ended when that is applied
		if !expires {
			time.Sleep(5 * oneWay)
			ends = time.Now()
			u.revoke((u.c.Leader(t) + 1) % 3)
		}
		ended := within(t, tokenLife+tokenLimit, "the leader has applied the end of the token", end)
		time.Sleep(5 * oneWay)
		close(over)
		whole, both := map[string]bool{}, map[bool]int{}
		for _, b := range within(t, tokenLimit, "all batches are answered", all) {
			accepted := b.status/100 == 2
			if !accepted && b.status != http.StatusUnauthorized {
				t.Errorf("node %d: a batch: got %d %s, %v, want success or 401", b.node, b.status, b.body, b.err)
			}
			if accepted && b.index > ended.index {
				t.Errorf("node %d: a batch was taken at index %d, its token had ended at %d", b.node, b.index, ended.index)
			}
			if b.sent.Before(ended.at) && b.at.After(ends) {
				both[accepted]++
			}
			whole[b.name] = accepted
		}
		if both[true] == 0 || both[false] == 0 {
			t.Errorf("of the batches under way while the token ended %d were taken and %d refused, want some of both", both[true], both[false])
		}
		u.c.Converged(t)
		for node := range 3 {
			var list struct{ Jobs []fleet.Job }
			a := u.call(node, "GET", "/fleet/jobs?limit=1000&consistency=stale", testcluster.Token, "")
			if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
				t.Fatalf("node %d: listing jobs: got %d, %v, %v", node, a.status, err, a.err)
			}
			there := map[string]int{}
			for i := range list.Jobs {
				there[list.Jobs[i].Labels[0].Value]++
			}
			for name, accepted := range whole {
				if want := map[bool]int{true: tokenBatch}[accepted]; there[name] != want {
					t.Errorf("node %d: %d jobs of batch %s are there, want %d", node, there[name], name, want)
				}
			}
		}
	})
}
