package cluster

// This file tests the leader's clock in virtual time: it follows the median, never back and never in jumps forward but one.

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lysnrai/fleet"
)

func newTestClock(stamp fleet.Time) *leaderClock {
	c := &leaderClock{known: true}
	c.set(stamp, time.Now())
	return c
}

func TestStampsCountOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), fleet.Time(1e18).Add(10); got != want {
			t.Errorf("ten seconds later: got %v, want %v", got, want)
		}
	})
}

// Ahead of the median by more than a second, the stamps run at nine tenths until they meet.
func TestStampsAheadSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(fleet.Time(1e18).Add(5))
		begin := time.Now()
		median := func() fleet.Time { return fleet.Time(1e18) + fleet.Time(time.Since(begin)) }
		c.follow(t.Context(), median())
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), fleet.Time(1e18).Add(5+9); got != want {
			t.Errorf("ten slow seconds later: got %v, want %v", got, want)
		}
		time.Sleep(40 * time.Second)
		c.follow(t.Context(), median())
		before := c.stamp()
		time.Sleep(10 * time.Second)
		if got, want := c.stamp(), before.Add(10); got != want {
			t.Errorf("after they met: got %v, want %v", got, want)
		}
	})
}

func TestRetentionWaitsAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		if c.mayRetire() {
			t.Error("right after the start: got true, want false")
		}
		time.Sleep(time.Hour)
		if !c.mayRetire() {
			t.Error("an hour later: got false, want true")
		}
		c.ahead = 61 * time.Second
		if c.mayRetire() {
			t.Error("over a minute ahead of the median: got true, want false")
		}
	})
}

// A time that jumps forward is first seen by an entry that begins with a leader change, and by nothing before: leases that nobody
// could renew meanwhile are not ended by the jump.
func TestStampsJumpWithALeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		n := &Node{log: hclog.NewNullLogger(), closing: make(chan struct{})}
		n.proposer = newProposer(n) // turns everything away
		c.node = n
		c.follow(t.Context(), fleet.Time(1e18).Add(3600))
		if got := c.stamp(); got != 1e18 {
			t.Errorf("before the entry: got %v, want %v", got, fleet.Time(1e18))
		}
		time.Sleep(2 * time.Second)
		if got, change := c.next(); got != fleet.Time(1e18).Add(3602) || !change {
			t.Errorf("the next entry: got %v, %t, want the median with a leader change", got, change)
		}
		if _, change := c.next(); !change {
			t.Error("the entry after one that was turned away: want a leader change too")
		}
		c.changed()
		if _, change := c.next(); change {
			t.Error("the entry after that: want no other leader change")
		}
		if c.mayRetire() {
			t.Error("after a jump: want retention to wait an hour")
		}
	})
}

// Over 5 s behind is a jump, less is not.
func TestStampsALittleBehindStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		c.follow(t.Context(), fleet.Time(1e18).Add(5))
		if got, change := c.next(); got != 1e18 || change {
			t.Errorf("5 s behind the median: got %v, %t, want no change", got, change)
		}
	})
}

// A new leader starts from the log's time too, when that is ahead of the median.
func TestStampsReachTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		c.reach(fleet.Time(1e18).Add(3600))
		if got, want := c.stamp(), fleet.Time(1e18).Add(3600); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		c.reach(1e18)
		if got, want := c.stamp(), fleet.Time(1e18).Add(3600); got != want {
			t.Errorf("after an earlier time: got %v, want %v", got, want)
		}
	})
}

// wrongClock is a wall clock that is off.
type wrongClock time.Duration

func (w wrongClock) Now() time.Time { return time.Now().Add(time.Duration(w)) }

// One voter's clock that is a day ahead moves no stamp, whoever leads.
func TestStampsFollowTheMedian(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var nodes []*Node
		for i, clock := range []Clock{wrongClock(24 * time.Hour), nil, nil} {
			nodes = append(nodes, member(t, n, Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, Clock: clock}))
		}
		eventually(t, "a node leads", func() bool { return leaderOf(nodes) != nil && len(known(leaderOf(nodes))) == 3 })
		for _, name := range []string{"n1", "n2", "n3", "n1"} {
			eventually(t, name+" leads", func() bool {
				leader := leaderOf(nodes)
				if leader != nil && leader.Name() != name {
					_ = leader.TransferLeadership(t.Context(), name)
				}
				return leader != nil && leader.Name() == name
			})
			time.Sleep(time.Minute)
			if off := leaderOf(nodes).Now().Sub(fleet.TimeOf(time.Now())).Abs(); off > time.Second {
				t.Errorf("the stamps of %s are %v off, want those of the two good clocks", name, off)
			}
		}
	})
}

