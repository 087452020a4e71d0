package cluster

// This file attacks gossip over real sockets, from outside and with the key. Whatever is sent, Raft's configuration stays what it was.

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet/fsm"
)

// logLines counts what a node says.
type logLines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logLines) of(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// freeAddrs are addresses on loopback whose ports are free for streams and packets. They lie below those that the system gives to connections.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for port := 10_000 + os.Getpid()%200*100; len(addrs) < n; port++ {
		if port > 32_000 {
			t.Fatal("there are no free ports on loopback")
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if p, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			defer p.Close()
			addrs = append(addrs, l.Addr().String())
		}
	}
	return addrs
}

// underAttack is a cluster of three over real sockets.
type underAttack struct {
	t     *testing.T
	nodes []*Node
	addrs []string // of gossip
	logs  [3]*logLines
	key   []byte

	before []raft.Server
	leader *Node
	term   uint64
}

func attacked(t *testing.T) *underAttack {
	t.Helper()
	addrs := freeAddrs(t, 6)
	u := &underAttack{t: t, addrs: addrs[3:]}
	keys, err := deriveKeys([]byte("s"))
	if err != nil {
		t.Fatal(err)
	}
	u.key = keys.gossip
	for i := range 3 {
		u.logs[i] = &logLines{}
		name := fmt.Sprintf("n%d", i+1)
		n, err := Start(Config{
			Name: name, DataDir: filepath.Join(t.TempDir(), name), NodeAddr: addrs[i], GossipAddr: u.addrs[i], HTTPAddr: name + ":8400", Join: u.addrs,
			BootstrapExpect: 3, Secret: []byte("s"), Timing: TimingWAN, Storage: NewMemoryStorage(), Logger: hclog.New(&hclog.LoggerOptions{Output: u.logs[i]}),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Kill)
		u.nodes = append(u.nodes, n)
	}
	eventually(t, "all three vote and know each other", func() bool {
		for _, n := range u.nodes {
			if n.Ready() != nil || len(n.gossip.members()) != 2 {
				return false
			}
		}
		u.before, u.leader = u.nodes[0].configuration(), leaderOf(u.nodes)
		return len(u.before) == 3 && u.leader != nil && len(known(u.nodes[0])) == 3
	})
	u.term = u.leader.raftIfUp().CurrentTerm()
	return u
}

// unharmed waits until what was sent is dealt with, by an answer of each node to who has the key, and sees that all is as it was.
func (u *underAttack) unharmed() {
	u.t.Helper()
	for i, n := range u.nodes {
		eventually(u.t, n.Name()+" answers a probe that has the key", func() bool { return u.answers(u.addrs[i]) })
		if got := n.configuration(); !reflect.DeepEqual(got, u.before) {
			u.t.Errorf("%s: raft's configuration became %v, want %v", n.Name(), got, u.before)
		}
		a, err := n.Propose(u.t.Context(), fsm.Proposal{Caller: fsm.Caller{Actor: fsm.ActorRoot}, Command: submit(fmt.Sprint("at", i, time.Now().UnixNano()))})
		if err != nil || a.Err != nil {
			u.t.Errorf("writing at %s: %v, %v", n.Name(), err, a.Err)
		}
	}
	if got := u.leader.raftIfUp().CurrentTerm(); got != u.term || !u.leader.IsLeader() {
		u.t.Errorf("the leader changed: term %d, want %d", got, u.term)
	}
	if n := len(u.nodes[0].gossip.known.all()); n > maxGossipMembers {
		u.t.Errorf("gossip has %d members, want %d at most", n, maxGossipMembers)
	}
}

// answers reports whether a node answers a ping over a stream.
func (u *underAttack) answers(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	ping := msgp.AppendMapHeader([]byte{gossipPing}, 1)
	ping = msgp.AppendUint32(msgp.AppendString(ping, "SeqNo"), 7)
	_, _ = conn.Write(u.stream(u.key, ping))
	got, _ := io.ReadAll(conn)
	return len(got) > gossipHead
}

// seal encrypts as memberlist does, after a head that counts as written with it.
func seal(key, head, plain []byte) []byte {
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	sealed := append([]byte{gossipCipher}, nonce...)
	return aead.Seal(sealed, nonce, plain, head)
}

func (u *underAttack) stream(key, plain []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{gossipEncrypted}, uint32(1+12+len(plain)+16))
	return append(head, seal(key, head, plain)...)
}

