package worker

// This file is what a factory is told, and the loop in which it claims.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// What Run ends with, beside nil and what the cluster refuses.
var (
	// ErrNothing: Once was asked for, and nothing was eligible.
	ErrNothing = errors.New("there is nothing to claim")
	// ErrKilled: a third signal ended the factory at once.
	ErrKilled = errors.New("killed while jobs were running")
)

// Drain says what becomes of running jobs when the factory is told to stop.
type Drain string

// Running jobs finish, or are stopped and released.
const (
	DrainWait    Drain = "wait"
	DrainRelease Drain = "release"
)

// Config is a factory. Client, FactoryID, and one of Command and Handler are needed.
type Config struct {
	Client       *client.Client
	FactoryID    string
	Descriptor   fleet.JSON // an object; empty: left as it is
	Capabilities []string
	Engines      []string

	// Seats is how many jobs run at once. Zero: 1.
	Seats int
	// Lease is how long a lease lasts unless it is renewed, which is done at a third of it, in whole seconds. Zero: 60 s.
	Lease time.Duration
	// Grace is what a command has between SIGTERM and SIGKILL, never beyond its lease. Zero: 30 s; negative: none.
	Grace time.Duration
	// Wait is how long one request waits for a job. Zero: 20 s.
	Wait time.Duration
	// Drain is what a first signal does to running jobs. Empty: DrainWait.
	Drain Drain
	// Once ends Run after one job, or with ErrNothing.
	Once bool
	// IdleExit ends Run, without an error, when there was nothing to do for so long. Zero: never.
	IdleExit time.Duration

	// Handler works on a job in this process, Command in one of its own. Command is the program and its arguments.
	Handler Handler
	Command []string

	// Of commands only.
	Cwd            string // where it runs. Empty: here
	Hooks          string // a directory with the executables pre-job and post-job, or one of them
	Keep           bool   // keep the run's directory
	StdinBody      bool   // bodyMd is its standard input
	PassToken      string // its FLEET_TOKEN. Empty: none
	LogURITemplate string // where its log can be found later, with {jobId} {runId} {factoryId} {file}

	// Output takes the commands' output, line by line. Nil: nowhere.
	Output io.Writer
	// Log takes what the factory does. Nil: nowhere.
	Log hclog.Logger
	// Signals stop the factory, whichever they are: the first drains, the second stops and releases what runs, the third
	// kills it.
	Signals <-chan os.Signal

	look time.Duration // how often the files of a command are looked at
}

