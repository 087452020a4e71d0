package cluster

// This file tests the network in memory.

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// linked is the two ends of a stream from a to b.
func linked(t *testing.T, n *MemoryNetwork) (near, far io.ReadWriteCloser) {
	t.Helper()
	l, err := n.Host("b").Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Host("a").Dial(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestCutLinkHoldsWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		near, far := linked(t, n)
		n.CutOneWay("a", "b")
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatalf("writing over a cut link: %v", err)
		}
		_ = far.(*memoryConn).SetReadDeadline(time.Now().Add(time.Second))
		var b [5]byte
		if _, err := io.ReadFull(far, b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading over a cut link: got %q, %v, want %v", b, err, os.ErrDeadlineExceeded)
		}
		_ = far.(*memoryConn).SetReadDeadline(time.Time{})
		n.Heal()
		if _, err := io.ReadFull(far, b[:]); err != nil || string(b[:]) != "hello" {
			t.Errorf("after healing: got %q, %v, want hello", b, err)
		}
	})
}

func TestDelayOfALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		n.Delay("a", "b", 100*time.Millisecond)
		began := time.Now()
		near, far := linked(t, n)
		if got := time.Since(began); got != 200*time.Millisecond {
			t.Errorf("a dial took %s, want there and back", got)
		}
		began = time.Now()
		_, _ = near.Write([]byte("x"))
		_ = near.Close()
		if b, err := io.ReadAll(far); string(b) != "x" || err != nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("got %q, %v after %s, want x after 100 ms", b, err, time.Since(began))
		}
	})
}

func TestDialsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork()
		a := n.Host("a")
		n.Host("b")
		if _, err := a.Dial(t.Context(), "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: got %v, want %v", err, syscall.ECONNREFUSED)
		}
		n.Cut("a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the link is cut: got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestFullPipeBlocksItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := linked(t, NewMemoryNetwork())
		sent := make(chan error, 1)
		go func() {
			_, err := near.Write(make([]byte, 3*memoryPipeBytes))
			_ = near.Close()
			sent <- err
		}()
		synctest.Wait()
		select {
		case err := <-sent:
			t.Fatalf("writing more than the pipe holds ended with %v before anybody read", err)
		default:
		}
		if b, err := io.ReadAll(far); len(b) != 3*memoryPipeBytes || err != nil || <-sent != nil {
			t.Errorf("got %d bytes, %v, want %d", len(b), err, 3*memoryPipeBytes)
		}
	})
}
