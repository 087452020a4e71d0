package check_test

// This file looks for secrets where none may be: what nodes log, their feeds and their snapshots (I18).

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/testcluster"
)

// leaks is what the nodes of a run have said.
type leaks struct {
	mu   sync.Mutex // guards said
	said bytes.Buffer
}

func (l *leaks) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(p)
}

// listen lets a node log all it can.
func (l *leaks) listen(c *cluster.Config) {
	c.Logger = hclog.New(&hclog.LoggerOptions{Name: c.Name, Level: hclog.Trace, Output: l})
}

// search looks through what was said, and through a node's feed and snapshot.
func (l *leaks) search(t *testing.T, n *cluster.Node) {
	l.mu.Lock()
	said := l.said.String()
	l.mu.Unlock()
	if said == "" {
		t.Fatal("I18: the nodes have logged nothing")
	}
	var feed []byte
	n.View(func(v fsm.View) {
		events, _, _ := v.Feed(product, 0, 10_000_000)
		feed, _ = json.Marshal(events)
	})
	var snapshot bytes.Buffer
	if err := n.WriteSnapshot(t.Context(), &snapshot); err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"a log": said, "the feed": string(feed), "a snapshot": snapshot.String()} {
		for _, secret := range spellings(testcluster.Token) {
			if strings.Contains(text, secret) {
				t.Errorf("I18: the secret is in %s", where)
			}
		}
	}
}

// spellings are a secret as it is and as it may be printed.
func spellings(secret string) []string {
	b := []byte(secret)
	return []string{secret, hex.EncodeToString(b), strings.TrimRight(base64.StdEncoding.EncodeToString(b), "="), base64.RawURLEncoding.EncodeToString(b)}
}
