package rpc

// This file is the listener: time-outs against slow clients, TLS that follows its files, and an orderly end.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// How long clients may take. A request's body has bodyWait, each answer writeWait; streams have a deadline per event.
const (
	headWait     = 5 * time.Second
	idleWait     = 60 * time.Second
	maxHeadBytes = 64 << 10
	reloadEvery  = time.Minute
)

// ServerConfig is what a Server is told.
type ServerConfig struct {
	// Addr is host:port to listen on. Required.
	Addr string
	// Handler answers. Required.
	Handler http.Handler
	// CertFile and KeyFile, if both are given, are the server's certificate; they are read again when they change.
	CertFile, KeyFile string
	// Logger takes all logs. Nil: none.
	Logger hclog.Logger
}

// Server serves an API on one address.
type Server struct {
	http     http.Server
	listener net.Listener
	pair     *keyPair // nil: no TLS
}

// Listen opens the address, so that a port that is taken is an error now. Call Serve next.
func Listen(cfg ServerConfig) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("rpc: ServerConfig.CertFile and KeyFile go together")
	}
	var pair *keyPair
	if cfg.CertFile != "" {
		pair = &keyPair{cert: cfg.CertFile, key: cfg.KeyFile, log: cfg.Logger}
		if err := pair.load(); err != nil {
			return nil, fmt.Errorf("loading the TLS certificate: %w", err)
		}
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w", err)
	}
	if pair != nil {
		listener = tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.certificate})
	}
	s := newServer(cfg, listener)
	s.pair = pair
	return s, nil
}

func newServer(cfg ServerConfig, listener net.Listener) *Server {
	s := &Server{listener: listener}
	s.http = http.Server{
		Handler:           cfg.Handler,
		ReadHeaderTimeout: headWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeadBytes,
		ErrorLog:          cfg.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		Protocols:         new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	return s
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Reload reads the certificate's files again now, if they changed; else that is done within a minute. After an error the
// old certificate stays.
func (s *Server) Reload() error {
	if s.pair == nil {
		return nil
	}
	return s.pair.load()
}

// Serve answers until Shutdown. It returns nil then.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown takes no new calls and waits for those in flight; when ctx ends it cuts off what is left. Drain the node
// first: that ends streams and waiting claims.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}

// keyPair is a certificate that follows its files. While new files don't fit together the old pair stays.
type keyPair struct {
	cert, key string
	log       hclog.Logger

	mu      sync.Mutex // guards what follows
	loaded  *tls.Certificate
	changed [2]time.Time
	looked  time.Time
}

// certificate is for tls.Config.GetCertificate.
func (p *keyPair) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	stale := time.Since(p.looked) >= reloadEvery
	p.mu.Unlock()
	if stale {
		if err := p.load(); err != nil {
			p.log.Warn("the TLS certificate was not reloaded; the old one stays", "error", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loaded, nil
}

// load reads the files if they changed since they were read last.
func (p *keyPair) load() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = time.Now()
	var changed [2]time.Time
	for i, name := range []string{p.cert, p.key} {
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		changed[i] = st.ModTime()
	}
	if p.loaded != nil && changed == p.changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return err
	}
	p.loaded, p.changed = &pair, changed
	return nil
}
