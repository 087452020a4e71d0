package fleet

// This file is the scalar values whose JSON form differs from what is stored: times, money, free-form JSON, labels.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Time is an instant in nanoseconds since the Unix epoch, UTC. Zero means absent. In JSON it is RFC 3339 with three,
// six or nine sub-second digits.
type Time int64

// TimeOf converts a time.Time; the zero time is absent.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

// Time converts back. The zero Time gives the zero time.Time.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(t)).UTC()
}

// Add moves the instant by whole seconds and stops at the ends of what can be represented.
func (t Time) Add(seconds int64) Time {
	if seconds > 0 && seconds > (math.MaxInt64-int64(t))/int64(time.Second) {
		return math.MaxInt64
	}
	return t + Time(seconds)*Time(time.Second)
}

// Sub is the span from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Truncate rounds down to a multiple of d.
func (t Time) Truncate(d time.Duration) Time { return t - t%Time(d) }

func (t Time) String() string {
	if t == 0 {
		return ""
	}
	switch {
	case t%1e6 == 0:
		return t.Time().Format("2006-01-02T15:04:05.000Z")
	case t%1e3 == 0:
		return t.Time().Format("2006-01-02T15:04:05.000000Z")
	}
	return t.Time().Format("2006-01-02T15:04:05.000000000Z")
}

// MarshalJSON writes an RFC 3339 string, or null if the time is absent.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return []byte(`"` + t.String() + `"`), nil
}

// UnmarshalJSON reads an RFC 3339 string with any offset, between the years 1970 and 2261.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("must be an RFC 3339 time such as \"2026-01-31T09:00:00Z\"")
	}
	u, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || strings.Contains(s, ",") { // time.Parse takes a comma for a point
		return fmt.Errorf("%q is not an RFC 3339 time such as \"2026-01-31T09:00:00Z\"", s)
	}
	if y := u.UTC().Year(); y < 1970 || y > 2261 {
		return fmt.Errorf("%q is not between the years 1970 and 2261", s)
	}
	if u.UnixNano() == 0 { // which stands for none
		return fmt.Errorf("%q, to the nanosecond, can't be told from no time", s)
	}
	*t = Time(u.UnixNano())
	return nil
}

// USD is an amount of money in nano-dollars. In JSON it is a number of dollars.
type USD int64

// MaxUSD is the largest amount that is accepted: a thousand million dollars.
const MaxUSD USD = 1e9 * 1e9

func (u USD) String() string {
	s := strconv.FormatInt(int64(u)/1e9, 10)
	if frac := int64(u) % 1e9; frac != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%09d", frac), "0")
	}
	return s
}

// MarshalJSON writes dollars with as many decimals as it needs.
func (u USD) MarshalJSON() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalJSON reads a plain or exponential JSON number with at most 9 decimals, from 0 to MaxUSD.
func (u *USD) UnmarshalJSON(b []byte) error {
	bad := errors.New("must be a number of dollars from 0 to 1000000000 with at most 9 decimals")
	mantissa, exp := string(b), 0
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		e, err := strconv.Atoi(strings.TrimPrefix(mantissa[i+1:], "+"))
		if err != nil || e < -40 || e > 40 {
			return bad
		}
		mantissa, exp = mantissa[:i], e
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	if exp9 := exp + 9 - len(frac); whole == "" || whole[0] < '0' || whole[0] > '9' {
		return bad
	} else {
		digits := strings.TrimLeft(whole+frac, "0")
		for ; exp9 < 0; exp9++ {
			if digits == "" {
				break
			}
			if digits[len(digits)-1] != '0' {
				return bad
			}
			digits = digits[:len(digits)-1]
		}
		if digits == "" {
			*u = 0
			return nil
		}
		if len(digits)+exp9 > 19 {
			return bad
		}
		v, err := strconv.ParseInt(digits+strings.Repeat("0", exp9), 10, 64)
		if err != nil || USD(v) > MaxUSD {
			return bad
		}
		*u = USD(v)
	}
	return nil
}

// JSON is one free-form JSON value as its text, without insignificant white space. Empty means absent. Being text, it
// keeps every number's digits.
type JSON string

// MarshalJSON writes the value as it is.
func (j JSON) MarshalJSON() ([]byte, error) {
	if j == "" {
		return []byte("null"), nil
	}
	return []byte(j), nil
}

// UnmarshalJSON keeps the text of a valid value, compacted.
func (j *JSON) UnmarshalJSON(b []byte) error {
	var buf bytes.Buffer
	if err := json.Compact(&buf, b); err != nil {
		return err
	}
	*j = JSON(buf.String())
	return nil
}

// IsObject reports whether the value is a JSON object.
func (j JSON) IsObject() bool { return len(j) > 0 && j[0] == '{' }

// Label is one key with its value.
type Label struct {
	Key   string
	Value string
}

// Labels is a set of labels, sorted by key. It is a slice, not a map, so that its encoding is always the same bytes;
// in JSON it is an object.
type Labels []Label

// LabelsOf sorts a map into Labels.
func LabelsOf(m map[string]string) Labels {
	if len(m) == 0 {
		return nil
	}
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, Label{k, v})
	}
	slices.SortFunc(l, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	return l
}

// Get returns the value of a key and whether there is one.
func (l Labels) Get(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(l, key, func(a Label, k string) int { return strings.Compare(a.Key, k) })
	if !ok {
		return "", false
	}
	return l[i].Value, true
}

// MarshalJSON writes an object with its members in order.
func (l Labels) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, label := range l {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := json.Marshal(label.Key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(label.Value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, k...), ':'), v...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads an object whose values are strings.
func (l *Labels) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return errors.New("must be an object whose values are strings")
	}
	*l = LabelsOf(m)
	return nil
}
