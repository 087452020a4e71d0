package cluster

// This file is what stands before memberlist: only what a node of this cluster would send gets to it. memberlist decrypts, but first it
// takes up to 20 MiB from whoever connects; and it trusts whoever has the key, down to lengths that it indexes by.

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/tinylib/msgp/msgp"
)

// What the guard lets through. A message of 64 KiB has room for a hundred nodes.
const (
	maxGossipMessage = 64 << 10
	maxGossipMembers = 256
	maxGossipStreams = 64 // that others opened, whoever they are; over that they are closed at once
	maxGossipMerges  = 4  // of these, how many memberlist answers at once
	gossipSlotWait   = 5 * time.Second
)

// What memberlist's protocol is made of, as far as the guard looks at it.
const (
	gossipPing       = 0
	gossipAck        = 2
	gossipPushPull   = 6
	gossipCompound   = 7
	gossipCompressed = 9
	gossipEncrypted  = 10
	gossipSummed     = 12
	gossipError      = 13

	gossipCipher = 1 // the version that uses no padding
	gossipHead   = 5 // of an encrypted stream: its kind and its length
	gossipVsn    = 6 // bytes that say which protocols a node speaks
)

var (
	errStranger     = errors.New("it was not made with this cluster's gossip key")
	errNotOurGossip = errors.New("it is nothing that a node of this cluster sends")
	errGossipBusy   = errors.New("too many gossip streams at once")
)

// gossipGuard is a memberlist.Transport over another.
type gossipGuard struct {
	memberlist.Transport
	aead    cipher.AEAD
	refused func(from net.Addr, why error)

	packets chan *memberlist.Packet
	streams chan net.Conn
	open    chan struct{} // a place for each stream that others opened
	merging chan struct{}
	done    chan struct{}
	end     sync.Once
}

func guardGossip(inner memberlist.Transport, key []byte, refused func(from net.Addr, why error)) (*gossipGuard, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	g := &gossipGuard{
		Transport: inner, aead: aead, refused: refused, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		open: make(chan struct{}, maxGossipStreams), merging: make(chan struct{}, maxGossipMerges), done: make(chan struct{}),
	}
	go g.run()
	return g, nil
}

// PacketCh and StreamCh hand out what was let through.
func (g *gossipGuard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossipGuard) StreamCh() <-chan net.Conn           { return g.streams }

// DialTimeout opens a stream whose answer is judged too: an address may be anybody's.
func (g *gossipGuard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	return &gossipStream{Conn: conn, guard: g}, nil
}

// Shutdown ends the transport below first: it waits until all that it has read was taken.
func (g *gossipGuard) Shutdown() error {
	err := g.Transport.Shutdown()
	g.end.Do(func() { close(g.done) })
	return err
}

