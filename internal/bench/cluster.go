package bench

// This file is the shape of the cluster that is measured, and how long its disks took.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// scrapeWait is how long a node may take to say its metrics: one that can't be reached from here must not hold up a run.
const scrapeWait = 2 * time.Second

// fsyncMetric is the histogram of a node that times how it stores log entries.
const fsyncMetric = "fleet_wal_fsync_seconds_bucket"

// look asks what the cluster is like. The fsyncs of a node are as counted since it started.
func (b *bench) look(ctx context.Context) (*fleet.ClusterStatus, map[string]buckets, error) {
	status, err := b.Clients[0].ClusterStatus(ctx, client.Stale()) // it answers without a leader, too
	if err != nil {
		return nil, nil, err
	}
	scheme, _, _ := strings.Cut(b.Clients[0].Addresses()[0], "://")
	ctx, cancel := context.WithTimeout(ctx, scrapeWait)
	defer cancel()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		fsyncs = map[string]buckets{}
	)
	for _, n := range status.Nodes {
		wg.Go(func() {
			found, err := scrape(ctx, b.HTTP, scheme+"://"+n.HTTPAddr)
			if err != nil {
				return // its row does without
			}
			mu.Lock()
			defer mu.Unlock()
			fsyncs[n.ID] = found
		})
	}
	wg.Wait()
	return status, fsyncs, nil
}

// shape puts together what two looks, before and after the load, saw.
func shape(status *fleet.ClusterStatus, before, after map[string]buckets) *Cluster {
	c := &Cluster{ClusterID: status.ClusterID, Leader: status.Leader, Term: status.Term, Nodes: []Node{}}
	for _, n := range status.Nodes {
		row := Node{Name: n.Name, HTTPAddr: n.HTTPAddr, State: n.State, Voter: n.Voter, Version: n.Version}
		if during := after[n.ID].since(before[n.ID]); during.count() > 0 {
			row.Fsync = &Fsync{Count: int64(during.count()), P50Seconds: during.quantile(0.5), P99Seconds: during.quantile(0.99)}
		}
		c.Nodes = append(c.Nodes, row)
	}
	slices.SortStableFunc(c.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// scrape reads the fsync histogram of a node.
func scrape(ctx context.Context, h *http.Client, base string) (buckets, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := h.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/metrics: %s", base, response.Status)
	}
	return readBuckets(response.Body)
}

// buckets are a histogram as Prometheus has it: how many were at most so long, in seconds, in ascending order.
type buckets []struct{ limit, count float64 }

func readBuckets(r io.Reader) (buckets, error) {
	var all buckets
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), fsyncMetric+`{le="`)
		if !ok {
			continue
		}
		limitText, countText, _ := strings.Cut(rest, `"} `)
		limit, err := strconv.ParseFloat(limitText, 64)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", fsyncMetric, err)
		}
		count, err := strconv.ParseFloat(countText, 64)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", fsyncMetric, err)
		}
		all = append(all, struct{ limit, count float64 }{limit, count})
	}
	return all, lines.Err()
}

func (b buckets) count() float64 {
	if len(b) == 0 {
		return 0
	}
	return b[len(b)-1].count
}

// since is what was added to an earlier reading; all of it if the node was started anew meanwhile.
func (b buckets) since(earlier buckets) buckets {
	if len(earlier) != len(b) || earlier.count() > b.count() {
		return b
	}
	added := slices.Clone(b)
	for i := range added {
		added[i].count -= earlier[i].count
	}
	return added
}

// quantile supposes that what is in one bucket is spread over it evenly, as Prometheus does.
func (b buckets) quantile(share float64) float64 {
	rank := share * b.count()
	below, from := 0.0, 0.0
	for _, each := range b {
		if each.count >= rank {
			if math.IsInf(each.limit, 1) || each.count == below {
				return from
			}
			return from + (each.limit-from)*(rank-below)/(each.count-below)
		}
		below, from = each.count, each.limit
	}
	return from
}
