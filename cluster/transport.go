package cluster

// This file is the node port: mutual TLS, who may speak on it, and whether that is Raft, forwarding or a greeting.

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The protocols of the node port, chosen by ALPN. The first byte on protocolNode says which stream it is; whoever accepts it
// sends it back, so that a refusal is known before anything is sent.
const (
	protocolHello = "fleet-hello" // for all who hold the secret
	protocolNode  = "fleet-node"  // for servers of one cluster

	streamRaft    byte = 'R'
	streamForward byte = 'F'
	streamRestore byte = 'B'
)

// Bounds of what a stranger can do.
const (
	handshakeWait     = 5 * time.Second
	maxHandshakes     = 128 // at a time
	maxHandshakesFrom = 32  // at a time, from one host
)

// transport is the node port of one node. It greets from the start; it takes Raft and forwarding only once the cluster id is set.
type transport struct {
	cfg      *Config
	dir      *dataDir
	log      hclog.Logger
	keys     *clusterKeys
	id       string
	listener net.Listener
	address  string // what others dial
	layer    *raftLayer
	rpc      *raft.NetworkTransport
	refusals seldom

	onForward func(conn net.Conn, peerID string) // set before the cluster id
	onRestore func(conn net.Conn, peerID string) // set before the cluster id
	shy       func() bool                        // this node leaves elections to others; set before Raft starts

	mu          sync.Mutex // guards what follows; never held while waiting
	cluster     string     // empty: not known yet
	cert        *tls.Certificate
	onHello     func(peerID, peerCluster string, req helloRequest) helloReply
	configured  func(raft.ServerID) raft.ServerAddress
	greeted     map[string]string     // server id → the address where it was last met
	hellos      map[string]*helloLine // by address: kept for the next greeting
	conns       map[net.Conn]struct{}
	handshakes  int
	handshaking map[string]int // by remote host
	closed      bool
}

// newTransport listens at once.
func newTransport(cfg *Config, dir *dataDir, log hclog.Logger) (*transport, error) {
	keys, err := deriveKeys(cfg.Secret)
	if err != nil {
		return nil, err
	}
	t := &transport{
		cfg: cfg, dir: dir, log: log.Named("transport"), keys: keys, id: dir.identity().ServerID,
		greeted: map[string]string{}, hellos: map[string]*helloLine{}, conns: map[net.Conn]struct{}{}, handshaking: map[string]int{},
	}
	if t.cert, err = keys.certificate(peer{id: t.id}); err != nil {
		return nil, err
	}
	if t.listener, err = cfg.Network.Listen(cfg.NodeAddr); err != nil {
		return nil, fmt.Errorf("listening on the node port: %w", err)
	}
	t.address = advertise(cfg, t.listener.Addr())
	t.layer = &raftLayer{transport: t, accept: make(chan net.Conn), done: make(chan struct{})}
	t.rpc = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: t, Logger: raftLogger{t.log}, Stream: t.layer, MaxPool: 3, MaxRPCsInFlight: pipelined, Timeout: 10 * time.Second,
	})
	go t.serve()
	return t, nil
}

// raft is Raft's transport.
func (t *transport) raft() shyTransport { return shyTransport{t.rpc, t.shy} }

// setClusterID opens the port for Raft and forwarding of one cluster.
func (t *transport) setClusterID(id string) {
	cert, err := t.keys.certificate(peer{t.id, id})
	if err != nil {
		t.log.Error("the node port stays closed", "error", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cluster, t.cert = id, cert
}

func (t *transport) setOnHello(answer func(peerID, peerCluster string, req helloRequest) helloReply) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onHello = answer
}

func (t *transport) answerer() func(peerID, peerCluster string, req helloRequest) helloReply {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.onHello
}

// setConfigured tells where Raft's configuration has its servers.
func (t *transport) setConfigured(addr func(raft.ServerID) raft.ServerAddress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configured = addr
}

// advertised is the host:port that others dial.
func (t *transport) advertised() string { return t.address }

// advertise is what the configuration says, or else an address of this machine.
func advertise(cfg *Config, bound net.Addr) string {
	host, _, _ := net.SplitHostPort(cfg.NodeAddr)
	if cfg.AdvertiseAddr != "" {
		host = cfg.AdvertiseAddr
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
		addrs, _ := net.InterfaceAddrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
				host = n.IP.String()
				break
			}
		}
	}
	_, port, _ := net.SplitHostPort(bound.String())
	return net.JoinHostPort(host, port)
}

// learn remembers where a server was met. Only its certificate says that it was the one.
func (t *transport) learn(id, addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.greeted[id] = addr
}