// run judges packets at once, and streams when they are read.
func (g *gossipGuard) run() {
	for {
		select {
		case p := <-g.Transport.PacketCh():
			if err := g.judgePacket(p.Buf); err != nil {
				g.refused(p.From, err)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case conn := <-g.Transport.StreamCh():
			select {
			case g.open <- struct{}{}:
			default:
				g.refused(conn.RemoteAddr(), errGossipBusy)
				_ = conn.Close()
				continue
			}
			select {
			case g.streams <- &gossipStream{Conn: conn, guard: g, theirs: true}:
			case <-g.done:
				_ = conn.Close()
				return
			}
		case <-g.done:
			return
		}
	}
}

// decrypt opens what memberlist will decrypt again.
func (g *gossipGuard) decrypt(sealed, head []byte) ([]byte, error) {
	if len(sealed) < 1+g.aead.NonceSize() || sealed[0] != gossipCipher {
		return nil, errStranger
	}
	nonce := sealed[1 : 1+g.aead.NonceSize()]
	plain, err := g.aead.Open(nil, nonce, sealed[1+len(nonce):], head)
	if err != nil {
		return nil, errStranger
	}
	return plain, nil
}

func (g *gossipGuard) judgePacket(sealed []byte) error {
	plain, err := g.decrypt(sealed, nil)
	if err != nil {
		return err
	}
	if len(plain) >= 5 && plain[0] == gossipSummed {
		plain = plain[5:]
	}
	if plain, err = inflate(plain); err != nil {
		return err
	}
	return judgeCommand(plain, true)
}

// inflate unpacks what is compressed, as nodes of older releases send it, unless it is too much: it can be a thousand times as large.
func inflate(plain []byte) ([]byte, error) {
	if len(plain) == 0 || plain[0] != gossipCompressed {
		return plain, nil
	}
	var packed []byte
	if _, err := eachField(plain[1:], func(key, value []byte) (err error) {
		if string(key) == "Buf" {
			packed, err = binaryOf(value)
		}
		return err
	}); err != nil {
		return nil, errNotOurGossip
	}
	r := lzw.NewReader(bytes.NewReader(packed), lzw.LSB, 8)
	defer r.Close()
	whole, err := io.ReadAll(io.LimitReader(r, maxGossipMessage+1))
	if err != nil || len(whole) > maxGossipMessage {
		return nil, errNotOurGossip
	}
	return whole, nil
}

// judgeCommand refuses what is compressed or packed twice.
func judgeCommand(plain []byte, packed bool) error {
	if len(plain) == 0 || plain[0] == gossipCompressed {
		return errNotOurGossip
	}
	if plain[0] != gossipCompound {
		return nil
	}
	if !packed || len(plain) < 2 || len(plain) < 2+2*int(plain[1]) {
		return errNotOurGossip
	}
	lengths, parts := plain[2:2+2*int(plain[1])], plain[2+2*int(plain[1]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(parts) {
			return errNotOurGossip
		}
		if err := judgeCommand(parts[:n], false); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// judgeStream refuses what is of no kind that goes over streams, and a table of members that memberlist would stumble over.
func judgeStream(plain []byte) error {
	if len(plain) == 0 {
		return errNotOurGossip
	}
	switch plain[0] {
	case gossipPing, gossipAck, gossipError:
		return nil
	case gossipPushPull:
		return judgeMembers(plain[1:])
	}
	return errNotOurGossip
}

func judgeMembers(b []byte) error {
	members := 0
	rest, err := eachField(b, func(key, value []byte) error {
		switch string(key) {
		case "Nodes":
			n, _, err := msgp.ReadIntBytes(value)
			if err != nil || n < 0 || n > maxGossipMembers {
				return errNotOurGossip
			}
			members = n
		case "UserStateLen":
			if n, _, err := msgp.ReadIntBytes(value); err != nil || n != 0 {
				return errNotOurGossip
			}
		}
		return nil
	})
	for ; err == nil && members > 0; members-- {
		rest, err = eachField(rest, func(key, value []byte) error {
			if string(key) != "Vsn" {
				return nil
			}
			vsn, err := binaryOf(value)
			if err != nil || len(vsn) != gossipVsn {
				return errNotOurGossip
			}
			return nil
		})
	}
	return err
}

// eachField calls fn with each key and value of a map, and returns what comes after it.
func eachField(b []byte, fn func(key, value []byte) error) (rest []byte, err error) {
	fields, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return nil, errNotOurGossip
	}
	for range fields {
		key, value, err := msgp.ReadStringZC(b)
		if err != nil {
			return nil, errNotOurGossip
		}
		if b, err = msgp.Skip(value); err != nil {
			return nil, errNotOurGossip
		}
		if err := fn(key, value[:len(value)-len(b)]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// binaryOf is a value in either of the forms in which bytes are written.
func binaryOf(value []byte) (b []byte, err error) {
	if msgp.NextType(value) == msgp.BinType {
		b, _, err = msgp.ReadBytesZC(value)
	} else {
		b, _, err = msgp.ReadStringZC(value)
	}
	return b, err
}

// gossipStream is a stream over which one message comes. It is judged before a byte of it is handed on. Used by one goroutine.
type gossipStream struct {
	net.Conn
	guard  *gossipGuard
	theirs bool // somebody else opened it

	message *bytes.Reader
	merging bool
	closed  sync.Once
}

func (s *gossipStream) Read(b []byte) (int, error) {
	if s.message == nil {
		message, err := s.receive()
		if err != nil {
			return 0, err
		}
		s.message = bytes.NewReader(message)
	}
	return s.message.Read(b)
}

// receive reads the message. Who made it is known before it takes a place of the few in which messages are answered.
func (s *gossipStream) receive() (message []byte, err error) {
	defer func() {
		if errors.Is(err, errStranger) || errors.Is(err, errNotOurGossip) || errors.Is(err, errGossipBusy) {
			s.guard.refused(s.RemoteAddr(), err)
		}
	}()
	head := make([]byte, gossipHead)
	if _, err := io.ReadFull(s.Conn, head); err != nil {
		return nil, err
	}
	if head[0] != gossipEncrypted {
		return nil, errStranger
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxGossipMessage {
		return nil, errNotOurGossip
	}
	message = append(head, make([]byte, size)...)
	if _, err := io.ReadFull(s.Conn, message[gossipHead:]); err != nil {
		return nil, err
	}
	plain, err := s.guard.decrypt(message[gossipHead:], message[:gossipHead])
	if err == nil {
		plain, err = inflate(plain)
	}
	if err == nil {
		err = judgeStream(plain)
	}
	if err != nil || !s.theirs {
		return message, err
	}
	timer := time.NewTimer(gossipSlotWait)
	defer timer.Stop()
	select {
	case s.guard.merging <- struct{}{}:
		s.merging = true
		return message, nil
	case <-timer.C:
		return nil, errGossipBusy
	}
}

func (s *gossipStream) Close() error {
	s.closed.Do(func() {
		if s.merging {
			<-s.guard.merging
		}
		if s.theirs {
			<-s.guard.open
		}
	})
	return s.Conn.Close()
}
