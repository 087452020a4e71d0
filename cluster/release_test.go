package cluster

// This file tests that this build writes what the release before can read: byte for byte what that release wrote itself.

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/lysnrai/fleet/fsm"
	"github.com/lysnrai/fleet/internal/release"
)

// Every entry and snapshot of the first release, read and written again at its level, has the bytes that it had, and a node's state has
// the bytes of the other's snapshot: so what this build writes before the level rises is what that release would have written.
func TestFirstLevelIsWrittenAsItWas(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "cmd", "fleet-node", "testdata", "releases", "level1-*.tar.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v, want the first release", files, err)
	}
	commands, entries, snapshots := map[string]int{}, 0, 0
	for _, file := range files {
		to := t.TempDir()
		if err := release.Unpack(file, to); err != nil {
			t.Fatal(err)
		}
		dirs, err := filepath.Glob(filepath.Join(to, "n[0-9]"))
		if err != nil || len(dirs) == 0 {
			t.Fatalf("%s: got %q, %v, want data directories", file, dirs, err)
		}
		for _, dir := range dirs {
			name := filepath.Base(file) + " " + filepath.Base(dir)
			cfg, err := Config{Name: filepath.Base(dir), DataDir: dir, NodeAddr: "x:1", GossipAddr: "x:2", Secret: []byte("x"), Timing: TimingLocal}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			stores, err := openStores(&cfg, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			machine := fsm.New()
			list, err := stores.Snapshots.List()
			if err != nil {
				t.Fatal(err)
			}
			whole := map[uint64][]byte{} // snapshots that a replay of the log must come to, by index
			for _, meta := range list {
				_, content, err := stores.Snapshots.Open(meta.ID)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(content)
				_ = content.Close()
				if err != nil {
					t.Fatal(err)
				}
				m := fsm.New()
				if err := m.Restore(bytes.NewReader(b)); err != nil {
					t.Fatalf("%s: snapshot %s: %v", name, meta.ID, err)
				}
				snapshots++
				if fsm.IsRaised(b) { // what is behind the raise is what another cluster wrote, and the log before it is another history
					machine = m
					continue
				}
				if got := written(t, m); !bytes.Equal(got, b) {
					t.Errorf("%s: snapshot %s was read, and written again it has other bytes: %d, want %d", name, meta.ID, len(got), len(b))
				}
				whole[meta.Index] = b
			}
			first, err := stores.Log.FirstIndex()
			if err != nil {
				t.Fatal(err)
			}
			last, err := stores.Log.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			for index := first; index <= last; index++ {
				var l raft.Log
				if err := stores.Log.GetLog(index, &l); err != nil {
					t.Fatal(err)
				}
				if l.Type != raft.LogCommand {
					machine.Skip(index)
				} else {
					head, body, err := openEnvelope(l.Data)
					if err != nil {
						t.Fatal(err)
					}
					e, err := fsm.DecodeEntry(body)
					if err != nil {
						t.Fatalf("%s: entry %d: %v", name, index, err)
					}
					again, err := fsm.AppendEntry(nil, e)
					if err != nil || !bytes.Equal(append(head.append(nil), again...), l.Data) {
						t.Errorf("%s: entry %d was read, and written again it has other bytes: %v", name, index, err)
					}
					entries++
					for _, p := range e.Proposals {
						commands[strings.TrimPrefix(reflect.TypeOf(p.Command).String(), "*fsm.")]++
					}
					if index > machine.Index() {
						machine.Apply(index, e)
					}
				}
				if want := whole[index]; want != nil && first == 1 {
					if got := written(t, machine); !bytes.Equal(got, want) {
						t.Errorf("%s: the log up to entry %d comes to another state than the release that wrote it came to", name, index)
					}
				}
			}
			if got := machine.Level(); got != 1 {
				t.Errorf("%s: got level %d, want 1", name, got)
			}
			if err := stores.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if entries < 100 || snapshots < 4 || len(commands) < 17 {
		t.Errorf("got %d entries with %v, and %d snapshots: too few to say anything", entries, fmt.Sprint(commands), snapshots)
	}
}

func written(t *testing.T, m *fsm.Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.Handle().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