// send sends a packet to every node.
func (u *underAttack) send(packet []byte) {
	u.t.Helper()
	for _, addr := range u.addrs {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			u.t.Fatal(err)
		}
		_, err = conn.Write(packet)
		if err := errors.Join(err, conn.Close()); err != nil {
			u.t.Fatal(err)
		}
	}
}

// call sends a stream to every node, and waits for its end.
func (u *underAttack) call(message []byte) {
	u.t.Helper()
	for _, addr := range u.addrs {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			u.t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = conn.Write(message)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, err = io.Copy(io.Discard, conn)
		if err, ok := errors.AsType[net.Error](err); ok && err.Timeout() {
			u.t.Error("a node keeps a bad stream open")
		}
		_ = conn.Close()
	}
}

// says is a message of memberlist's: a kind and pairs of a field's name and its value.
func says(kind byte, fields ...any) []byte {
	b := []byte{kind}
	if kind == 0xff { // a row of a table has no kind
		b = nil
	}
	b = msgp.AppendMapHeader(b, uint32(len(fields)/2))
	for i := 0; i < len(fields); i += 2 {
		b, _ = msgp.AppendIntf(msgp.AppendString(b, fields[i].(string)), fields[i+1])
	}
	return b
}

// bomb is zeros that LZW made small.
func bomb(size int) []byte { return compressed(io.LimitReader(zeros{}, int64(size))) }

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func compressed(plain io.Reader) []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	_, _ = io.Copy(w, plain)
	_ = w.Close()
	return says(gossipCompressed, "Algo", 0, "Buf", b.Bytes())
}

// heapPeak is how much more heap was in use at the worst moment of fn.
func heapPeak(fn func()) uint64 {
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, peak, done, ended := inUse(), uint64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			peak = max(peak, inUse())
			select {
			case <-tick.C:
			case <-done:
				tick.Stop()
				return
			}
		}
	}()
	fn()
	close(done)
	<-ended
	return peak - min(before, peak)
}

const gossipHeap = 256 << 20 // generous, for three nodes

func TestGossipOfStrangers(t *testing.T) {
	u := attacked(t)
	other := bytes.Repeat([]byte{7}, 32)
	vsn := []byte{1, 5, 2, 0, 0, 0}
	small, large := bomb(16<<20), bomb(64<<20)
	chunk := make([]byte, 1<<20) // of all: one each, and the race detector's shadows of them, stop the process for most of a second
	peak := heapPeak(func() {
		for i := range 500 {
			junk := make([]byte, 1400)
			rand.Read(junk)
			u.send(junk)
			u.send(append([]byte{244, 20}, fmt.Sprintf("%020s and more", strings.Repeat(string(rune('g'+i%20)), i%20))...)) // a label
			u.send(seal(other, nil, says(4, "Incarnation", 1000, "Node", "x", "Addr", []byte{127, 0, 0, 1}, "Port", 9, "Meta", []byte("{}"), "Vsn", vsn)))
		}
		u.send(bytes.Repeat([]byte{1}, 65000))
		u.send(seal(other, nil, small))
		u.call(bytes.Repeat([]byte{1}, 64<<10))
		u.call(u.stream(other, large))
		u.call(u.stream(other, says(gossipPushPull, "Nodes", 1_000_000, "UserStateLen", 0, "Join", true)))
		var wait sync.WaitGroup
		for i := range 60 { // 60 times the 20 MiB that memberlist would take
			wait.Go(func() {
				conn, err := net.Dial("tcp", u.addrs[i%3])
				if err != nil {
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{gossipEncrypted}, 20<<20))
				for range 20 {
					if _, err := conn.Write(chunk); err != nil {
						return
					}
				}
			})
		}
		wait.Wait()
	})
	u.unharmed()
	if peak > gossipHeap {
		t.Errorf("the heap grew by %d MiB, want %d at most", peak>>20, gossipHeap>>20)
	}
	for i, l := range u.logs {
		if n := l.of("gossip: "); n > 10 {
			t.Errorf("n%d said %d lines of gossip, want one a minute of a kind:\n%.2000s", i+1, n, l.buf.String())
		}
		if n := l.of("dropping gossip"); n < 1 || n > 2 {
			t.Errorf("n%d warned %d times, want once a minute", i+1, n)
		}
	}
}

