package fleet

// This file checks that values survive JSON and the binary form, and that nonsense is refused without a panic.

import (
	"encoding/json"
	"math/big"
	"reflect"
	"testing"
	"time"
)

func TestTimeRoundTrip(t *testing.T) {
	for text, want := range map[string]string{
		`"2026-01-31T09:00:00Z"`:                `"2026-01-31T09:00:00.000Z"`,
		`"2026-01-31T09:00:00.5+01:00"`:         `"2026-01-31T08:00:00.500Z"`,
		`"2026-01-31T09:00:00.000001Z"`:         `"2026-01-31T09:00:00.000001Z"`,
		`"2026-01-31T09:00:00.000000001Z"`:      `"2026-01-31T09:00:00.000000001Z"`,
		`"2261-12-31T23:59:59.999999999Z"`:      `"2261-12-31T23:59:59.999999999Z"`,
		`"1970-01-01T00:00:00.000000001Z"`:      `"1970-01-01T00:00:00.000000001Z"`,
		`"1970-01-01T00:59:59.000-01:00"`:       `"1970-01-01T01:59:59.000Z"`,
		`"2026-01-31T09:00:00.123456789+00:00"`: `"2026-01-31T09:00:00.123456789Z"`,
	} {
		var at Time
		if err := json.Unmarshal([]byte(text), &at); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(at); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
		if back := TimeOf(at.Time()); back != at {
			t.Errorf("%s: got %d back from time.Time, want %d", text, back, at)
		}
	}
	for _, text := range []string{
		`1`, `"today"`, `"2026-01-31"`, `"1969-12-31T23:59:59Z"`, `"2262-01-01T00:00:00Z"`, `"2026-02-30T00:00:00Z"`, `""`,
		`"1970-01-01T00:00:00Z"`, `"1970-01-01T01:00:00+01:00"`, `"2026-01-31T09:00:00,5Z"`,
	} {
		var at Time
		if err := json.Unmarshal([]byte(text), &at); err == nil {
			t.Errorf("%s: got %s, want a refusal", text, at)
		}
	}
	if TimeOf(time.Time{}) != 0 || !Time(0).Time().IsZero() {
		t.Error("the zero time: got another, want absent")
	}
}

func FuzzTime(f *testing.F) {
	f.Add(`"2026-01-31T09:00:00.5+01:00"`)
	f.Fuzz(func(t *testing.T, text string) {
		var at, back Time
		if json.Unmarshal([]byte(text), &at) != nil || at == 0 {
			return
		}
		b, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &back); err != nil || back != at {
			t.Fatalf("%q: got %s, %v back, want %s", text, back, err, at)
		}
	})
}

func TestUSDRoundTrip(t *testing.T) {
	for text, want := range map[string]string{
		`0`: `0`, `0.0`: `0`, `0e9`: `0`, `5`: `5`, `5.0`: `5`, `1.50`: `1.5`, `1e3`: `1000`, `1.5E+2`: `150`,
		`1e-9`: `0.000000001`, `0.000000001`: `0.000000001`, `10e-10`: `0.000000001`, `0.0000000010`: `0.000000001`,
		`1000000000`: `1000000000`, `1e9`: `1000000000`, `999999999.999999999`: `999999999.999999999`,
	} {
		var amount USD
		if err := json.Unmarshal([]byte(text), &amount); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(amount); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{`-1`, `-0.5`, `1e-10`, `0.0000000001`, `1000000000.000000001`, `1e10`, `1e400`, `"5"`, `true`, `{}`} {
		var amount USD
		if err := json.Unmarshal([]byte(text), &amount); err == nil {
			t.Errorf("%s: got %s, want a refusal", text, amount)
		}
	}
}

// What is accepted as money is exactly that amount.
func FuzzUSD(f *testing.F) {
	for _, seed := range []string{"0", "1.5", "1e-9", "12.5E+3", "1000000000", "-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var amount USD
		if !json.Valid([]byte(text)) || json.Unmarshal([]byte(text), &amount) != nil {
			return
		}
		sent, ok := new(big.Rat).SetString(text)
		if !ok {
			return // null
		}
		kept, _ := new(big.Rat).SetString(amount.String())
		if sent.Cmp(kept) != 0 || amount < 0 || amount > MaxUSD {
			t.Fatalf("%s: got %s", text, amount)
		}
	})
}

func TestLabelsRoundTrip(t *testing.T) {
	var l Labels
	if err := json.Unmarshal([]byte(`{"z":"1","a":"<2>","ü":""}`), &l); err != nil {
		t.Fatal(err)
	}
	if want := (Labels{{"a", "<2>"}, {"z", "1"}, {"ü", ""}}); !reflect.DeepEqual(l, want) {
		t.Fatalf("got %v, want %v", l, want)
	}
	if v, ok := l.Get("z"); !ok || v != "1" {
		t.Errorf("z: got %q, %t, want 1", v, ok)
	}
	if _, ok := l.Get("b"); ok {
		t.Error("b: got a value, want none")
	}
	for _, text := range []string{`[]`, `{"a":1}`, `"a"`} {
		if err := json.Unmarshal([]byte(text), &l); err == nil {
			t.Errorf("%s: got %v, want a refusal", text, l)
		}
	}
}

func FuzzLabels(f *testing.F) {
	f.Add(`{"z":"1","a":"2"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var l, back Labels
		if json.Unmarshal([]byte(text), &l) != nil {
			return
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(l, back) {
			t.Fatalf("%q: got %v, %v back, want %v", text, back, err, l)
		}
	})
}

func TestJSONKeepsTheText(t *testing.T) {
	var v JSON
	if err := json.Unmarshal([]byte("{ \"n\" : 1.0e5 ,\n \"big\": 12345678901234567890 }"), &v); err != nil {
		t.Fatal(err)
	}
	if want := JSON(`{"n":1.0e5,"big":12345678901234567890}`); v != want {
		t.Errorf("got %s, want %s", v, want)
	}
}

// The binary form of a submission gives back the same submission.
func TestSubmissionBinaryRoundTrip(t *testing.T) {
	s := sample()
	s.Checkpoint = &Checkpoint{WipBranch: "wip"}
	s.NotBefore = TimeOf(time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC))
	s.Budget.USD = of(USD(1_500_000_000))
	b, err := s.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back Submission
	if left, err := back.UnmarshalMsg(b); err != nil || len(left) > 0 {
		t.Fatalf("got %d bytes left, %v", len(left), err)
	}
	if !reflect.DeepEqual(*s, back) {
		t.Errorf("got %+v, want %+v", back, *s)
	}
}
