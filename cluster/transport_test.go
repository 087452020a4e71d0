package cluster

// This file tests who may speak on the node port.

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// portOf opens the node port of a host in memory, with a data directory of its own.
func portOf(t *testing.T, n *MemoryNetwork, name, secret string) *transport {
	t.Helper()
	dir, err := openDataDir(filepath.Join(t.TempDir(), name), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &Config{Name: name, DataDir: dir.path, NodeAddr: name + ":8401", GossipAddr: name + ":8402", Secret: []byte(secret), Network: n.Host(name), Clock: systemClock{}}
	tr, err := newTransport(cfg, dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	tr.setOnHello(func(string, string, helloRequest) helloReply { return helloReply{State: "follower", Applied: 7} })
	tr.onForward = func(conn net.Conn, peer string) {
		defer conn.Close()
		_, _ = io.WriteString(conn, "hello "+peer)
	}
	t.Cleanup(func() {
		_ = tr.Close()
		_ = dir.Close()
	})
	return tr
}

func (t *transport) serverID() raft.ServerID { return raft.ServerID(t.id) }

func TestForwardingBetweenServersOfOneCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		a.setClusterID("c1")
		b.setClusterID("c1")
		conn, err := a.dialForward(t.Context(), b.serverID(), b.id+"@b:8401")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, err := io.ReadAll(conn); string(got) != "hello "+a.id {
			t.Errorf("got %q, %v, want to be greeted as %s", got, err, a.id)
		}
	})
}

func TestPeersThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		secret, cluster, wantID, want string
	}{
		"another secret":          {"other", "c1", "", "does not hold this cluster's secret"},
		"another cluster":         {"s", "c2", "", "the peer is of cluster"},
		"no cluster yet":          {"s", "", "", "no application protocol"},
		"another server id":       {"s", "c1", "somebody", "not somebody"},
		"this server's own id":    {"s", "c1", "self", "not"},
		"the server that's meant": {"s", "c1", "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := NewMemoryNetwork()
			a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", c.secret)
			a.setClusterID("c1")
			if c.cluster != "" {
				b.setClusterID(c.cluster)
			}
			want := b.serverID()
			if c.wantID != "" {
				want = raft.ServerID(c.wantID)
			}
			conn, err := a.dialForward(t.Context(), want, "b:8401")
			if err == nil {
				_ = conn.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
		})
	}
}

// outdated is a certificate of the cluster that ended long ago.
func outdated(keys *clusterKeys, p peer) (*tls.Certificate, error) {
	cert, err := keys.certificate(p)
	if err != nil {
		return nil, err
	}
	template, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	template.NotAfter = template.NotBefore.Add(time.Hour)
	authority := &x509.Certificate{Subject: template.Issuer}
	cert.Certificate[0], err = x509.CreateCertificate(rand.Reader, template, authority, template.PublicKey, keys.ca)
	return cert, err
}

// The side that accepts judges too: a dialler that checks nothing gets no further.
func TestAcceptorRefusesStrangers(t *testing.T) {
	keys, _ := deriveKeys([]byte("s"))
	others, _ := deriveKeys([]byte("other"))
	for name, c := range map[string]struct {
		cert func() (*tls.Certificate, error)
		ok   bool
	}{
		"a server of the cluster":  {func() (*tls.Certificate, error) { return keys.certificate(peer{"x", "c1"}) }, true},
		"another secret":           {func() (*tls.Certificate, error) { return others.certificate(peer{"x", "c1"}) }, false},
		"another cluster":          {func() (*tls.Certificate, error) { return keys.certificate(peer{"x", "c2"}) }, false},
		"no cluster":               {func() (*tls.Certificate, error) { return keys.certificate(peer{"x", ""}) }, false},
		"another role":             {func() (*tls.Certificate, error) { return keys.sign(peer{"x", "c1"}, "client") }, false},
		"one whose dates are over": {func() (*tls.Certificate, error) { return outdated(keys, peer{"x", "c1"}) }, true}, // a clock must not cut a node off
		"no certificate":           {func() (*tls.Certificate, error) { return &tls.Certificate{}, nil }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := NewMemoryNetwork()
			a := portOf(t, n, "a", "s")
			a.setClusterID("c1")
			cert, err := c.cert()
			if err != nil {
				t.Fatal(err)
			}
			raw, err := n.Host("x").Dial(t.Context(), "a:8401")
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolNode}, Certificates: []tls.Certificate{*cert}})
			_, _ = conn.Write([]byte{streamForward})
			got, err := io.ReadAll(conn)
			if ok := bytes.Contains(got, []byte("hello x")); ok != c.ok {
				t.Errorf("%s: got %q, %v; accepted %t, want %t", name, got, err, ok, c.ok)
			}
		})
	}
}

func TestGarbageAndSilenceOnTheNodePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		a.setClusterID("c1")
		stranger := n.Host("x")
		for name, bytes := range map[string]string{
			"noise": strings.Repeat("\x00\xff\x16\x03", 1000), "http": "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a byte, then silence": "\x16", "silence": "",
		} {
			conn, err := stranger.Dial(t.Context(), "a:8401")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, _ = io.WriteString(conn, bytes)
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			got, err := io.ReadAll(conn)
			if err != nil || len(got) > 64 || time.Since(began) > handshakeWait {
				t.Errorf("%s: got %d bytes, %v after %s, want the end within %s", name, len(got), err, time.Since(began), handshakeWait)
			}
			_ = conn.Close()
		}
		for range 10 * maxHandshakes {
			if conn, err := stranger.Dial(t.Context(), "a:8401"); err == nil {
				defer conn.Close()
			}
		}
		synctest.Wait() // they are all accepted, or turned away
		if _, err := b.hello(t.Context(), "a:8401", helloRequest{Op: opWho}); err != nil {
			t.Errorf("greeting a node under a flood from another host: %v", err)
		}
	})
}

func TestHelloNeedsNoCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		reply, err := a.hello(t.Context(), "b:8401", helloRequest{Op: opStatus})
		if err != nil || reply.ServerID != b.id || reply.Name != "b" || reply.NodeAddr != "b:8401" || reply.Applied != 7 {
			t.Errorf("got %+v, %v, want who b is", reply, err)
		}
		stranger := portOf(t, n, "c", "other")
		if _, err := stranger.hello(t.Context(), "b:8401", helloRequest{Op: opStatus}); err == nil {
			t.Error("a stranger's greeting was answered")
		}
		big := helloRequest{Op: opPromise, Cluster: strings.Repeat("x", maxHello)}
		if _, err := a.hello(t.Context(), "b:8401", big); err == nil || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("a greeting of over 4 KiB: got %v, want a refusal", err)
		}
	})
}

// Many greetings shake hands once; whoever starts anew at the same address is met as who it is now, at the first try.
func TestHelloKeepsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		open := func(tr *transport) int {
			synctest.Wait()
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return len(tr.conns)
		}
		for range 3 * maxHandshakes {
			reply, err := a.hello(t.Context(), "b:8401", helloRequest{Op: opStatus})
			if err != nil || reply.ServerID != b.id {
				t.Fatalf("got %+v, %v, want b", reply, err)
			}
			time.Sleep(2 * time.Second)
		}
		if got := open(b); got != 1 {
			t.Errorf("after many greetings b has %d connections, want 1", got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		next := portOf(t, n, "b", "s")
		reply, err := a.hello(t.Context(), "b:8401", helloRequest{Op: opStatus})
		if err != nil || reply.ServerID != next.id {
			t.Errorf("after another node started there: got %+v, %v, want %s", reply, err, next.id)
		}
		time.Sleep(2 * helloIdle)
		if a, b := open(a), open(next); a != 0 || b != 0 {
			t.Errorf("nobody greets any more: %d and %d connections are still open", a, b)
		}
	})
}

// Entries to a follower that does not answer, or refuses them, end one after the other, also when nobody reads its answers any more: raft
// stops reading at the first bad one.
func TestPipelineOfASilentFollowerDoesNotStandStill(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := NewMemoryNetwork()
			a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
			a.setClusterID("c1")
			b.setClusterID("c1")
			a.shy = func() bool { return false }
			a.learn(b.id, "b:8401")
			p, err := a.raft().AppendEntriesPipeline(b.serverID(), "b:8401")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			if refuses {
				go func() {
					for {
						select {
						case rpc := <-b.rpc.Consumer():
							rpc.Respond(&raft.AppendEntriesResponse{}, nil)
						case <-t.Context().Done():
							return
						}
					}
				}()
			}
			sent := make(chan error)
			go func() {
				for range 2 * pipelined {
					if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err != nil {
						break
					}
				}
				close(sent)
			}()
			select {
			case <-sent:
			case <-time.After(time.Minute):
				t.Errorf("refuses %t: an entry waits to be sent, a minute later", refuses)
			}
		})
	}
}

func TestPreVoteStaysAlive(t *testing.T) {
	if _, ok := raft.Transport(startingTransport{shyTransport: portOf(t, NewMemoryNetwork(), "a", "s").raft()}).(raft.WithPreVote); !ok {
		t.Error("raft's transport does not implement raft.WithPreVote: a node that comes back would depose a healthy leader")
	}
}

func TestDialRefusesAnAddressWithoutID(t *testing.T) {
	a := portOf(t, NewMemoryNetwork(), "a", "s")
	if _, err := a.layer.Dial("b:8401", time.Second); err == nil || !strings.Contains(err.Error(), "which server") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// A server that moved is found where it was last greeted, before where the configuration has it.
func TestDialFollowsAServerThatMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a, b := portOf(t, n, "a", "s"), portOf(t, n, "b", "s")
		a.setClusterID("c1")
		b.setClusterID("c1")
		a.setConfigured(func(raft.ServerID) raft.ServerAddress { return "old:8401" })
		if _, err := b.hello(t.Context(), "a:8401", helloRequest{Op: opWho}); err != nil {
			t.Fatal(err)
		}
		addr, err := a.ServerAddr(b.serverID())
		if want := raft.ServerAddress(b.id + "@old:8401"); addr != want || err != nil {
			t.Errorf("got %s, %v, want %s: connections are pooled by it", addr, err, want)
		}
		conn, err := a.layer.Dial(addr, time.Second)
		if err != nil {
			t.Fatalf("dialling a server that moved: %v", err)
		}
		_ = conn.Close()
	})
}

func TestRealSockets(t *testing.T) {
	ports := make([]*transport, 2)
	for i, name := range []string{"a", "b"} {
		dir, err := openDataDir(filepath.Join(t.TempDir(), name), name)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cfg := &Config{Name: name, NodeAddr: "127.0.0.1:0", Secret: []byte("s"), Network: realNetwork{}, Clock: systemClock{}}
		if ports[i], err = newTransport(cfg, dir, hclog.NewNullLogger()); err != nil {
			t.Fatal(err)
		}
		defer ports[i].Close()
		ports[i].setClusterID("c1")
	}
	conn, err := ports[0].layer.Dial(raft.ServerAddress(ports[1].id+"@"+ports[1].advertised()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := ports[0].dialForward(ctx, ports[1].serverID(), ports[1].advertised()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without time: got %v, want %v", err, context.DeadlineExceeded)
	}
}