// Whoever has the key can say what he likes: gossip only suggests addresses.
func TestGossipWithTheKey(t *testing.T) {
	u := attacked(t)
	vsn := []byte{1, 5, 2, 0, 0, 0}
	alive := func(incarnation int, id, meta string, vsn []byte) []byte {
		return says(4, "Incarnation", incarnation, "Node", id, "Addr", []byte{127, 0, 0, 1}, "Port", 9, "Meta", []byte(meta), "Vsn", vsn)
	}
	var last []byte
	small, large := bomb(16<<20), bomb(64<<20)
	peak := heapPeak(func() {
		for i, s := range u.before {
			id := string(s.ID)
			meta, _ := json.Marshal(gossipMember{ID: id, Name: fmt.Sprintf("n%d", i+1), NodeAddr: "127.0.0.1:9", HTTPAddr: "127.0.0.1:9"})
			for _, plain := range [][]byte{
				alive(1<<20, id, string(meta), vsn), // of itself, from a higher incarnation, elsewhere
				alive(1<<20, id, "{}", vsn),
				says(5, "Incarnation", 1<<21, "Node", id, "From", "somebody"), // dead
				says(3, "Incarnation", 1<<21, "Node", id, "From", "somebody"), // suspect
				alive(1<<22, id, string(meta), vsn[:1]),
			} {
				last = seal(u.key, nil, plain)
				u.send(last)
				u.send(last) // replayed
			}
		}
		for i := range 500 {
			id := fmt.Sprintf("stranger%d", i)
			meta, _ := json.Marshal(gossipMember{ID: id, Name: "n1", NodeAddr: "127.0.0.1:9", HTTPAddr: "127.0.0.1:9"}) // n1's name
			u.send(seal(u.key, nil, alive(1, id, string(meta), vsn)))
		}
		u.send(seal(u.key, nil, small))
		u.send(seal(u.key, nil, append(binary.BigEndian.AppendUint16([]byte{gossipCompound, 1}, uint16(len(small))), small...)))
		u.send(seal(u.key, nil, nil))
		u.call(u.stream(u.key, bomb(512 << 20)[:60<<10]))
		u.call(u.stream(u.key, large))
		u.call(u.stream(u.key, nil))
		u.call(u.stream(u.key, says(gossipCompressed, "Algo", 0, "Buf", []byte{})))
		for range 100 {
			u.call(u.stream(u.key, says(gossipPushPull, "Nodes", 1_000_000, "UserStateLen", 0, "Join", true)))
		}
		table := says(gossipPushPull, "Nodes", 1, "UserStateLen", 0, "Join", true)
		u.call(u.stream(u.key, append(table, says(0xff, "Name", "x", "Addr", []byte{127, 0, 0, 1}, "Port", 9, "Meta", []byte("{}"), "Incarnation", 1, "State", 0, "Vsn", []byte{1})...)))
	})
	u.unharmed()
	if peak > gossipHeap {
		t.Errorf("the heap grew by %d MiB, want %d at most", peak>>20, gossipHeap>>20)
	}
}

// Nodes of older releases compress what they send. It gets through, unless it is too large or nothing of theirs.
func TestCompressedGossip(t *testing.T) {
	key := make([]byte, 32)
	inner, err := NewMemoryNetwork().Host("n1").Gossip("n1:8402")
	if err != nil {
		t.Fatal(err)
	}
	g, err := guardGossip(inner, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Shutdown() }()
	ping := says(gossipPing, "SeqNo", 1, "Node", "n1")
	pair := append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{gossipCompound, 2}, uint16(len(ping))), uint16(len(ping))), append(ping, ping...)...)
	for _, c := range []struct {
		what  string
		plain []byte
		want  error
	}{
		{"a message", compressed(bytes.NewReader(ping)), nil},
		{"two in one packet", compressed(bytes.NewReader(pair)), nil},
		{"one compressed twice", compressed(bytes.NewReader(compressed(bytes.NewReader(ping)))), errNotOurGossip},
		{"too large a message", bomb(maxGossipMessage + 1), errNotOurGossip},
		{"nothing", bomb(0), errNotOurGossip},
		{"what is not compressed at all", says(gossipCompressed, "Algo", 0, "Buf", []byte("x")), errNotOurGossip},
		{"what ends early", says(gossipCompressed)[:1], errNotOurGossip},
	} {
		if err := g.judgePacket(seal(key, nil, c.plain)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
}