// A leader that does not hear a majority of the clocks soon goes on from the log's time: its own might be a day ahead.
func TestStampsDoNotFollowOneClockAlone(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var nodes []*Node
		for i, clock := range []Clock{wrongClock(24 * time.Hour), nil, nil} {
			cfg := Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, Clock: clock, Timing: TimingWAN}
			nodes = append(nodes, member(t, n, cfg))
		}
		leads := func(name string) {
			eventually(t, name+" leads", func() bool {
				leader := leaderOf(nodes)
				if leader != nil && leader.Name() != name {
					_ = leader.TransferLeadership(t.Context(), name)
				}
				return leader != nil && leader.Name() == name
			})
		}
		right := func(when string) {
			if off := leaderOf(nodes).Now().Sub(fleet.TimeOf(time.Now())).Abs(); off > jumpBehind {
				t.Errorf("%s: the stamps are %v off, want those of the two good clocks", when, off)
			}
		}
		eventually(t, "all three are known", func() bool { return len(known(nodes[0])) == 3 })
		leads("n2")
		n.Delay("n1", "n2", medianWait*11/20)
		n.Delay("n1", "n3", medianWait*11/20)
		leads("n1")
		right("at the start of a term")
		time.Sleep(time.Minute)
		if leaderOf(nodes) == nil || leaderOf(nodes).Name() != "n1" {
			t.Fatal("n1 leads no more: the test has to give it a majority")
		}
		right("a minute later")
		if leaderOf(nodes).clock.mayRetire() {
			t.Error("retention: got true within the first hour, want false")
		}
	})
}

// settableClock is a wall clock that somebody sets.
type settableClock struct{ ahead atomic.Int64 }

func (c *settableClock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// A leader's clock that is set while it asks the others is one bad clock: what they have answered is not counted from it.
func TestMedianWhileTheClockIsSet(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n, own := NewMemoryNetwork(), &settableClock{}
		var nodes []*Node
		for i, clock := range []Clock{own, nil, nil} {
			nodes = append(nodes, member(t, n, Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, Clock: clock}))
		}
		eventually(t, "all three are known", func() bool { return leaderOf(nodes) != nil && len(known(nodes[0])) == 3 })
		n.Cut("n1", "n3") // so that it waits after it has heard the other
		time.AfterFunc(medianWait/2, func() { own.ahead.Store(int64(time.Hour)) })
		median, ok := nodes[0].clock.median(t.Context(), medianWait)
		if off := median.Sub(fleet.TimeOf(time.Now())).Abs(); !ok || off > time.Second {
			t.Errorf("the median: got %t, %v off, want it right: two of three clocks were, as they were read", ok, off)
		}
	})
}

// A median that is not known keeps what can't be undone.
func TestNothingIsRetiredByOneClockAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock(1e18)
		time.Sleep(time.Hour)
		c.known = false
		if c.mayRetire() {
			t.Error("the median is not known: got true, want false")
		}
	})
}

// A node whose clock is over 5 s from the median of the voters' says so.
func TestNodeWithAWrongClockSaysSo(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		var log bytes.Buffer
		var mu sync.Mutex
		said := func() bool { mu.Lock(); defer mu.Unlock(); return strings.Contains(log.String(), "clock differs") }
		var nodes []*Node
		for i, clock := range []Clock{wrongClock(-time.Hour), nil, nil} {
			cfg := Config{Name: fmt.Sprintf("n%d", i+1), BootstrapExpect: 3, Join: three, Clock: clock}
			if i == 0 {
				cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Mutex: &mu})
			}
			nodes = append(nodes, member(t, n, cfg))
		}
		eventually(t, "the node says so", said)
		if off := time.Duration(nodes[0].membership.clockAhead.Load()); (off + time.Hour).Abs() > time.Second {
			t.Errorf("its offset: got %v, want an hour behind", off)
		}
		if off := time.Duration(nodes[1].membership.clockAhead.Load()).Abs(); off > time.Second {
			t.Errorf("the offset of a node whose clock is right: got %v, want none", off)
		}
		eventually(t, "its ages are taken by the leader's stamps", func() bool {
			return nodes[0].Now().Sub(fleet.TimeOf(time.Now())).Abs() < time.Second
		})
		eventually(t, "a node leads", func() bool { return leaderOf(nodes) != nil })
		eventually(t, "the status of every node shows it", func() bool {
			for _, node := range nodes {
				s, err := node.Status(t.Context())
				if err != nil || len(s.Nodes) != 3 {
					return false
				}
				for _, other := range s.Nodes {
					want := 0.0
					if other.Name == "n1" {
						want = -3600
					}
					if d := other.ClockOffsetSeconds - want; d > 1 || d < -1 {
						return false
					}
				}
			}
			return true
		})
	})
}
