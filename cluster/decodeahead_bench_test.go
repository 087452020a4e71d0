package cluster

// This file measures how long a snapshot takes to be read, by one goroutine and by several.

import (
	"bytes"
	"testing"

	"github.com/lysnrai/fleet/fsm"
)

// BenchmarkRestore reads a snapshot of 200,000 queued jobs of 1 KiB.
func BenchmarkRestore(b *testing.B) {
	const jobs = 200_000
	var file bytes.Buffer
	if _, err := filled(jobs).Handle().WriteTo(&file); err != nil {
		b.Fatal(err)
	}
	for name, restore := range map[string]func(m *fsm.Machine) error{
		"one":  func(m *fsm.Machine) error { return m.Restore(bytes.NewReader(file.Bytes())) },
		"more": func(m *fsm.Machine) error { return m.RestoreAhead(bytes.NewReader(file.Bytes()), decodeAhead) },
	} {
		b.Run("goroutines="+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(file.Len()))
			for b.Loop() {
				if err := restore(fsm.New()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/jobs, "µs/job")
		})
	}
}
