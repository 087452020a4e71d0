package bench

// This file counts latencies in a fixed amount of memory, however long a run takes.

import (
	"math"
	"math/bits"
	"time"
)

// precision is how many buckets each power of two is cut into: a quantile is at most 1/128 above what was measured.
const precision = 128

// histogram counts durations in buckets that grow with what they hold. Its zero value is empty.
type histogram struct {
	counts [(64 - 7) * precision]int64
	n      int64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(0, d)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// quantile is the smallest duration that a share of all did not exceed, zero if there is none. The largest is exact.
func (h *histogram) quantile(share float64) time.Duration {
	rank := int64(math.Ceil(share * float64(h.n)))
	for i, count := range h.counts {
		if rank -= count; rank <= 0 && count > 0 {
			return min(h.max, time.Duration(top(i)))
		}
	}
	return h.max
}

// bucket is where a value is counted: below 256 each has its own.
func bucket(v uint64) int {
	shift := max(0, bits.Len64(v)-8)
	return shift*precision + int(v>>shift)
}

// top is the largest value of a bucket.
func top(bucket int) uint64 {
	shift := max(0, bucket/precision-1)
	return uint64(bucket-shift*precision+1)<<shift - 1
}
