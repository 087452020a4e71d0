package bench

// This file writes the bodies of jobs.

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/lysnrai/fleet"
)

// overhead is what a job takes in a call beside its body, in bytes, more than enough.
const overhead = 2 << 10

// MaxSize is the largest body of a job, in bytes: the rest of the call has to fit beside it.
const MaxSize = fleet.MaxBody - overhead

// PerCall is how many jobs with bodies of this size go into one call.
func PerCall(size int) int { return max(1, min(fleet.MaxBatch, fleet.MaxBatchBody/(size+overhead))) }

// bodies are as compressible as prose, and no two are alike: a cluster may keep equal ones once.
type bodies struct {
	size  int
	text  string
	count *atomic.Uint64
}

func newBodies(size int) bodies {
	words := strings.Fields("the job fails when its test runs twice please find out why mend what is broken and add a case that shows it " +
		"read before writing keep the change small run all checks then report what you did where it hurts and which file was touched")
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for text.Len() < 2*size {
		text.WriteByte(' ')
		text.WriteString(words[random.IntN(len(words))])
	}
	return bodies{size, text.String(), new(atomic.Uint64)}
}

// next is another body; bodies of 16 bytes and more all differ.
func (b *bodies) next() string {
	n := b.count.Add(1)
	from := 0
	if b.size > 0 {
		from = int(n % uint64(b.size))
	}
	return (fmt.Sprintf("%016x", n) + b.text[from:from+b.size])[:b.size]
}
