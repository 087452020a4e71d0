package main

// This file is the load generator: what it is asked for, and how it says what it measured.

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/bench"
	"github.com/lysnrai/fleet/internal/nearest"
	"github.com/lysnrai/fleet/rpc/client"
)

const (
	defaultBenchClients  = 16
	defaultBenchDuration = 10 * time.Second
	defaultClaimBacklog  = 10_000 // of a load that only claims
)

type benchCommand struct {
	connection
	output
	claims   bool
	clients  int
	size     int
	backlog  int
	batch    int
	stages   []string
	duration time.Duration
	count    int64
}

func newBench() *cobra.Command {
	var b benchCommand
	c := &cobra.Command{
		Use:     "bench [KIND]",
		Short:   "Load a running cluster and measure it",
		GroupID: groupOperate,
		Long: "bench lets clients do one thing over and over, each as soon as its last call is answered, and says how long it took:\n\n" +
			"  cycle      submit a job, claim one, report it through its stages (the default)\n" +
			"  submit     submit jobs\n" +
			"  claim      claim what --backlog queued\n" +
			"  heartbeat  send the heartbeat of a factory each\n" +
			"  feed       follow the product's events, while one client submits\n" +
			"  batch      as cycle, with many jobs a call\n\n" +
			"It works in a product of its own with a name that nobody has, whatever FLEET_PRODUCT says, and leaves no unfinished job\n" +
			"there. With --product it works in that one, which must have no unfinished jobs and no factories. The clients are spread\n" +
			"over the nodes of --addr. It ends with 1 if a call failed. docs/operations.md says what is counted.",
		Example: "  fleet-node bench --clients 4 --count 100\n  fleet-node bench batch --clients 2 --count 20 -o json\n  fleet-node bench feed --clients 3 --duration 1s",
		Args:    takesAtMost("a kind of load"),
		RunE:    b.run,
	}
	b.connection.flags(c)
	b.output.flags(c)
	f := c.Flags()
	f.BoolVar(&b.claims, "claims", false, "the kind claim")
	f.IntVar(&b.clients, "clients", defaultBenchClients, "clients that call at once")
	f.IntVar(&b.size, "size", 1024, "bytes of a job's body")
	f.IntVar(&b.backlog, "backlog", 0, fmt.Sprintf("jobs that are queued before the load starts (of claim: --count, or %d)", defaultClaimBacklog))
	f.IntVar(&b.batch, "batch", 16, "jobs of a call, for batch")
	f.StringSliceVar(&b.stages, "stages", []string{"building", "review", "testing", "shipped"}, "stages that a job is reported through, for cycle")
	f.DurationVar(&b.duration, "duration", defaultBenchDuration, "how long the load lasts")
	f.Int64Var(&b.count, "count", 0, "how often all clients together do it (0: as often as --duration lasts); alone it is the only end")
	c.ValidArgs = kindNames()
	_ = c.RegisterFlagCompletionFunc("stages", cobra.FixedCompletions(stageNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func kindNames() (names []string) {
	for _, k := range bench.Kinds {
		names = append(names, string(k))
	}
	return names
}

func (b *benchCommand) run(c *cobra.Command, args []string) error {
	config, err := b.load(c, args)
	if err != nil {
		return err
	}
	own := b.product == "" // a product that the environment names is for work
	if err := b.connect(config); err != nil {
		return err
	}
	ctx, stop := interruptible(c.Context())
	defer stop()
	talk := newProgress(c.ErrOrStderr())
	config.Progress = talk.passing
	result, err := bench.Run(ctx, *config)
	talk.passing("")
	if result != nil {
		if showErr := b.show(c, result); showErr != nil {
			return errors.Join(err, showErr)
		}
	}
	if own && errors.Is(err, fleet.Forbidden) {
		return fmt.Errorf("%w (the load needs the roles submitter and factory; if the token is for some products only, name one that nobody uses with --product)", err)
	}
	if err == nil && result.Errors > 0 {
		return failures(result)
	}
	return err
}

// load is what is to be done, checked.
func (b *benchCommand) load(c *cobra.Command, args []string) (*bench.Config, error) {
	kind := bench.Cycle
	if len(args) == 1 {
		kind = bench.Kind(args[0])
	}
	f := c.Flags()
	if b.claims {
		if len(args) == 1 && kind != bench.Claim {
			return nil, usagef("--claims and %s don't go together", kind)
		}
		kind = bench.Claim
	}
	if !slices.Contains(bench.Kinds[:], kind) {
		hint := nearest.Hint(string(kind), kindNames())
		if hint == "" {
			hint = "; there are " + strings.Join(kindNames(), ", ")
		}
		return nil, usagef("there is no load %q%s", kind, hint)
	}
	for _, only := range []struct {
		flag string
		kind bench.Kind
	}{{"batch", bench.Batch}, {"stages", bench.Cycle}} {
		if f.Changed(only.flag) && kind != only.kind {
			return nil, usagef("--%s is for %s, not for %s", only.flag, only.kind, kind)
		}
	}
	stages, err := path(b.stages)
	perCall := bench.PerCall(b.size)
	switch {
	case err != nil:
		return nil, err
	case b.clients < 1:
		return nil, usagef("--clients must be at least 1")
	case b.size < 1 || b.size > bench.MaxSize:
		return nil, usagef("--size must be from 1 to %d: a job's body is not empty, and fits into a call", bench.MaxSize)
	case b.backlog < 0:
		return nil, usagef("--backlog can't be negative")
	case kind == bench.Batch && (b.batch < 1 || b.batch > perCall):
		return nil, usagef("--batch must be from 1 to %d with bodies of %d bytes", perCall, b.size)
	case b.count < 0:
		return nil, usagef("--count can't be negative")
	case b.duration <= 0:
		return nil, usagef("--duration must be more than 0s")
	}
	if b.count > 0 && !f.Changed("duration") {
		b.duration = 0
	}
	if kind == bench.Claim && !f.Changed("backlog") {
		b.backlog = defaultClaimBacklog
		if b.count > 0 {
			b.backlog = int(min(b.count, math.MaxInt))
		}
	}
	return &bench.Config{
		Kind: kind, Name: "bench-" + strings.ToLower(rand.Text()[:8]), Size: b.size, Backlog: b.backlog, Batch: b.batch, Stages: stages,
		Duration: b.duration, Count: b.count,
	}, nil
}

// path is the stages of a job that is claimed, in their order, with shipped as the last.
func path(names []string) ([]fleet.Stage, error) {
	stages := make([]fleet.Stage, len(names))
	for i, name := range names {
		stages[i] = fleet.Stage(name)
		if stages[i].Index() < 0 {
			return nil, usagef("there is no stage %q%s", name, nearest.Hint(name, stageNames()))
		}
		rises := i == 0 && stages[i].Index() > fleet.Assigned.Index() || i > 0 && stages[i].Index() > stages[i-1].Index()
		if !rises || (stages[i] == fleet.Shipped) != (i == len(names)-1) || stages[i].Index() > fleet.Shipped.Index() {
			return nil, usagef("--stages is some of building, review and testing, in this order, and shipped as the last, not %q", strings.Join(names, ","))
		}
	}
	if len(stages) == 0 {
		return nil, usagef("--stages must end with shipped")
	}
	return stages, nil
}

// connect makes the clients: each begins with another node, and they share as many connections as there are clients.
func (b *benchCommand) connect(to *bench.Config) error {
	product := b.product
	config, err := b.config()
	if err != nil {
		return err
	}
	if config.Product = product; product == "" {
		config.Product = to.Name
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if config.HTTPClient != nil {
		transport = config.HTTPClient.Transport.(*http.Transport)
	}
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, b.clients+1
	config.HTTPClient = &http.Client{Transport: transport}
	to.HTTP = config.HTTPClient
	addresses := config.Addresses
	for i := range b.clients {
		if len(addresses) > 0 {
			first := i % len(addresses)
			config.Addresses = append(slices.Clone(addresses[first:]), addresses[:first]...)
		}
		cl, err := client.New(config)
		if err != nil {
			return usagef("%v", err)
		}
		to.Clients = append(to.Clients, cl)
	}
	return nil
}

// failures says how many calls failed, and why the first one did.
func failures(r *bench.Result) error {
	var total int64
	first := ""
	for _, o := range r.Operations {
		total += o.Count + o.Errors
		if first == "" && o.FirstError != "" {
			first = o.Name + ": " + o.FirstError
		}
	}
	return fmt.Errorf("%d of %d failed; the first was %s", r.Errors, total, first)
}

func (b *benchCommand) show(c *cobra.Command, r *bench.Result) error {
	switch {
	case b.json():
		return b.value(c, r)
	case b.quiet:
		return b.ids(c, r.Product)
	}
	w := c.OutOrStdout()
	batch, jobs := "", ""
	if r.Batch > 0 {
		batch = strconv.Itoa(r.Batch)
	}
	if r.Kind != bench.Heartbeat {
		jobs = fmt.Sprintf("%d, %.0f/s", r.Jobs, r.JobsPerSecond)
	}
	err := fields(w, "load", string(r.Kind), "product", r.Product, "clients", strconv.Itoa(r.Clients), "size", fmt.Sprintf("%d B", r.SizeBytes),
		"backlog", strconv.Itoa(r.Backlog), "batch", batch, "elapsed", tenths(time.Duration(r.ElapsedSeconds*float64(time.Second))), "jobs", jobs)
	if err != nil {
		return err
	}
	rows := [][]string{{"OPERATION", "COUNT", "ERRORS", "RATE", "P50", "P99", "MAX", "LONGEST GAP"}}
	for _, o := range r.Operations {
		row := []string{o.Name, strconv.FormatInt(o.Count, 10), strconv.FormatInt(o.Errors, 10), "", "", "", "", ""}
		if o.Count > 0 {
			copy(row[3:], []string{
				fmt.Sprintf("%.0f/s", o.PerSecond), millis(o.P50Seconds), millis(o.P99Seconds), millis(o.MaxSeconds), millis(o.GapSeconds),
			})
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	if err := columns(w, rows); err != nil {
		return err
	}
	if r.Cluster == nil {
		c.PrintErrln("the cluster's shape is not shown: that needs a token with the role admin")
		return nil
	}
	rows = [][]string{{"NODE", "ROLE", "VOTER", "VERSION", "ADDRESS", "FSYNCS", "FSYNC P50", "FSYNC P99"}}
	for _, n := range r.Cluster.Nodes {
		row := []string{n.Name, n.State, strconv.FormatBool(n.Voter), n.Version, n.HTTPAddr, "", "", ""}
		if n.Fsync != nil {
			copy(row[5:], []string{strconv.FormatInt(n.Fsync.Count, 10), millis(n.Fsync.P50Seconds), millis(n.Fsync.P99Seconds)})
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	return columns(w, rows)
}

// millis is seconds as milliseconds, finer the fewer there are.
func millis(seconds float64) string {
	switch ms := seconds * 1000; {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}
