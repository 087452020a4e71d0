package cluster

// This file is what a node is told, and the places where reality can fail.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lysnrai/fleet/fsm"
)

// Timing is a profile of Raft's time-outs.
type Timing string

// The profiles: heartbeat = election time-out of 250 ms, 500 ms and 2 s, the leader's lease half of it.
const (
	TimingLocal Timing = "local"
	TimingLAN   Timing = "lan"
	TimingWAN   Timing = "wan"
)

// Config is what a node is told. A field's zero is sound unless it says otherwise.
type Config struct {
	// Name is the node's label, unique in the cluster and fixed for a data directory. Required.
	Name string
	// DataDir is where everything durable lives; it is made if it is missing. Required.
	DataDir string
	// HTTPAddr is the address other nodes tell clients about, as host:port. It is only announced.
	HTTPAddr string
	// NodeAddr and GossipAddr are host:port to listen on. Required.
	NodeAddr, GossipAddr string
	// AdvertiseAddr is the host that the others dial, a DNS name where addresses move. Default: the host of NodeAddr.
	AdvertiseAddr string
	// Join lists gossip addresses of the cluster, this node's own allowed.
	Join []string
	// BootstrapExpect is how many empty nodes form a new cluster. Zero: wait to be joined.
	BootstrapExpect int
	// Secret is what every node of the cluster shares; the node port's keys and the gossip key derive from it. Required.
	Secret []byte
	// GossipKey, if not nil, replaces the derived gossip key (16, 24 or 32 bytes).
	GossipKey []byte
	// LogStore keeps the log: "wal" (default) or "boltdb".
	LogStore string
	// SegmentBytes is the size of a wal segment. Zero means 64 MiB, with TimingLocal 4 MiB.
	SegmentBytes int
	// Timing is the profile of time-outs. Empty means TimingLAN.
	Timing Timing
	// Retention is how long a job that has ended is kept. Zero means 30 days.
	Retention time.Duration
	// SnapshotBytes is how much log is written before a snapshot. Zero means 64 MiB (or half the last snapshot, if that is more).
	SnapshotBytes int64
	// Version is this build's, shown in the cluster's status.
	Version string
	// MaxLevel is the newest level that the node says it knows, and refuses to go beyond. Zero means all that this build knows; less is
	// how tests run a node of an older release.
	MaxLevel int
	// HashVersion says how the node's hashes of its state are made. Zero means this build's; another is how tests run a node of another
	// release.
	HashVersion uint64
	// Logger takes all logs. Nil: none.
	Logger hclog.Logger
	// Metrics, if not nil, takes the node's metrics.
	Metrics prometheus.Registerer

	// Network, Storage, Clock and Disk are where reality can fail; nil is the real thing.
	Network Network
	Storage Storage
	Clock   Clock
	Disk    Disk
}

// Network is how nodes reach each other. All methods may be called at once.
type Network interface {
	// Listen listens for streams on the node port.
	Listen(addr string) (net.Listener, error)
	// Dial opens a stream to another node's port. It gives up with ctx.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// Gossip is the memberlist transport for an address; nil with a nil error means memberlist's own UDP and TCP.
	Gossip(addr string) (memberlist.Transport, error)
}

// Storage opens what is durable in a data directory. Every method of what it returns is durable when it returns, and may fail: any
// failure ends the node.
type Storage interface {
	// Open opens the log, the stable store and the snapshots. The node calls Close when it is done.
	Open(cfg *Config) (Stores, error)
}

// Stores is what a node keeps.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error

	tail logTail // what the log held when it was opened
}

// Clock is a node's wall clock. How long things take is measured by time.Now, which does not jump.
type Clock interface {
	Now() time.Time
}

// Disk is where the data directory is.
type Disk interface {
	// Free is how many bytes can still be written.
	Free() (uint64, error)
}

// withDefaults fills zeros and refuses nonsense, naming the field.
func (cfg Config) withDefaults() (Config, error) {
	for _, f := range []struct{ name, value string }{{"Name", cfg.Name}, {"DataDir", cfg.DataDir}, {"NodeAddr", cfg.NodeAddr}, {"GossipAddr", cfg.GossipAddr}} {
		if f.value == "" {
			return cfg, fmt.Errorf("cluster: Config.%s is required", f.name)
		}
	}
	if len(cfg.Secret) == 0 {
		return cfg, errors.New("cluster: Config.Secret is required: every node of a cluster has the same")
	}
	if cfg.BootstrapExpect < 0 {
		return cfg, errors.New("cluster: Config.BootstrapExpect can't be negative")
	}
	if cfg.MaxLevel == 0 {
		cfg.MaxLevel = fsm.MaxLevel
	}
	if cfg.MaxLevel < 1 || cfg.MaxLevel > fsm.MaxLevel {
		return cfg, fmt.Errorf("cluster: Config.MaxLevel is %d; this build knows levels 1 to %d", cfg.MaxLevel, fsm.MaxLevel)
	}
	cfg.HashVersion = cmp.Or(cfg.HashVersion, fsm.HashVersion)
	switch cfg.Timing {
	case "":
		cfg.Timing = TimingLAN
	case TimingLocal, TimingLAN, TimingWAN:
	default:
		return cfg, fmt.Errorf("cluster: Config.Timing is %q; it is one of local, lan, wan", cfg.Timing)
	}
	switch cfg.LogStore {
	case "":
		cfg.LogStore = "wal"
	case "wal", "boltdb":
	default:
		return cfg, fmt.Errorf("cluster: Config.LogStore is %q; it is wal or boltdb", cfg.LogStore)
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = 64 << 20
		if cfg.Timing == TimingLocal { // segments are allocated whole, and a small machine may run three nodes
			cfg.SegmentBytes = 4 << 20
		}
	}
	if cfg.Retention == 0 {
		cfg.Retention = 30 * 24 * time.Hour
	}
	if cfg.SnapshotBytes == 0 {
		cfg.SnapshotBytes = 64 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Network == nil {
		cfg.Network = realNetwork{}
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.Disk == nil {
		cfg.Disk = statfs{cfg.DataDir}
	}
	return cfg, nil
}

// systemClock is this machine's.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
