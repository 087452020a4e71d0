package worker

// This file is the factory's sign of life, which renews all of its leases.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// interval is how often the factory is heard: a third of the lease, and not less often than the cluster expects.
func (f *factory) interval() time.Duration {
	return min(f.Lease/3, fleet.DefaultHeartbeatSeconds*time.Second)
}

// register says what the factory is before it claims for the first time. Until a node answers, it goes on trying, unless
// it is to run once.
func (f *factory) register() error {
	for {
		err := f.heartbeat(f.stop.draining)
		switch {
		case err == nil:
			f.Log.Info("registered, claiming", "factoryId", f.FactoryID, "seats", f.Seats, "capabilities", f.Capabilities, "engines", f.Engines)
			return nil
		case f.stop.draining.Err() != nil:
			return nil
		case f.Once || fatal(err):
			return fmt.Errorf("registering factory %s: %w", f.FactoryID, err)
		}
		f.Log.Warn("registering", "error", err)
		f.pause(retryWait)
	}
}

// beat sends heartbeats until ctx ends.
func (f *factory) beat(ctx context.Context) {
	tick := time.NewTicker(f.interval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-f.kick:
		}
		// The next one is due by then, and would say the same.
		call, cancel := context.WithTimeout(ctx, f.interval())
		if err := f.heartbeat(call); err != nil && ctx.Err() == nil {
			f.Log.Warn("heartbeat", "error", err)
		}
		cancel()
	}
}

// beatSoon asks for a heartbeat now.
func (f *factory) beatSoon() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// heartbeat registers, reports and renews.
func (f *factory) heartbeat(ctx context.Context) error {
	var (
		capabilities = fleet.Strings(append([]string{}, f.Capabilities...))
		engines      = fleet.Strings(append([]string{}, f.Engines...))
		seats        = int64(f.Seats)
		seconds      = max(1, int64(f.interval()/time.Second))
	)
	held := map[string]*client.Held{}
	f.mu.Lock()
	request := fleet.HeartbeatRequest{
		FactoryID: f.FactoryID, Descriptor: f.Descriptor, Capabilities: &capabilities, Engines: &engines,
		Health: f.health, SeatLimit: &seats, HeartbeatSeconds: &seconds,
	}
	for id, h := range f.held {
		if h.Context().Err() != nil {
			continue // lost already, and still stopping
		}
		held[id] = h
		request.Leases = append(request.Leases, fleet.HeldLease{JobID: id, LeaseEpoch: h.Epoch()})
	}
	load := float64(len(f.held))
	f.mu.Unlock()
	request.Load = &load
	var refused error
	for first := true; first || len(request.Leases) > 0; first = false {
		rest := request.Leases
		request.Leases = rest[:min(len(rest), fleet.MaxBatch)]
		sent := time.Now()
		result, err := f.Client.Heartbeat(ctx, request)
		if err != nil {
			return err
		}
		for _, r := range result.Leases {
			if h := held[r.JobID]; h != nil {
				refused = errors.Join(refused, judge(h, sent, r))
			}
		}
		request.Leases = rest[len(request.Leases):]
	}
	return refused
}

// judge takes in what came of one lease.
func judge(h *client.Held, sent time.Time, r fleet.LeaseResult) error {
	switch {
	case r.OK:
		h.Renewed(sent, r.Lease)
	case r.Code == fleet.StaleEpoch || r.Code == fleet.NotFound:
		h.Fenced(&fleet.Error{Code: r.Code, Detail: r.Detail, CurrentEpoch: r.CurrentEpoch})
	default:
		return &fleet.Error{Code: r.Code, Detail: fmt.Sprintf("the lease of job %s: %s", r.JobID, r.Detail)}
	}
	return nil
}
