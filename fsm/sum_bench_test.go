package fsm

// This file measures the hash by which replicas are compared.

import "testing"

// BenchmarkStateHash is what an entry of one command pays at its beginning and its end to keep the hash. It is a part of what BenchmarkApply
// measures; the hashes of deadlines, which change with the command, are not in it.
func BenchmarkStateHash(b *testing.B) {
	began := populated(b, 1000)
	for _, w := range hot() {
		b.Run(w.name, func(b *testing.B) {
			st := began.fork()
			t := &tx{st: st, entry: st.txn + 1}
			if a := t.answer(&w.entry(0).Proposals[0]); a.Err != nil {
				b.Fatal(a.Err)
			}
			b.ReportAllocs()
			for b.Loop() { // what it comes to is wrong from the second time on, and costs the same
				for i := range t.products {
					t.products[i].hash = sumWith(t.products[i].p, (*digester).product)
				}
				t.sumUp()
			}
		})
	}
}
