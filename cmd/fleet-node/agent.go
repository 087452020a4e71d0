package main

// This file runs a node: it starts the cluster's member and its HTTP surface, and ends them in order.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/rpc"
)

// echoWait is how soon another signal is the first one again: timeout(1) and terminals send it to a process and to its
// group.
const echoWait = 200 * time.Millisecond

// drainWait is how long requests in flight may take at the end.
const drainWait = 10 * time.Second

func newAgent() *cobra.Command {
	var a agent
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run a node of a cluster",
		Long: "agent runs one node. Three of them with --bootstrap-expect 3 and each other in --join form a cluster; a node with an\n" +
			"empty data directory joins one. All nodes of a cluster have the same root token.",
		Example: "  FLEET_ROOT_TOKEN=secret fleet-node agent --bootstrap-expect 1 --data-dir n1.fleet-data\n" +
			"  fleet-node agent --config /etc/fleet/agent.yaml",
		GroupID: groupCluster,
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			a.logLevelByFlag = c.Flags().Changed("log-level")
			settings, err := settle(c.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if err := a.check(); err != nil {
				return err
			}
			allowTimerSlack()
			log := a.logger()
			for _, warning := range mistyped(c.Flags(), os.Environ()) {
				log.Warn(warning)
			}
			return a.run(c.Context(), log, settings)
		},
	}
	a.flags(c.Flags())
	return c
}

func (a *agent) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:        "node",
		Level:       hclog.LevelFromString(a.logLevel),
		JSONFormat:  a.logJSON,
		Output:      os.Stderr,
		TimeFormat:  "2006-01-02T15:04:05.000Z",
		TimeFn:      func() time.Time { return time.Now().UTC() },
		DisableTime: os.Getenv("JOURNAL_STREAM") != "" && !a.logJSON,
	})
}

// run serves until a signal, or until the node ends by itself.
func (a *agent) run(ctx context.Context, log hclog.Logger, settings []setting) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)

	// HTTP listens before the node starts: a taken port or a bad certificate must not leave a founded cluster behind.
	httpLog := log.ResetNamed("http")
	var api *rpc.API // set before the server serves
	server, err := rpc.Listen(rpc.ServerConfig{
		Addr: a.httpAddr, CertFile: a.tlsCertFile, KeyFile: a.tlsKeyFile, Logger: httpLog,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { api.ServeHTTP(w, r) }),
	})
	if err != nil {
		return explain(err)
	}
	registry := newRegistry()
	node, err := cluster.Start(a.clusterConfig(log, registry, server.Addr()))
	if err != nil {
		return explain(err)
	}
	api = rpc.New(rpc.Config{Node: node, RootToken: a.rootToken, NoAuth: a.noAuth, Logger: httpLog, Metrics: registry})
	a.banner(log, server.Addr().String(), settings)
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()

	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.reload(log, api, server)
				continue
			}
			log.Info("stopping", "signal", s.String())
			return stop(ctx, log, node, server, signals)
		case err := <-served:
			node.Kill()
			return fmt.Errorf("serving HTTP: %w", err)
		case <-node.Done():
			_ = server.Shutdown(expired())
			return node.Err()
		}
	}
}

// stop ends in an order in which nobody is left without an answer. Another signal cuts it short.
func stop(ctx context.Context, log hclog.Logger, node *cluster.Node, server *rpc.Server, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		node.Drain(ctx)
		if err := server.Shutdown(ctx); err != nil {
			log.Warn("requests were cut off", "error", err)
		}
		done <- node.Shutdown(ctx)
	}()
	for first := time.Now(); ; {
		select {
		case err := <-done:
			if err == nil {
				log.Info("stopped")
			}
			return err
		case s := <-signals:
			if s != syscall.SIGHUP && time.Since(first) > echoWait {
				return &statusError{exitFailed, errors.New("a second signal: stopped at once")}
			}
		}
	}
}

// expired is a context that gives no time.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// explain adds what to do about the errors that operators meet when they start a node.
func explain(err error) error {
	taken := syscall.EADDRINUSE.Error() // in the text alone where it comes from gossip
	switch {
	case strings.Contains(err.Error(), taken):
		return fmt.Errorf("%w: another process listens there; stop it or give another address", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: this machine does not have that address", err)
	case errors.Is(err, cluster.ErrStorage) && errors.Is(err, syscall.ENOSPC): // full, but nothing is lost
		return &statusError{exitFailed, fmt.Errorf("%w: make room, or give another --data-dir", err)}
	}
	return err
}

// banner says in one record what this node is.
func (a *agent) banner(log hclog.Logger, addr string, settings []setting) {
	log.Info("started", "version", version, "name", a.name, "http", addr, "node", a.nodeAddr, "gossip", a.gossipAddr,
		"advertise", a.advertiseHost(), "dataDir", a.dataDir, "logStore", a.logStore, "timing", a.timing,
		"tls", a.tlsCertFile != "", "auth", !a.noAuth, "join", strings.Join(a.join, ","), "bootstrapExpect", a.bootstrapExpect)
	for _, s := range settings {
		log.Debug("set", "flag", s.name, "by", s.source)
	}
	if a.bootstrapExpect > 0 && a.bootstrapExpect%2 == 0 {
		log.Warn("an even number of voters survives no more failures than one less would", "bootstrapExpect", a.bootstrapExpect)
	}
	if a.tlsCertFile == "" && !loopback(a.httpAddr) {
		log.Warn("HTTP is beyond loopback without TLS: tokens can be read on the way, unless a proxy terminates TLS", "http", addr)
	}
}

// reload takes over what may change while the node runs: the log level, the root token that HTTP accepts, and the
// certificate. What can't be read stays as it was. The secret between nodes, which comes from the root token unless it has
// a file of its own, stays until a restart.
func (a *agent) reload(log hclog.Logger, api *rpc.API, server *rpc.Server) {
	if level, err := a.currentLogLevel(); err != nil {
		log.Error("the log level stays", "error", err)
	} else {
		log.SetLevel(hclog.LevelFromString(level))
	}
	if a.rootTokenFile != "" && !a.noAuth {
		if token, err := readSecret("root-token-file", a.rootTokenFile); err != nil {
			log.Error("the root token stays", "error", err)
		} else {
			api.SetRootToken(token)
		}
	}
	if err := server.Reload(); err != nil {
		log.Error("the TLS certificate stays", "error", err)
	}
	log.Info("read the log level, the root token's file and the certificate again; all else needs a restart", "logLevel", log.GetLevel().String())
}

// newRegistry takes this process's metrics, Raft's own among them.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	registerProcess(r)
	registerRaft(r)
	return r
}
