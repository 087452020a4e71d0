package rpc

// This file holds the listener against clients that take their time, in virtual time.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
)

// pipes is a listener without a network.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// serving serves an API without a network until the test ends.
func serving(t *testing.T, api *API) *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	s := newServer(ServerConfig{Handler: api, Logger: hclog.NewNullLogger()}, p)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.http.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return p
}

const authorized = "Host: h\r\nAuthorization: Bearer " + rootToken + "\r\nX-Product-Id: p1\r\n"

// Whoever sends slowly is cut off: the head has 5 s, a body 30 s even if nobody asks for it, and a connection may idle 60 s.
func TestSlowClientsAreCutOff(t *testing.T) {
	for _, c := range []struct {
		name, request string
		within        time.Duration
	}{
		{"head", "POST /fleet/jobs HTTP/1.1\r\nHost: h\r\nX-Half", headWait},
		{"body", "POST /fleet/jobs HTTP/1.1\r\n" + authorized + "Content-Length: 100\r\n\r\n{", bodyWait},
		{"chunked body", "POST /fleet/jobs HTTP/1.1\r\n" + authorized + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", bodyWait},
		{"body without a token", "POST /fleet/jobs HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{", bodyWait},
		{"body without a route", "POST /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{", bodyWait},
		{"body of a read", "GET /fleet/jobs HTTP/1.1\r\n" + authorized + "Content-Length: 100\r\n\r\n{", bodyWait},
		{"idle", "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", idleWait},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := newClient(t)
				conn := serving(t, client.api).dial()
				defer conn.Close()
				began := time.Now()
				if _, err := io.WriteString(conn, c.request); err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(conn) // until the server closes
				// Beside the wait there are the 500 ms that net/http gives a client to read the answer.
				if took := time.Since(began); took < c.within || took > c.within+time.Second {
					t.Errorf("cut off after %v, want %v: %s", took, c.within, answer)
				}
			})
		})
	}
}

// The time for the body is no time for the call: a claim waits for as long as it asked for, and not much longer.
func TestWaitingClaimOutlivesTheTimeForItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := newClient(t)
		node.waits = true
		answering(node, &fleet.Claim{})
		conn := serving(t, client.api).dial()
		defer conn.Close()
		began := time.Now()
		body := `{"factoryId":"f1","waitSeconds":60}`
		if _, err := fmt.Fprintf(conn, "POST /fleet/claim HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", authorized, len(body), body); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if took := time.Since(began); took < 60*time.Second || took > 63*time.Second {
			t.Errorf("answered after %v, want 60 s and a twentieth at most", took)
		}
	})
}

// A client that sends a little too much hears why, on a connection that it can go on using; one that sends far too much
// is cut off.
func TestTooLargeBodiesAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := newClient(t)
		p := serving(t, client.api)
		for _, c := range []struct {
			size   int
			chunks bool
			closes bool
		}{{1<<20 + 1, false, false}, {1<<20 + 1, true, false}, {2 << 20, false, false}, {4 << 20, true, true}, {100 << 20, false, true}} {
			conn := p.dial()
			sent := make(chan error, 1)
			go func() {
				head := fmt.Sprintf("Content-Length: %d\r\n", c.size)
				if c.chunks {
					head = "Transfer-Encoding: chunked\r\n"
				}
				_, err := io.WriteString(conn, "POST /fleet/jobs HTTP/1.1\r\n"+authorized+head+"\r\n")
				for left := c.size; left > 0 && err == nil; left -= 4096 {
					part := strings.Repeat(" ", min(left, 4096))
					if c.chunks {
						part = fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
					}
					_, err = io.WriteString(conn, part)
				}
				if c.chunks && err == nil {
					_, err = io.WriteString(conn, "0\r\n\r\n")
				}
				sent <- err
			}()
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != http.StatusRequestEntityTooLarge || r.Close != c.closes {
				t.Errorf("%d bytes: got %d, closes %t, want 413, closes %t", c.size, r.StatusCode, r.Close, c.closes)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			if err := <-sent; (err != nil) != c.closes {
				t.Errorf("%d bytes: sending ended with %v, want an error: %t", c.size, err, c.closes)
			}
			_ = conn.Close()
		}
	})
}
