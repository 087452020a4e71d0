package cluster

// This file tests that a lost cluster goes on from one survivor, or stays what it was, wherever the recovery is interrupted.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// survivorDir is the data directory of a node that was alone, with one job that is held, and is stopped.
func survivorDir(t *testing.T) (dir string, cfg Config) {
	t.Helper()
	cfg = Config{
		Name: "n1", NodeAddr: "n1:8401", GossipAddr: "n1:8402", HTTPAddr: "n1:8400", DataDir: filepath.Join(t.TempDir(), "n1"),
		BootstrapExpect: 1, Secret: []byte("s"), Timing: TimingLocal, SegmentBytes: 1 << 20,
	}
	n := startAlone(t, cfg)
	submitTo(t, n, "held")
	for _, c := range []fsm.Command{
		&fsm.Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f", Health: fleet.HealthOK}},
		&fsm.Claim{ProductID: "p", FactoryID: "f", LeaseSeconds: 600},
	} {
		if a, err := n.Propose(t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: c}); err != nil || a.Err != nil {
			t.Fatalf("%T: %v, %v", c, err, a.Err)
		}
	}
	n.Kill()
	return cfg.DataDir, cfg
}

// startAlone starts a node over its real disk, and waits until it leads.
func startAlone(t *testing.T, cfg Config) *Node {
	t.Helper()
	cfg.Network = NewMemoryNetwork().Host(cfg.Name)
	n, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	eventually(t, "it leads", n.IsLeader)
	return n
}

func openSurvivor(t *testing.T, dir string) *Survivor {
	t.Helper()
	s, err := OpenSurvivor(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecoverOneSurvivor(t *testing.T) { inVirtualTime(t, recoverOneSurvivor) }

func recoverOneSurvivor(t *testing.T) {
	dir, cfg := survivorDir(t)
	s := openSurvivor(t, dir)
	if s.Name != "n1" || s.ClusterID == "" || s.LastIndex == 0 || s.LastTerm == 0 || !s.Voter || len(s.Members) != 1 {
		t.Errorf("the survivor is %+v", s)
	}
	s.View(func(v fsm.View) {
		if l, _ := v.Lease("p", "held"); l == nil || l.LeaseEpoch != 1 || l.HolderFactoryID != "f" {
			t.Errorf("the survivor's lease is %+v", l)
		}
	})
	old, index := s.ClusterID, s.LastIndex
	if _, err := OpenSurvivor(dir, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("opening it twice: %v", err)
	}
	r, err := s.Recover()
	if err != nil {
		t.Fatal(err)
	}
	if r.ClusterID == old || r.Generation != 1 {
		t.Errorf("recovered as %+v, was cluster %s", r, old)
	}
	if before, err := decodeIdentityFile(filepath.Join(r.Kept, identityName)); err != nil || before.ClusterID != old {
		t.Errorf("what was there is %+v, %v", before, err)
	}

	n := startAlone(t, cfg)
	defer n.Kill()
	n.View(func(v fsm.View) {
		job, _ := v.Job("p", "held")
		if v.ClusterID() != r.ClusterID || v.Index() <= index || job == nil || job.Stage != fleet.Queued || job.LeaseEpoch != 1_000_001 {
			t.Errorf("cluster %s is at index %d, the job is %+v", v.ClusterID(), v.Index(), job)
		}
		for _, s := range v.Servers() {
			if s.Removed == (s.ID == n.id) || s.ID == n.id && s.Name != "n1" {
				t.Errorf("server %s has the row %+v", n.id, s)
			}
		}
	})
	epoch := uint64(1)
	p := fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: &fsm.Patch{ProductID: "p", JobID: "held", Report: fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Shipped}}}
	if a, err := n.Propose(t.Context(), p); err != nil || a.Err == nil || a.Err.Code != fleet.StaleEpoch {
		t.Errorf("who held the job before: %v, %v, want %s", err, a.Err, fleet.StaleEpoch)
	}
}

func decodeIdentityFile(path string) (identity, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return identity{}, err
	}
	return decodeIdentity(raw)
}

// Wherever a recovery is interrupted, the directory is the old node's or the new one's, whole.
func TestRecoveryInterrupted(t *testing.T) { inVirtualTime(t, recoveryInterrupted) }

func recoveryInterrupted(t *testing.T) {
	dir, cfg := survivorDir(t)
	before, err := decodeIdentityFile(filepath.Join(dir, identityName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { rename = os.Rename }()
	cut := errors.New("interrupted")
	for at := 1; ; at++ {
		copied := filepath.Join(t.TempDir(), "n1")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		calls := 0
		rename = func(from, to string) error {
			if calls++; calls == at {
				return cut
			}
			return os.Rename(from, to)
		}
		_, err := openSurvivor(t, copied).Recover()
		rename = os.Rename
		if err == nil {
			if at < 6 {
				t.Errorf("a recovery has %d steps", at-1)
			}
			return
		}
		if !errors.Is(err, cut) {
			t.Fatalf("step %d: %v", at, err)
		}
		again := cfg
		again.DataDir = copied
		n := startAlone(t, again)
		n.View(func(v fsm.View) {
			job, _ := v.Job("p", "held")
			switch recovered := n.id != before.ServerID; {
			case job == nil:
				t.Errorf("step %d: the job is lost", at)
			case recovered != (v.ClusterID() != before.ClusterID), recovered != (job.LeaseEpoch > 1_000_000), recovered != (at > 1):
				t.Errorf("step %d: server %s of cluster %s with epoch %d, was %s of %s", at, n.id, v.ClusterID(), job.LeaseEpoch, before.ServerID, before.ClusterID)
			}
		})
		n.Kill()
		if left, _ := filepath.Glob(filepath.Join(copied, "recovering*")); at > 1 && len(left) > 0 {
			t.Errorf("step %d: left %v", at, left)
		}
	}
}

func TestNothingToRecover(t *testing.T) {
	for name, dir := range map[string]string{"is no data directory": t.TempDir(), "never was in a cluster": filepath.Join(t.TempDir(), "new")} {
		if strings.HasPrefix(name, "never") {
			d, err := openDataDir(dir, "n1")
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenSurvivor(dir, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want one that says that it %s", err, name)
		}
	}
}