// withDefaults fills in zeros and refuses what can't be meant.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Client == nil:
		return c, errors.New("a factory needs a Client")
	case c.FactoryID == "":
		return c, errors.New("a factory needs a FactoryID")
	case (len(c.Command) > 0) == (c.Handler != nil):
		return c, errors.New("a factory needs a Command or a Handler, and not both")
	case c.Seats < 0 || c.Seats > fleet.MaxSeats:
		return c, fmt.Errorf("Seats is %d, want 1 to %d", c.Seats, fleet.MaxSeats)
	case c.Drain != "" && c.Drain != DrainWait && c.Drain != DrainRelease:
		return c, fmt.Errorf("Drain is %q, want %s or %s", c.Drain, DrainWait, DrainRelease)
	case c.Lease < 0 || c.Lease%time.Second != 0 || c.Lease > fleet.MaxLeaseSeconds*time.Second:
		return c, fmt.Errorf("Lease is %v, want whole seconds from 1 s to %d s", c.Lease, fleet.MaxLeaseSeconds)
	case c.Wait < 0 || c.Wait > fleet.MaxWaitSeconds*time.Second:
		return c, fmt.Errorf("Wait is %v, want up to %d s", c.Wait, fleet.MaxWaitSeconds)
	case c.IdleExit < 0:
		return c, fmt.Errorf("IdleExit is %v, want 0 or more", c.IdleExit)
	}
	if c.Hooks != "" {
		if st, err := os.Stat(c.Hooks); err != nil || !st.IsDir() {
			return c, fmt.Errorf("Hooks is %q, want a directory with the executables pre-job and post-job", c.Hooks)
		}
	}
	if c.Seats == 0 {
		c.Seats = fleet.DefaultSeats
	}
	if c.Lease == 0 {
		c.Lease = fleet.DefaultLeaseSeconds * time.Second
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	c.Grace = max(c.Grace, 0)
	if c.Wait == 0 {
		c.Wait = 20 * time.Second
	}
	if c.Drain == "" {
		c.Drain = DrainWait
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if c.look == 0 {
		c.look = time.Second
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return c, nil
}

// factory is a running Config.
type factory struct {
	Config
	seats   chan int // the free ones
	running sync.WaitGroup
	stop    *stop
	kick    chan struct{} // a heartbeat is wanted now
	secrets masker
	output  *terminal

	mu     sync.Mutex // guards all below
	health fleet.Health
	held   map[string]*client.Held // by job id
	idle   time.Time               // since when nothing runs
}

// Run claims and works until it is told to stop (see Config.Signals), or a call is refused for good. The end of ctx
// stops and releases what runs. It returns when nothing runs any more.
func Run(ctx context.Context, config Config) error {
	config, err := config.withDefaults()
	if err != nil {
		return err
	}
	f := &factory{
		Config: config, seats: make(chan int, config.Seats), kick: make(chan struct{}, 1),
		secrets: maskerOf(os.Environ(), config.PassToken), output: &terminal{out: config.Output},
		health: fleet.HealthOK, held: map[string]*client.Held{}, idle: time.Now(),
	}
	for seat := range config.Seats {
		f.seats <- seat
	}
	if f.Handler == nil {
		f.Handler = f.runCommand
	}
	f.stop = watchSignals(ctx, config.Signals, config.Drain)
	defer f.stop.end()
	// Leases are kept until the last job is settled, however long a drain takes.
	beating, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		f.beat(beating)
	}()
	err = f.claimLoop()
	done := make(chan struct{})
	go func() {
		f.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-f.stop.killed.Done():
		err = f.abandon(done)
	}
	stopBeating()
	<-beats
	return err
}

// abandonWait is how long killed processes are waited for.
const abandonWait = 2 * time.Second

// abandon waits a moment for what was killed. What could not be released in it is left to its lease's end.
func (f *factory) abandon(done <-chan struct{}) error {
	select {
	case <-done:
	case <-time.After(abandonWait):
	}
	return ErrKilled
}

// claimLoop claims for free seats until there is a reason to end.
func (f *factory) claimLoop() error {
	if err := f.register(); err != nil {
		return err
	}
	for {
		seats := f.freeSeats()
		if len(seats) == 0 {
			return nil
		}
		claimed, err := f.claim(seats)
		for _, seat := range seats[claimed:] {
			f.seats <- seat
		}
		switch {
		case f.stop.draining.Err() != nil:
			return nil
		case f.Once && err == nil && claimed == 0:
			return ErrNothing
		case f.Once || fatal(err):
			return err
		case err != nil:
			f.Log.Warn("claiming", "error", err)
			f.pause(retryWait)
		case claimed == 0 && f.idleFor(f.IdleExit):
			return nil
		}
	}
}

// retryWait is how long a factory waits after a claim that went wrong.
const retryWait = time.Second

// freeSeats waits for a free seat, and takes all others that are free: one request claims for them. There are none when the
// factory is to stop.
func (f *factory) freeSeats() (seats []int) {
	select {
	case <-f.stop.draining.Done():
		return nil
	case seat := <-f.seats:
		seats = append(seats, seat)
	}
	for !f.Once && len(seats) < fleet.MaxClaims {
		select {
		case seat := <-f.seats:
			seats = append(seats, seat)
		default:
			return seats
		}
	}
	return seats
}

// claim asks for a job for each of these seats, and starts those that it gets in the first of them. To get fewer, or
// none, is not an error.
func (f *factory) claim(seats []int) (claimed int, err error) {
	held, err := f.claimAndHold(len(seats))
	switch {
	case errors.Is(err, fleet.UnknownFactory), errors.Is(err, fleet.FactoryDown):
		f.beatSoon()
		return 0, err
	case errors.Is(err, fleet.SeatsExhausted) && !f.Once:
		f.pause(retryWait)
		return 0, nil
	case err != nil:
		return 0, err
	}
	f.mu.Lock()
	for _, h := range held {
		f.held[h.Job.ID] = h
	}
	f.mu.Unlock()
	for i, h := range held {
		f.running.Go(func() { f.occupy(seats[i], h) })
	}
	return len(held), nil
}

// claimAndHold claims up to so many jobs.
func (f *factory) claimAndHold(most int) ([]*client.Held, error) {
	ctx := f.stop.draining
	working := context.WithoutCancel(ctx) // a job outlives ctx: it ends with its lease, or by the factory's stop
	lease := int64(f.Lease / time.Second)
	request := fleet.ClaimRequest{FactoryID: f.FactoryID, LeaseSeconds: &lease, WaitSeconds: f.waitSeconds()}
	if most > 1 {
		request.Max = new(int64(most))
		return f.Client.ClaimBatchAndHold(ctx, working, request)
	}
	held, err := f.Client.ClaimAndHold(ctx, working, request)
	if held == nil {
		return nil, err
	}
	return []*client.Held{held}, nil
}

// occupy works on a job in a seat, which is free again when the job is settled.
func (f *factory) occupy(seat int, h *client.Held) {
	f.work(h, seat)
	f.mu.Lock()
	if f.held[h.Job.ID] == h { // else another seat has the job's next attempt
		delete(f.held, h.Job.ID)
	}
	f.idle = time.Now()
	f.mu.Unlock()
	f.seats <- seat
}

// waitSeconds is how long the next claim may wait: not at all for Once, and not much beyond IdleExit.
func (f *factory) waitSeconds() int64 {
	wait := f.Wait
	if f.Once {
		return 0
	}
	if f.IdleExit > 0 {
		wait = min(wait, f.IdleExit)
	}
	return int64((wait + time.Second - 1) / time.Second)
}

// idleFor reports whether nothing has run for d.
func (f *factory) idleFor(d time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return d > 0 && len(f.held) == 0 && time.Since(f.idle) >= d
}

func (f *factory) pause(d time.Duration) {
	select {
	case <-f.stop.draining.Done():
	case <-time.After(d):
	}
}

// fatal reports whether a refusal will be the same tomorrow.
func fatal(err error) bool {
	for _, code := range []fleet.Code{fleet.Unauthenticated, fleet.Forbidden, fleet.Invalid, fleet.InvalidJSON, fleet.NotFound} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
