package chaos

// This file is what a node takes of its machine, and what it may take when nobody calls it: I17, that nothing grows.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// footprint is what one process takes.
type footprint struct {
	goroutines, files int
	memory            int64 // bytes, resident
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %d MiB", f.goroutines, f.files, f.memory>>20)
}

func (f footprint) most(o footprint) footprint {
	return footprint{max(f.goroutines, o.goroutines), max(f.files, o.files), max(f.memory, o.memory)}
}

// idle is the most that a node takes when nobody calls it, in a cluster of so many, with so many files of a log, and so many bytes stored.
//
// A node alone has some 40 goroutines, and 20 files: its listeners, its stores, its standard streams. For each other one a follower has
// a connection or two, and a leader a loop that replicates, one that beats, a pipeline with its reader, and connections of its own for
// each: 6 goroutines and 4 files were seen; twice as much is room for those that raft and the forwarding of calls keep for the next one,
// after leadership was here and there. Callers may keep a few connections, of two goroutines each. The log has each of its segments open.
// The state is in memory, some times as large as it is stored, and the collector lets the heap double.
func idle(nodes, segments int, stored int64) footprint {
	return footprint{60 + 12*(nodes-1), 30 + 8*(nodes-1) + segments, 80<<20 + 8*stored}
}

// idle is the most that the node takes when nobody calls it.
func (n *Node) idle(nodes int) (footprint, error) {
	var stored int64
	segments, err := os.ReadDir(filepath.Join(n.Dir, "wal"))
	if err != nil {
		return footprint{}, err
	}
	err = filepath.Walk(n.Dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			stored += info.Size()
		}
		return nil // what was there a moment ago may be gone
	})
	return idle(nodes, len(segments), stored), err
}

// footprint reads what the node's process takes now.
func (n *Node) footprint() (f footprint, err error) {
	goroutines, err := n.Gauge("go_goroutines")
	if err != nil {
		return f, err
	}
	proc := fmt.Sprintf("/proc/%d", n.Pid())
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return f, err
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return f, err
	}
	_, resident, found := strings.Cut(string(status), "\nVmRSS:")
	if !found {
		return f, fmt.Errorf("%s/status has no VmRSS", proc)
	}
	var kib int64
	_, err = fmt.Sscan(resident, &kib)
	return footprint{int(goroutines), len(files), kib << 10}, err
}

// rests waits until no node takes more than one may when nobody calls it, and returns the most that any takes.
func (r *Run) rests() footprint {
	r.t.Helper()
	var all footprint
	if why := within(idleWait, func() string {
		all = footprint{}
		for _, n := range r.Nodes {
			f, err := n.footprint()
			limit, none := n.idle(len(r.Nodes))
			switch {
			case err != nil || none != nil:
				return fmt.Sprint(err, none)
			case f.most(limit) != limit:
				time.Sleep(100 * time.Millisecond)
				return fmt.Sprintf("%s has %s, and not at most %s", n.Name, f, limit)
			}
			all = all.most(f)
		}
		return ""
	}); why != "" {
		r.t.Fatalf("I17: waited %s in vain until nobody takes more than an idle node: %s", idleWait, why)
	}
	return all
}
