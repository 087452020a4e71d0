package rpc

// This file is what the API is made of, and what it needs of a node.

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// Node is what the API asks of its node; *cluster.Node is one. All methods may be called at once.
type Node interface {
	Propose(ctx context.Context, p fsm.Proposal) (fsm.Answer, error)
	Claim(ctx context.Context, p fsm.Proposal, wait time.Duration) (fsm.Answer, error)
	Read(ctx context.Context, c cluster.Consistency, minIndex uint64, fn func(fsm.View)) error
	View(fn func(fsm.View))
	FeedChanged(product string) <-chan struct{}
	Name() string
	Leader() string
	Now() fleet.Time
	Draining() <-chan struct{}
	Ready() error
	Status(ctx context.Context) (*fleet.ClusterStatus, error)
	Remove(ctx context.Context, name string) error
	TransferLeadership(ctx context.Context, to string) error
	WriteSnapshot(ctx context.Context, w io.Writer) error
	Restore(ctx context.Context, backup io.Reader, more uint64) (*fleet.RestoreResult, error)
}

// Config is what the API is told. A field's zero is sound unless it says otherwise.
type Config struct {
	// Node is where commands and reads go. Required.
	Node Node
	// RootToken is the secret that may do all. Empty: there is none.
	RootToken []byte
	// NoAuth lets everybody in as "anonymous", who may do all. Only for a node that listens on loopback alone.
	NoAuth bool
	// Logger takes all logs. Nil: none.
	Logger hclog.Logger
	// Metrics takes the API's metrics and is what /metrics shows. Nil: a registry of its own.
	Metrics *prometheus.Registry
}

// API answers HTTP requests. All methods may be called at once.
type API struct {
	node     Node
	rootHash atomic.Pointer[[sha256.Size]byte] // nil: no root token
	noAuth   bool
	log      hclog.Logger
	metrics  *metrics
	router   *mux.Router
	ids      *idSource
	frames   *frames
}

// New makes the API of a node.
func New(cfg Config) *API {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	a := &API{node: cfg.Node, noAuth: cfg.NoAuth, log: cfg.Logger, ids: newIDSource(), frames: newFrames()}
	a.SetRootToken(cfg.RootToken)
	a.metrics = newMetrics(cfg.Node, cfg.Metrics)
	a.router = a.newRouter()
	return a
}

// SetRootToken replaces the secret that may do all, for every call from now on. Empty: there is none.
func (a *API) SetRootToken(secret []byte) {
	if len(secret) == 0 {
		a.rootHash.Store(nil)
		return
	}
	hash := sha256.Sum256(secret)
	a.rootHash.Store(&hash)
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limitWrite(w)
	limitRead(w, r)
	a.router.ServeHTTP(w, r)
}
