package bench

// This file tests quantiles, of latencies and of what nodes say of their disks.

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A quantile is never below the one of the sorted durations, and at most 1/128 above; the largest is exact.
func TestQuantile(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 3, 99, 100, 101, 10_000} {
		var h histogram
		var all []time.Duration
		for range n {
			d := time.Duration(math.Exp(r.Float64() * 24)) // 1 ns to 26 s
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, share := range []float64{0.5, 0.99, 1} {
			want := all[int(math.Ceil(share*float64(n)))-1]
			if got := h.quantile(share); got < want || got > want+want/precision {
				t.Errorf("%d durations, quantile %v: got %v, want %v", n, share, got, want)
			}
		}
		if h.max != all[n-1] || h.quantile(1) != h.max {
			t.Errorf("%d durations: got the largest %v and %v, want %v", n, h.max, h.quantile(1), all[n-1])
		}
	}
	var empty histogram
	if got := empty.quantile(0.99); got != 0 {
		t.Errorf("nothing measured: got %v, want 0", got)
	}
}

// Every duration has a bucket whose top is not below it, and buckets follow each other without a hole.
func TestBuckets(t *testing.T) {
	for _, v := range []uint64{0, 1, 255, 256, 257, 511, 512, 1 << 20, 1<<20 + 1, math.MaxInt64} {
		if i := bucket(v); top(i) < v || i > 0 && top(i-1) >= v {
			t.Errorf("%d: got bucket %d up to %d, after one up to %d", v, i, top(i), top(max(0, i-1)))
		}
	}
	var h histogram
	h.add(math.MaxInt64)
	h.add(-1)
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("a clock that went back: got %v, want 0", got)
	}
	for i := 1; i < len(h.counts); i++ {
		if bucket(top(i-1)+1) != i {
			t.Fatalf("got %d in bucket %d, want it in %d", top(i-1)+1, bucket(top(i-1)+1), i)
		}
	}
}

const before = `# TYPE fleet_wal_fsync_seconds histogram
fleet_wal_fsync_seconds_bucket{le="0.001"} 10
fleet_wal_fsync_seconds_bucket{le="0.002"} 10
fleet_wal_fsync_seconds_bucket{le="+Inf"} 10
fleet_wal_fsync_seconds_sum 0.001
fleet_wal_fsync_seconds_count 10
`

const after = `fleet_other_bucket{le="0.001"} 99
fleet_wal_fsync_seconds_bucket{le="0.001"} 60
fleet_wal_fsync_seconds_bucket{le="0.002"} 108
fleet_wal_fsync_seconds_bucket{le="+Inf"} 110
`

// What a node stored during a run is the difference of two readings; what was stored before does not count.
func TestFsyncs(t *testing.T) {
	read := func(text string) buckets {
		b, err := readBuckets(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	during := read(after).since(read(before))
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"count", during.count(), 100},
		{"p25", during.quantile(0.25), 0.0005}, // half-way into the first bucket
		{"p50", during.quantile(0.5), 0.001},
		{"p74", during.quantile(0.74), 0.0015},
		{"p99", during.quantile(0.99), 0.002}, // above the last limit it is what is known
		{"started anew", read(before).since(read(after)).count(), 10},
		{"not seen before", read(before).since(nil).count(), 10},
		{"not seen after", buckets(nil).since(read(before)).count(), 0},
		{"nothing stored", read(before).since(read(before)).quantile(0.99), 0},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	if _, err := readBuckets(strings.NewReader(fsyncMetric + `{le="x"} 1`)); err == nil {
		t.Error("got no error, want one for a limit that is no number")
	}
}
