package fsm

// This file measures commands as bytes, which every node reads and the leader writes, and answers as bytes, which a follower waits for.

import "testing"

func BenchmarkCodec(b *testing.B) {
	st := populated(b, 1000)
	for _, w := range hot() {
		e := w.entry(0)
		data, err := AppendEntry(nil, e)
		if err != nil {
			b.Fatal(err)
		}
		answers, _ := (&Machine{st: st.fork()}).Apply(st.index+1, e)
		answer, err := AppendAnswer(nil, &answers[0])
		if err != nil || answers[0].Err != nil {
			b.Fatal(err, answers[0].Err)
		}
		for _, c := range []struct {
			name string
			size int
			fn   func() error
		}{
			{"encode", len(data), func() error { _, err := AppendEntry(nil, e); return err }},
			{"decode", len(data), func() error { _, err := DecodeEntry(data); return err }},
			{"encode_answer", len(answer), func() error { _, err := AppendAnswer(nil, &answers[0]); return err }},
			{"decode_answer", len(answer), func() error { _, _, err := DecodeAnswer(answer); return err }},
		} {
			b.Run(w.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(c.size))
				for b.Loop() {
					if err := c.fn(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
