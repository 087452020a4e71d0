package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Any change of what an entry means is found.
func TestChecksumCoversTheEntry(t *testing.T) {
	sealed := func() raft.Log {
		l := raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: []byte("data")}
		l.Extensions = checksum(&l)
		return l
	}
	good := sealed()
	good.AppendedAt = time.Unix(1, 0)
	if err := verifyLog(&good); err != nil {
		t.Errorf("an entry as it was written: %v", err)
	}
	for name, change := range map[string]func(*raft.Log){
		"index":       func(l *raft.Log) { l.Index++ },
		"term":        func(l *raft.Log) { l.Term++ },
		"type":        func(l *raft.Log) { l.Type = raft.LogNoop },
		"data":        func(l *raft.Log) { l.Data = []byte("dota") },
		"length":      func(l *raft.Log) { l.Data = l.Data[:3] },
		"checksum":    func(l *raft.Log) { l.Extensions[0] ^= 1 },
		"no checksum": func(l *raft.Log) { l.Extensions = nil },
	} {
		l := sealed()
		change(&l)
		if err := verifyLog(&l); !errors.Is(err, errChecksum) {
			t.Errorf("%s changed: got %v, want %v", name, err, errChecksum)
		}
	}
}

// A follower does not store what is not as the leader wrote it.
func TestChecksumIsVerifiedByFollowers(t *testing.T) {
	log := checkedLog{raft.NewInmemStore()}
	l := &raft.Log{Index: 1, Term: 1, Data: []byte("data")}
	if err := log.StoreLog(l); err != nil {
		t.Fatal(err)
	}
	damaged := *l
	damaged.Index, damaged.Data = 2, []byte("dota")
	if err := log.StoreLog(&damaged); !errors.Is(err, errChecksum) {
		t.Errorf("got %v, want %v", err, errChecksum)
	}
	if last, _ := log.LastIndex(); last != 1 {
		t.Errorf("last entry: got %d, want 1", last)
	}
}

// An entry in another's place has a good checksum of its own.
func TestChecksumOfAnotherEntry(t *testing.T) {
	inner := raft.NewInmemStore()
	log := checkedLog{inner}
	if err := log.StoreLogs(entries(1, 2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := log.GetLog(1, &raft.Log{}); err != nil {
		t.Fatal(err)
	}
	if err := (checkedLog{misplaced{inner}}).GetLog(1, &raft.Log{}); !errors.Is(err, errChecksum) {
		t.Errorf("got %v, want %v", err, errChecksum)
	}
}

// misplaced gives the next entry.
type misplaced struct{ raft.LogStore }

func (m misplaced) GetLog(index uint64, l *raft.Log) error { return m.LogStore.GetLog(index+1, l) }

// The checksum travels with the entry.
func TestChecksumSurvivesTheWire(t *testing.T) {
	from, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 5*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 5*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	logs := entries(1, 2, 1)
	if err := (checkedLog{raft.NewInmemStore()}).StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	got := make(chan []*raft.Log, 1)
	go func() {
		rpc := <-to.Consumer()
		got <- rpc.Command.(*raft.AppendEntriesRequest).Entries
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	}()
	err = from.AppendEntries("to", to.LocalAddr(), &raft.AppendEntriesRequest{Entries: logs}, &raft.AppendEntriesResponse{})
	if err != nil {
		t.Fatal(err)
	}
	received := <-got
	if len(received) != len(logs) {
		t.Fatalf("entries: got %d, want %d", len(received), len(logs))
	}
	for _, l := range received {
		if err := verifyLog(l); err != nil {
			t.Error(err)
		}
	}
}

// raft must not take a lost vote for one that was never given.
func TestChecksumFindsALostValue(t *testing.T) {
	inner := raft.NewInmemStore()
	stable := checkedStable{inner}
	if _, err := stable.GetUint64([]byte("LastVoteTerm")); err == nil || !isNotFound(err) {
		t.Errorf("before it is set: got %v, want not found", err)
	}
	if err := stable.SetUint64([]byte("LastVoteTerm"), 4); err != nil {
		t.Fatal(err)
	}
	if got, err := stable.GetUint64([]byte("LastVoteTerm")); err != nil || got != 4 {
		t.Errorf("got %d, %v, want 4", got, err)
	}
	if err := inner.Set([]byte("LastVoteTerm"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := stable.GetUint64([]byte("LastVoteTerm")); !errors.Is(err, errChecksum) {
		t.Errorf("when it is lost: got %v, want %v", err, errChecksum)
	}
}
