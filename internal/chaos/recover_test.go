package chaos

// This file is the part in which most nodes are lost for ever, and the cluster goes on from what one survivor has.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// recoveredProduct is that of the calls after the recovery: they are judged as a history of their own, on a log of its own.
const recoveredProduct = "recovered"

// epochsRaised is how far a recovery raises every epoch (docs/operations.md).
const epochsRaised = 1_000_000

// Three of five are lost for ever. One survivor is recovered: it has the state that its log had, raised, so that no lease of before is
// worth anything; the others are refused as they were, do no harm, and join with empty disks; what is called then is judged, too (F16).
func TestChaosRecovery(t *testing.T) {
	p := full(t)
	t.Parallel()
	r := Begin(t, "recovery", p.seed, Config{Nodes: 5, Timing: "local"}, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.sleep(2*time.Second, 2*time.Second+p.lasts(10*time.Second))
	lost := r.rnd.Perm(len(r.Nodes))
	var gone sync.WaitGroup
	for _, i := range lost[:3] {
		r.fault("lost for ever")
		gone.Go(r.Nodes[i].Kill)
	}
	gone.Wait()
	r.halt() // each client gives its call up in time
	for _, i := range lost[3:] {
		if status := r.Nodes[i].Stop(); status != 0 {
			t.Fatalf("%s, without a majority, ended with status %d: %s", r.Nodes[i].Name, status, r.Nodes[i].LastWords())
		}
	}

	// Before: by what all five had. No survivor need have every write that the lost ones acknowledged.
	survivor, best := r.survivors(lost[3:]), r.survivors(lost)
	r.take(best)
	before, _ := r.judge()
	all, _, _ := r.history.Counts()
	n := r.Nodes[survivor.node]
	stores, err := openLog(n.Dir)
	must(err)
	err = r.log.Agrees(stores.Log, stores.Snapshots, survivor.index)
	must(stores.Close())
	must(err)
	had, err := r.log.State(survivor.index)
	must(err)
	var held []*fleet.Lease
	jobs := map[string]*fleet.Job{}
	had.View(func(v fsm.View) {
		page, _ := v.Jobs(Product, fsm.JobFilter{}, 0, 1_000_000)
		for _, j := range page {
			jobs[j.ID] = j
			if l, _ := v.Lease(Product, j.ID); l.Status == fleet.LeaseHeld {
				held = append(held, l)
			}
		}
	})

	r.fault("recovered from one of two")
	var facts struct {
		Index, Term uint64
		HeldLeases  int
	}
	must(r.command(&facts, "recover", "--data-dir", n.Dir, "--dry-run", "-o", "json"))
	if facts.Index != survivor.index || facts.Term != survivor.term || facts.HeldLeases != len(held) {
		t.Fatalf("F16: %s says %+v, want index %d, term %d, %d leases", n.Name, facts, survivor.index, survivor.term, len(held))
	}
	var done struct {
		ClusterID  string
		Generation uint64
	}
	must(r.command(&done, "recover", "--data-dir", n.Dir, "--yes", "-o", "json"))
	has, err := snapshotOf(n.Dir)
	must(err)
	var founder fsm.Server
	has.View(func(v fsm.View) {
		for _, s := range v.Servers() {
			if !s.Removed {
				founder = s
			}
		}
		if v.Generation() != done.Generation || v.ClusterID() != done.ClusterID || done.Generation != 1 {
			t.Fatalf("F16: it has generation %d and id %s, and was said to have %+v", v.Generation(), v.ClusterID(), done)
		}
		for id, j := range jobs {
			now, ok := v.Job(Product, id)
			if !ok || now.BodyMd != j.BodyMd || now.LeaseEpoch != j.LeaseEpoch+epochsRaised || now.Version <= j.Version {
				t.Fatalf("F16: job %s was %+v and is %+v", id, j, now)
			}
			if l, _ := v.Lease(Product, id); l.Status == fleet.LeaseHeld {
				t.Fatalf("F16: job %s is still held", id)
			}
		}
	})
	raise, err := had.Refound(done.ClusterID, founder)
	must(err)
	var b bytes.Buffer
	_, _ = b.Write(raise.Front())
	_, err = had.Handle().WriteTo(&b)
	must(err)
	want := fsm.New()
	must(want.Restore(&b))
	if want.Hash() != has.Hash() {
		t.Fatal("F16: it recovered another state than that of its log")
	}

	// After: alone first, in a history of its own.
	r.renew(recoveredProduct)
	r.log.From(has, survivor.index)
	must(n.Start())
	if why := within(leaderWait, n.Unready); why != "" {
		t.Fatalf("F16: waited %s in vain until the recovered node is ready: %s; it said: %s", leaderWait, why, n.LastWords())
	}
	r.goOn()
	r.writeAfter(time.Now())
	client := newClient()
	defer client.CloseIdleConnections()
	for _, l := range held {
		a, err := r.try(client, survivor.node, &call{key: "old-" + l.JobID, command: &fsm.Renew{ProductID: Product, JobID: l.JobID, LeaseEpoch: l.LeaseEpoch, LeaseSeconds: 60}})
		if code(a, err) != string(fleet.StaleEpoch) {
			t.Fatalf("F16: renewing the lease of job %s from before the recovery: got %s, want %s", l.JobID, code(a, err), fleet.StaleEpoch)
		}
	}

	// Two of the old cluster come back as they were: not three, which would be the old cluster still.
	term, err := n.Gauge("fleet_raft_term")
	must(err)
	for _, i := range []int{lost[0], lost[1]} {
		r.fault("a lost one returns as it was")
		must(r.Nodes[i].Start())
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, i := range []int{lost[0], lost[1]} {
			if r.Nodes[i].Leads() || r.Nodes[i].Unready() == "" {
				t.Fatalf("F16: %s is back as it was, and ready", r.Nodes[i].Name)
			}
		}
	}
	r.writeAfter(time.Now())
	now, err := n.Gauge("fleet_raft_term")
	must(err)
	if s, err := n.Status(); err != nil || now != term || len(s.Nodes) != 1 {
		t.Fatalf("F16: the lost ones disturb: term %v and then %v, members %s, %v", term, now, r.members(), err)
	}
	for _, i := range []int{lost[0], lost[1]} {
		r.Nodes[i].Kill()
	}
	for _, i := range lost {
		if i != survivor.node {
			must(os.RemoveAll(r.Nodes[i].Dir))
			must(r.Nodes[i].Start())
		}
	}
	r.Ready(t, convergeWait)
	r.sleep(time.Second, time.Second+p.lasts(10*time.Second))
	r.fault("kill -9")
	r.Nodes[survivor.node].Kill() // what it had, the others have
	r.AwaitLeader(t, leaderWait, survivor.node)
	r.writeAfter(time.Now())
	write(t, fmt.Sprintf("recovery: %d calls before it judged; of %d entries the survivor had %d; %d jobs, %d held leases ended", all, before.Index(), survivor.index, len(jobs), len(held)))
	r.End()
}

// remains are what a stopped node has.
type remains struct {
	node        int
	term, index uint64
}

// survivors looks at data directories, and returns the one to recover: of the highest term, then index.
func (r *Run) survivors(nodes []int) (best remains) {
	r.t.Helper()
	for k, i := range nodes {
		s, err := cluster.OpenSurvivor(r.Nodes[i].Dir, hclog.NewNullLogger())
		if err != nil {
			r.t.Fatal(err)
		}
		has := remains{i, s.LastTerm, s.LastIndex}
		if err := s.Close(); err != nil {
			r.t.Fatal(err)
		}
		if k == 0 || cmp.Or(cmp.Compare(has.term, best.term), cmp.Compare(has.index, best.index)) > 0 {
			best = has
		}
	}
	return best
}

// take takes the log of a stopped node to its end.
func (r *Run) take(of remains) {
	r.t.Helper()
	s, err := openLog(r.Nodes[of.node].Dir)
	if err == nil {
		err = r.log.Gather(s.Log, s.Snapshots, of.index)
		_ = s.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// command runs the binary, and reads what it prints.
func (r *Run) command(into any, args ...string) error {
	path, err := binary()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"HOME=" + filepath.Clean(r.Dir)}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("fleet-node %s: %w: %s", args[0], err, out)
	}
	return json.Unmarshal(out, into)
}

// snapshotOf is the state in the only snapshot of a stopped node.
func snapshotOf(dir string) (*fsm.Machine, error) {
	s, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	all, err := s.Snapshots.List()
	if err != nil || len(all) != 1 {
		return nil, fmt.Errorf("%s has %d snapshots: %w", dir, len(all), err)
	}
	_, content, err := s.Snapshots.Open(all[0].ID)
	if err != nil {
		return nil, err
	}
	m := fsm.New()
	return m, m.Restore(content)
}
