package fsm

// This file numbers the commands and their results, and turns entries and answers into bytes and back.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

// Why bytes could not be read. A node that meets ErrFormat in its log must stop: it can't skip what it does not know.
var (
	ErrFormat  = errors.New("format is newer than this build")
	ErrCorrupt = errors.New("bytes are damaged")
)

// commands numbers every command for ever: append, never reuse.
var commands = []struct {
	number uint16
	new    func() Command
}{
	{1, func() Command { return new(Submit) }},
	{2, func() Command { return new(SubmitBatch) }},
	{3, func() Command { return new(Claim) }},
	{4, func() Command { return new(ClaimBatch) }},
	{5, func() Command { return new(Patch) }},
	{6, func() Command { return new(OperatorPatch) }},
	{7, func() Command { return new(Report) }},
	{8, func() Command { return new(Renew) }},
	{9, func() Command { return new(Release) }},
	{10, func() Command { return new(Cancel) }},
	{11, func() Command { return new(Requeue) }},
	{12, func() Command { return new(Heartbeat) }},
	{13, func() Command { return new(Comment) }},
	{14, func() Command { return new(AddArtifact) }},
	{15, func() Command { return new(PutProfile) }},
	{16, func() Command { return new(CreateToken) }},
	{17, func() Command { return new(DeleteToken) }},
	{18, func() Command { return new(Reap) }},
	{19, func() Command { return new(LeaderChange) }},
	{20, func() Command { return new(Noop) }},
	{21, func() Command { return new(Bootstrap) }},
	{22, func() Command { return new(PutServer) }},
	{23, func() Command { return new(RemoveServer) }},
	{24, func() Command { return new(Level) }},
	{25, func() Command { return new(Checkpoint) }},
}

// results numbers every result for ever: append, never reuse.
var results = []struct {
	number uint16
	new    func() Result
}{
	{1, func() Result { return new(fleet.SubmitResult) }},
	{2, func() Result { return new(fleet.SubmitResults) }},
	{3, func() Result { return new(fleet.Claim) }},
	{4, func() Result { return new(fleet.Claims) }},
	{5, func() Result { return new(fleet.Job) }},
	{6, func() Result { return new(fleet.ReportResults) }},
	{7, func() Result { return new(fleet.Lease) }},
	{8, func() Result { return new(fleet.HeartbeatResult) }},
	{9, func() Result { return new(fleet.Event) }},
	{10, func() Result { return new(fleet.Artifact) }},
	{11, func() Result { return new(fleet.ProfileResult) }},
	{12, func() Result { return new(fleet.Token) }},
	{13, func() Result { return new(Done) }},
	{14, func() Result { return new(Reaped) }},
}

