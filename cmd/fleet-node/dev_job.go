package main

// This file lets a development cluster do its main job, and shows what came of it.

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/mainjob"
	"github.com/lysnrai/fleet/rpc/client"
)

// batchSize is how many jobs are sent at once.
const batchSize = 500

// ship submits the plan and waits until every job has ended.
func (d *dev) ship(ctx context.Context, plan *mainjob.Plan) (mainjob.Report, error) {
	ids := map[string]bool{}
	for batch := range slices.Chunk(plan.Submissions(), batchSize) {
		results, err := d.client.SubmitBatch(ctx, batch)
		if err != nil {
			return mainjob.Report{}, err
		}
		for _, r := range results {
			ids[r.Job.ID] = true
		}
	}
	begin := time.Now()
	for {
		jobs, err := d.jobs(ctx, ids)
		if err != nil {
			return mainjob.Report{}, err
		}
		shipped, dead, open := 0, 0, 0 // open: what may still move
		for _, j := range jobs {
			switch {
			case j.Stage == fleet.Shipped:
				shipped++
			case j.Stage.Terminal():
				dead++
			case j.Stage != fleet.Blocked:
				open++
			}
		}
		d.talk.say(fmt.Sprintf("%d of %d packages shipped, %d failed, %s", shipped, len(ids), dead, tenths(time.Since(begin))))
		if shipped+dead == len(ids) || open == 0 {
			events, err := d.events(ctx)
			if err != nil {
				return mainjob.Report{}, err
			}
			return plan.Verify(jobs, events), nil
		}
		select {
		case <-ctx.Done():
			return mainjob.Report{}, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// jobs are the main job's, as they are now.
func (d *dev) jobs(ctx context.Context, ids map[string]bool) (jobs []*fleet.Job, err error) {
	for j, err := range d.client.Jobs(ctx, client.JobFilter{Limit: fleet.MaxPage}) {
		if err != nil {
			return nil, err
		}
		if ids[j.ID] {
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// events are all of the product's.
func (d *dev) events(ctx context.Context) (all []fleet.Event, err error) {
	err = pages(0, 0, func(after uint64, limit int) (uint64, int, error) {
		events, err := d.client.EventPage(ctx, after, limit)
		all = append(all, events...)
		return lastIndex(events), len(events), err
	})
	return all, err
}

// table says what came of the main job, and who did it.
func (d *dev) table(r mainjob.Report) error {
	rows := [][]string{{"FACTORY", "PACKAGES"}}
	for _, factory := range slices.Sorted(maps.Keys(r.Factories)) {
		rows = append(rows, []string{factory, strconv.Itoa(r.Factories[factory])})
	}
	d.talk.line("")
	if err := columns(d.out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.out, "%s\n%d jobs, %d attempts, %s\n", r, r.Packages, r.Packages+r.Retries, tenths(r.Took))
	return err
}

// address says how to reach the cluster while its first job still runs.
func (d *dev) address() {
	d.talk.line("")
	fmt.Fprintf(d.out, "  url      %s\n  token    %s\n  product  %s\n\n", d.urls()[0], d.token, devProduct)
}

// card says what can be done with the cluster now.
func (d *dev) card(ctx context.Context) {
	leader := ""
	if status, err := d.client.ClusterStatus(ctx); err == nil {
		leader = status.Leader
	}
	kill := d.nodes[0].pid()
	fmt.Fprintf(d.out, "\n  url      %s\n  token    %s\n  product  %s\n", d.urls()[0], d.token, devProduct)
	for i, n := range d.nodes {
		role := "follower"
		if n.name == leader {
			role, kill = "leader", n.pid()
		}
		fmt.Fprintf(d.out, "  %s   %s  pid %d  %s\n", n.name, d.urls()[i], n.pid(), role)
	}
	fmt.Fprintf(d.out, `  logs     %s

  In another terminal:
    fleet-node cluster status
    fleet-node job list --stage shipped
    echo 'echo hello' | fleet-node job submit - --watch
  Kill the leader, it is started again, nothing is lost:
    kill -9 %d

  Ctrl-C stops all of it and leaves nothing behind.
`, d.dir, kill)
}