func (t *transport) metAt(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.greeted[id]
}

// Close ends the port and every connection. It may be called again.
func (t *transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	open := t.conns
	t.conns = nil
	for _, l := range t.hellos {
		l.close.Stop()
	}
	clear(t.hellos)
	t.mu.Unlock()
	err := t.listener.Close()
	_ = t.rpc.Close()
	for conn := range open {
		_ = conn.Close()
	}
	return err
}

// heldConn is a connection that Close ends.
type heldConn struct {
	net.Conn
	t *transport
}

func (t *transport) hold(conn net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	t.conns[conn] = struct{}{}
	return &heldConn{conn, t}, nil
}

func (c *heldConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c.Conn)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// serve accepts until the listener is closed.
func (t *transport) serve() {
	for {
		raw, err := t.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.log.Warn("accepting a connection", "error", err)
			time.Sleep(50 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		host, _, _ := net.SplitHostPort(raw.RemoteAddr().String())
		if !t.admit(host) {
			_ = raw.Close()
			continue
		}
		go func() {
			conn, p, protocol, err := t.shake(raw)
			t.dismiss(host)
			if err != nil {
				_ = raw.Close()
				if t.refusals.allow(host, time.Minute) {
					t.log.Warn("a connection to the node port was refused", "from", host, "error", err)
				}
				return
			}
			if protocol == protocolHello {
				t.serveHello(conn, p)
			} else {
				t.serveStream(conn, p)
			}
		}()
	}
}

// admit counts a handshake, or refuses it because there are too many.
func (t *transport) admit(host string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.handshakes >= maxHandshakes || t.handshaking[host] >= maxHandshakesFrom {
		return false
	}
	t.handshakes++
	t.handshaking[host]++
	return true
}

func (t *transport) dismiss(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handshakes--
	if t.handshaking[host]--; t.handshaking[host] == 0 {
		delete(t.handshaking, host)
	}
}

// shake finds out who has come. Nothing the peer sends is decoded before it returns.
func (t *transport) shake(raw net.Conn) (net.Conn, peer, string, error) {
	held, err := t.hold(raw)
	if err != nil {
		return nil, peer{}, "", err
	}
	var p peer
	config, cluster := t.tlsConfig("", &p)
	config.NextProtos = []string{protocolHello}
	if cluster != "" {
		config.NextProtos = append(config.NextProtos, protocolNode)
	}
	_ = held.SetDeadline(time.Now().Add(handshakeWait))
	conn := tls.Server(held, config)
	if err := conn.Handshake(); err != nil {
		_ = held.Close()
		return nil, peer{}, "", err
	}
	return conn, p, conn.ConnectionState().NegotiatedProtocol, nil
}

// tlsConfig is either side's, without its protocols. With an id, the peer must be that server. Who it is, is in met after the handshake.
func (t *transport) tlsConfig(wantID string, met *peer) (config *tls.Config, cluster string) {
	t.mu.Lock()
	cluster, cert := t.cluster, t.cert
	t.mu.Unlock()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, //nolint:gosec // VerifyConnection judges the peer, on both sides
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := t.keys.judge(&cs)
			*met = p
			switch {
			case err != nil:
				return err
			case cs.NegotiatedProtocol == protocolHello:
				return nil
			case cs.NegotiatedProtocol != protocolNode:
				return errors.New("the peer speaks neither of the node port's protocols")
			case cluster == "" || p.cluster != cluster:
				return fmt.Errorf("the peer is of cluster %q, this node of %q", p.cluster, cluster)
			case p.id == t.id:
				return fmt.Errorf("the peer has this node's own server id %s: a data directory was copied", p.id)
			case wantID != "" && p.id != wantID:
				return fmt.Errorf("the peer is server %s, not %s", p.id, wantID)
			}
			return nil
		},
	}, cluster
}

// serveStream hands a stream of this cluster to raft or to forwarding.
func (t *transport) serveStream(conn net.Conn, p peer) {
	var kind [1]byte
	if _, err := conn.Read(kind[:]); err != nil || kind[0] != streamRaft && kind[0] != streamForward && kind[0] != streamRestore {
		_ = conn.Close()
		return
	}
	if _, err := conn.Write(kind[:]); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	switch kind[0] {
	case streamForward:
		t.onForward(conn, p.id)
		return
	case streamRestore:
		t.onRestore(conn, p.id)
		return
	}
	select {
	case t.layer.accept <- conn:
	case <-t.layer.done:
		_ = conn.Close()
	}
}
