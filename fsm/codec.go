package fsm

// This file numbers the commands and their results, and turns entries and answers into bytes and back.

import (
	"github.com/lysnrai/fleet"
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

// EncodeEntry is the bytes of a log entry: a format version, then the entry.
func EncodeEntry(e *Entry) ([]byte, error) { panic("todo") }

// DecodeEntry reads the bytes of EncodeEntry. The error wraps ErrFormat if they are of a newer format or have a command that this
// build does not know, else ErrCorrupt.
func DecodeEntry(b []byte) (*Entry, error) { panic("todo") }

// AppendProposal and DecodeProposal are one proposal's bytes, for a follower that forwards it.
func AppendProposal(b []byte, p *Proposal) ([]byte, error) { panic("todo") }

// DecodeProposal reads one proposal and returns what follows it.
func DecodeProposal(b []byte) (*Proposal, []byte, error) { panic("todo") }

// AppendAnswer and DecodeAnswer are one answer's bytes, for the leader that answers a forwarded proposal.
func AppendAnswer(b []byte, a *Answer) ([]byte, error) { panic("todo") }

// DecodeAnswer reads one answer and returns what follows it.
func DecodeAnswer(b []byte) (Answer, []byte, error) { panic("todo") }