// AppendEntry appends the bytes of a log entry: its level, then the entry.
func AppendEntry(b []byte, e *Entry) ([]byte, error) {
	size := 64
	for i := range e.Proposals {
		size += e.Proposals[i].Size()
	}
	b = append(append(slices.Grow(b, size), byte(e.Level())), e.Group[:]...)
	b = binary.AppendVarint(b, int64(e.Stamp))
	b = binary.AppendUvarint(b, uint64(len(e.Proposals)))
	for i := range e.Proposals {
		var err error
		if b, err = AppendProposal(b, &e.Proposals[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// DecodeEntry reads the bytes of AppendEntry. The error wraps ErrFormat if they are of a newer format or have a command that this
// build does not know, else ErrCorrupt.
func DecodeEntry(b []byte) (*Entry, error) {
	d := &reader{b: b}
	level := d.level()
	e := &Entry{}
	copy(e.Group[:], d.take(uint64(len(e.Group))))
	e.Stamp = fleet.Time(d.varint())
	n := d.uvarint()
	for i := uint64(0); i < n && d.err == nil; i++ { // grows as it is read: n is not to be trusted
		p := Proposal{}
		d.proposal(&p)
		e.Proposals = append(e.Proposals, p)
	}
	if d.end(); d.err == nil && e.Level() > level {
		d.fail(fmt.Errorf("%w: level %d holds what is of level %d", ErrCorrupt, level, e.Level()))
	}
	if d.err != nil {
		return nil, fmt.Errorf("decoding an entry: %w", d.err)
	}
	return e, nil
}

// Size is about how many bytes AppendProposal appends, rather more than fewer.
func (p *Proposal) Size() int {
	return p.Command.Msgsize() + len(p.Caller.Actor) + len(p.Key) + len(p.Request) + 64
}

// AppendProposal and DecodeProposal are one proposal's bytes, for a follower that forwards it.
func AppendProposal(b []byte, p *Proposal) ([]byte, error) {
	number, ok := commandNumbers[reflect.TypeOf(p.Command)]
	if !ok {
		return b, fmt.Errorf("encoding a proposal: %T has no number", p.Command)
	}
	level := LevelOf(p.Command)
	if level > MaxLevel {
		return b, fmt.Errorf("encoding a proposal: %T is of level %d, this build knows %d", p.Command, level, MaxLevel)
	}
	b = append(b, byte(level))
	b = appendText(appendText(appendText(b, p.Caller.Actor), p.Key), p.Request)
	return appendDocument(binary.AppendUvarint(b, uint64(number)), p.Command)
}

// DecodeProposal reads one proposal and returns what follows it.
func DecodeProposal(b []byte) (*Proposal, []byte, error) {
	d, p := &reader{b: b}, &Proposal{}
	if d.proposal(p); d.err != nil {
		return nil, nil, fmt.Errorf("decoding a proposal: %w", d.err)
	}
	return p, d.b, nil
}

func (d *reader) proposal(p *Proposal) {
	level := d.level()
	p.Caller.Actor, p.Key, p.Request = d.text(), d.text(), d.text()
	number := d.uvarint()
	if d.err != nil {
		return
	}
	for _, c := range commands {
		if uint64(c.number) == number {
			p.Command = c.new()
			if d.document(p.Command); d.err == nil && LevelOf(p.Command) > level {
				d.fail(fmt.Errorf("%w: level %d holds a command of level %d", ErrCorrupt, level, LevelOf(p.Command)))
			}
			return
		}
	}
	d.fail(fmt.Errorf("%w: command %d is unknown", ErrFormat, number))
}

// What an answer holds.
const (
	answerResult   = 1 << iota // a result row's number and document
	answerRefusal              // a refusal
	answerReplayed             // it was remembered
)

// AppendAnswer and DecodeAnswer are one answer's bytes, for the leader that answers a forwarded proposal.
func AppendAnswer(b []byte, a *Answer) ([]byte, error) {
	flags := byte(0)
	if a.Result != nil {
		flags |= answerResult
	}
	if a.Err != nil {
		flags |= answerRefusal
	}
	if a.Replayed {
		flags |= answerReplayed
	}
	b = binary.AppendUvarint(append(b, firstLevel, flags), a.Index)
	if a.Err != nil {
		b = appendRefusal(b, a.Err)
	}
	if a.Result == nil {
		return b, nil
	}
	return appendResult(b, a.Result)
}

// DecodeAnswer reads one answer and returns what follows it.
func DecodeAnswer(b []byte) (Answer, []byte, error) {
	d, a := &reader{b: b}, Answer{}
	d.level()
	flags := d.byte()
	a.Index = d.uvarint()
	a.Replayed = flags&answerReplayed != 0
	if flags&answerRefusal != 0 {
		a.Err = d.refusal()
	}
	if flags&answerResult != 0 {
		a.Result = d.result()
	}
	if flags > answerResult|answerRefusal|answerReplayed {
		d.fail(ErrCorrupt)
	}
	if d.err != nil {
		return Answer{}, nil, fmt.Errorf("decoding an answer: %w", d.err)
	}
	return a, d.b, nil
}

func appendResult(b []byte, r Result) ([]byte, error) {
	number, ok := resultNumbers[reflect.TypeOf(r)]
	if !ok {
		return b, fmt.Errorf("encoding an answer: %T has no number", r)
	}
	return appendDocument(binary.AppendUvarint(b, uint64(number)), r)
}

func (d *reader) result() Result {
	number := d.uvarint()
	if d.err != nil {
		return nil
	}
	for _, r := range results {
		if uint64(r.number) == number {
			result := r.new()
			d.document(result)
			return result
		}
	}
	d.fail(fmt.Errorf("%w: result %d is unknown", ErrFormat, number))
	return nil
}

func appendRefusal(b []byte, e *fleet.Error) []byte {
	b = appendText(appendText(b, string(e.Code)), e.Detail)
	b = binary.AppendUvarint(b, uint64(len(e.Fields)))
	for _, f := range e.Fields {
		b = appendText(appendText(b, f.Field), f.Detail)
	}
	b = appendTexts(b, e.Cycle)
	b = binary.AppendUvarint(b, e.CurrentEpoch)
	return binary.AppendVarint(b, e.RetryAfterSeconds)
}

func (d *reader) refusal() *fleet.Error {
	e := &fleet.Error{Code: fleet.Code(d.text()), Detail: d.text()}
	n := d.uvarint()
	for i := uint64(0); i < n && d.err == nil; i++ {
		e.Fields = append(e.Fields, fleet.FieldError{Field: d.text(), Detail: d.text()})
	}
	e.Cycle = d.texts()
	e.CurrentEpoch, e.RetryAfterSeconds = d.uvarint(), d.varint()
	return e
}

// appendDocument appends a document with its length before it.
func appendDocument(b []byte, doc msgp.Marshaler) ([]byte, error) {
	const room = 4 // for a length up to 256 MiB; shorter ones are padded, so that nothing is moved
	start := len(b)
	b = append(b, 0x80, 0x80, 0x80, 0)
	b, err := doc.MarshalMsg(b)
	n := len(b) - start - room
	if err == nil && n >= 1<<(7*room) {
		err = errors.New("it is too long")
	}
	if err != nil {
		return b[:start], fmt.Errorf("encoding %T of %d bytes: %w", doc, n, err)
	}
	for i := range room - 1 {
		b[start+i] = 0x80 | byte(n>>(7*i))
	}
	b[start+room-1] = byte(n >> (7 * (room - 1)))
	return b, nil
}

// The numbers by type.
var (
	commandNumbers = map[reflect.Type]uint16{}
	resultNumbers  = map[reflect.Type]uint16{}
)

func init() {
	for _, c := range commands {
		commandNumbers[reflect.TypeOf(c.new())] = c.number
	}
	for _, r := range results {
		resultNumbers[reflect.TypeOf(r.new())] = r.number
	}
}
