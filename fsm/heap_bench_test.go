package fsm

// This file measures what a job takes in memory.

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/lysnrai/fleet"
)

// BenchmarkHeap weighs jobs with bodies that all differ: while they are queued, and once they are shipped, with their runs and events.
func BenchmarkHeap(b *testing.B) {
	const jobs = 100_000
	for _, size := range []int{1 << 10, 10 << 10} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			text := strings.Repeat("find out why the job fails when its test runs twice, ", size/50)[:size-16]
			var queued, shipped float64
			for b.Loop() {
				r := newReplica(b)
				before := inUse()
				for first := 0; first < jobs; first += fleet.MaxBatch {
					c := &SubmitBatch{ProductID: "p"}
					for i := range fleet.MaxBatch {
						s := bodied(first + i)
						s.BodyMd = fmt.Sprintf("%016d", first+i) + text
						c.JobIDs, c.Submissions = append(c.JobIDs, fmt.Sprintf("01J%023d", first+i)), append(c.Submissions, s)
					}
					must1[*fleet.SubmitResults](r, c)
				}
				queued = (inUse() - before) / jobs
				seats := int64(1 << 40)
				caps := fleet.Strings{}
				for i := range 10 {
					caps = append(caps, "c"+fmt.Sprint(i))
				}
				must1[*fleet.HeartbeatResult](r, &Heartbeat{ProductID: "p", Heartbeat: fleet.HeartbeatRequest{FactoryID: "f1", SeatLimit: &seats, Capabilities: &caps}})
				for range jobs {
					c := r.claim()
					r.patch(c.Job.ID, report(c.Job.LeaseEpoch, fleet.Shipped, ""))
				}
				shipped = (inUse() - before) / jobs
				runtime.KeepAlive(r)
			}
			b.ReportMetric(queued, "B/queued")
			b.ReportMetric(shipped, "B/shipped")
		})
	}
}

// inUse is the heap after a collection, in bytes.
func inUse() float64 {
	runtime.GC()
	runtime.GC() // what the first has freed is swept now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkHeapOfAnswers weighs what is remembered of calls under keys: of claims, which are three documents each, and of patches, which are
// one. A product remembers a million documents, or 256 MiB as they are encoded.
func BenchmarkHeapOfAnswers(b *testing.B) {
	const calls = 100_000
	for name, command := range map[string]func(i int) Command{
		"claim": func(int) Command { return &Claim{ProductID: "p", FactoryID: "f1", LeaseSeconds: 60} },
		"patch": func(i int) Command {
			return &Patch{ProductID: "p", JobID: heldID(i), Report: report(1, fleet.Building, "")}
		},
	} {
		b.Run(name, func(b *testing.B) {
			var each, encoded float64
			for b.Loop() {
				r := &replica{t: b, m: &Machine{st: populated(b, 3*calls)}, now: start} // no fork: what it copies would be in the figure
				r.index = r.m.st.index
				call := func(i int, key string) {
					r.index++
					a, _ := r.m.Apply(r.index, &Entry{Stamp: r.now, Proposals: []Proposal{{Caller: Caller{ActorRoot}, Key: key, Request: digestOf32, Command: command(i)}}})
					if a[0].Err != nil {
						b.Fatal(a[0].Err)
					}
				}
				before := inUse()
				for i := range calls / 2 {
					call(i, "")
				}
				bare := inUse()
				for i := range calls / 2 {
					call(calls/2+i, fmt.Sprintf("01K%023d", i))
				}
				each = ((inUse() - bare) - (bare - before)) / (calls / 2)
				p, _ := r.m.st.products.Get("p")
				encoded = float64(p.memory.dir.total.bytes) / (calls / 2)
				runtime.KeepAlive(r)
			}
			b.ReportMetric(each, "B/answer")
			b.ReportMetric(encoded, "encoded-B/answer")
		})
	}
}

// digestOf32 is as long as the digest of a request is.
const digestOf32 = "0123456789abcdef0123456789abcdef"
