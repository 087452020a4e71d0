package main

// This file takes the whole state out of a cluster as one file, says what is in such a file, and puts it back.

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/rpc"
	"github.com/lysnrai/fleet/rpc/client"
)

func newSnapshot() *cobra.Command {
	return group("snapshot", "Take the whole state out of a cluster, or put it back", groupOperate, newSnapshotSave(), newSnapshotInspect(), newSnapshotRestore())
}

func newSnapshotSave() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "save FILE",
		Short:   "Save the whole state as a file, verified before it has its name",
		Example: "  fleet-node snapshot save fleet.snapshot\n  fleet-node snapshot save backup/fleet.snapshot -o json",
		Args:    takes("a file"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			s, err := saveSnapshot(ctx, cl, args[0])
			if err != nil {
				return err
			}
			return s.show(c, &o)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

// saveSnapshot downloads into a file beside the one that is wanted, verifies it, and only then gives it its name.
func saveSnapshot(ctx context.Context, cl *client.Client, path string) (_ *snapshotFacts, err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // it has mode 0600: tokens' hashes are in it
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	defer temp.Close()
	stream, err := cl.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if _, err := io.Copy(temp, stream); err != nil {
		return nil, fmt.Errorf("the snapshot did not come whole; try again: %w", err)
	}
	if err := temp.Sync(); err != nil {
		return nil, err
	}
	facts, err := inspect(temp.Name())
	if err != nil {
		return nil, err
	}
	facts.File = path
	return facts, os.Rename(temp.Name(), path)
}

func newSnapshotInspect() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Verify a snapshot to its last byte and say what is in it; this needs no cluster",
		Example: "  fleet-node snapshot inspect fleet.snapshot\n  fleet-node snapshot inspect fleet.snapshot -o json",
		Args:    takes("a file"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := inspect(args[0])
			if err != nil {
				return err
			}
			return s.show(c, &o)
		},
	}
	o.flags(c)
	return c
}

func newSnapshotRestore() *cobra.Command {
	var n connection
	var o output
	var yes bool
	var raise uint64
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the whole state of a cluster by a snapshot; every lease ends, and no old epoch is ever valid again",
		Example: "  fleet-node snapshot restore fleet.snapshot\n  fleet-node snapshot restore fleet.snapshot --yes -o json\n" +
			"  fleet-node snapshot restore fleet.snapshot --yes --raise 1",
		Args: takes("a file"),
		RunE: func(c *cobra.Command, args []string) error {
			if raise > rpc.MaxRaise {
				return usagef("--raise is at most %d", rpc.MaxRaise)
			}
			what := "replace the whole state of the cluster by " + args[0]
			if err := askable(c, yes, what); err != nil {
				return err
			}
			facts, err := inspect(args[0])
			if err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			if err := showLoss(ctx, c, cl, facts); err != nil {
				return err
			}
			if err := confirm(c, yes, what); err != nil {
				return err
			}
			r, err := cl.Restore(ctx, func() (io.ReadCloser, error) { return os.Open(args[0]) }, facts.Bytes, raise)
			if err != nil {
				return err
			}
			return showRestored(c, &o, r)
		},
	}
	n.flags(c)
	o.flags(c)
	yesFlag(c, &yes)
	c.Flags().Uint64Var(&raise, "raise", 0, "added to the generation: 1 for the second of two fresh clusters that are given one file")
	return c
}

// showLoss says what a restore takes away: all that the cluster has and the file has not.
func showLoss(ctx context.Context, c *cobra.Command, cl *client.Client, facts *snapshotFacts) error {
	status, err := cl.ClusterStatus(ctx)
	if err != nil {
		return err
	}
	tokens, err := cl.Tokens(ctx)
	if err != nil {
		return err
	}
	jobs := int64(0)
	for _, stage := range facts.Stages {
		jobs += stage
	}
	c.PrintErrf("cluster %s is at index %d with %d tokens; the file has %d jobs as they were at index %d, %s\n",
		status.ClusterID, status.Index, len(tokens), jobs, facts.Index, facts.At)
	c.PrintErrln("lost are all jobs, changes, profiles and tokens since then, in every product; every held lease ends and its job is queued again")
	return nil
}

func showRestored(c *cobra.Command, o *output, r *fleet.RestoreResult) error {
	switch {
	case o.json():
		return o.value(c, r)
	case o.quiet:
		return o.ids(c, strconv.FormatUint(r.Generation, 10))
	}
	pairs := []string{"index", strconv.FormatUint(r.Index, 10), "generation", strconv.FormatUint(r.Generation, 10)}
	for _, t := range r.Tokens {
		pairs = append(pairs, "token", strings.TrimSpace(t.ID+" "+t.Name))
	}
	return fields(c.OutOrStdout(), pairs...)
}

// snapshotFacts are what a snapshot is, and how much is in it.
type snapshotFacts struct {
	File   string           `json:"file"`
	Index  uint64           `json:"index"`
	At     fleet.Time       `json:"at"`
	Bytes  int64            `json:"bytes"`
	SHA256 string           `json:"sha256"`
	Stages map[string]int64 `json:"stages"`
}

// inspect reads a snapshot as a node would.
func inspect(path string) (*snapshotFacts, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	counted := &counter{r: bufio.NewReader(f), sum: sha256.New()}
	m := fsm.New()
	if err := m.Restore(counted); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	facts := &snapshotFacts{File: path, Index: m.Index(), At: m.Now(), Bytes: counted.n, SHA256: hex.EncodeToString(counted.sum.Sum(nil)), Stages: map[string]int64{}}
	m.View(func(v fsm.View) {
		for i, n := range v.Totals(m.Now()).Jobs {
			if n > 0 {
				facts.Stages[string(fleet.Stages[i])] = n
			}
		}
	})
	return facts, nil
}

// counter knows how far a file was read, and the hash so far.
type counter struct {
	r   io.Reader
	sum hash.Hash
	n   int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.sum.Write(b[:n])
	c.n += int64(n)
	return n, err
}

func (s *snapshotFacts) show(c *cobra.Command, o *output) error {
	switch {
	case o.json():
		return o.value(c, s)
	case o.quiet:
		return o.ids(c, s.SHA256)
	}
	pairs := []string{"file", s.File, "index", strconv.FormatUint(s.Index, 10), "at", s.At.String(), "bytes", strconv.FormatInt(s.Bytes, 10), "sha256", s.SHA256}
	for _, stage := range fleet.Stages {
		if n := s.Stages[string(stage)]; n > 0 {
			pairs = append(pairs, string(stage), strconv.FormatInt(n, 10))
		}
	}
	return fields(c.OutOrStdout(), pairs...)
}
