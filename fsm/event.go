package fsm

// This file records what happens to jobs: events, the comments among them, and artifacts.

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/lysnrai/fleet"
)

// record appends an event to a job and to the product's feed.
func (tx *tx) record(r *record, t fleet.EventType, data fleet.JSON) *fleet.Event {
	e := &fleet.Event{
		Seq: uint64(len(r.events)) + 1, Index: tx.p.nextEvent, JobID: r.job.ID, ProductID: tx.p.id,
		Type: t, At: tx.st.now, Actor: tx.caller.Actor, Data: data,
	}
	tx.p.nextEvent++
	tx.st.tally.events[t]++
	r.events = append(r.events, e)
	tx.p.feed.Set(e.Index, e)
	mention(&tx.news.Feeds, tx.p.id)
	return e
}

func (c *Comment) apply(tx *tx) (Result, error) {
	r, err := tx.remarked(c.JobID, c.LeaseEpoch)
	if err != nil {
		return nil, err
	}
	data := c.Data
	if c.LeaseEpoch != nil {
		data = signed(c.Data, r.lease.HolderFactoryID)
	}
	r = tx.edit(c.JobID)
	r.remarks++
	return tx.record(r, fleet.EventComment, data), nil
}

func (c *AddArtifact) apply(tx *tx) (Result, error) {
	q := &c.Request
	if _, err := tx.remarked(c.JobID, q.LeaseEpoch); err != nil {
		return nil, err
	}
	r := tx.edit(c.JobID)
	r.remarks++
	a := &fleet.Artifact{
		ID: c.JobID + "-a" + strconv.Itoa(len(r.artifacts)+1), JobID: c.JobID, ProductID: tx.p.id,
		Name: q.Name, Kind: q.Kind, URI: q.URI, SizeBytes: q.SizeBytes, SHA256: q.SHA256, CreatedAt: tx.st.now,
	}
	data := object{}
	if q.LeaseEpoch != nil {
		a.RunID = r.run().ID
		data = by(r)
	}
	r.artifacts = append(r.artifacts, a)
	tx.changed++
	tx.record(r, fleet.EventArtifactAdded, data.str("artifactId", a.ID).str("name", a.Name).str("kind", a.Kind).str("uri", a.URI).end())
	return a, nil
}

// remarked finds a job that its holder, or without an epoch an operator, may add a comment or an artifact to.
func (tx *tx) remarked(id string, epoch *uint64) (*record, error) {
	r, err := tx.job(id)
	if epoch != nil {
		r, err = tx.fenced(id, *epoch)
	}
	if err != nil {
		return nil, err
	}
	if r.remarks >= fleet.MaxRecords {
		e := fleet.Errorf(fleet.QuotaExceeded, "job %s has %d comments and artifacts, the most is %d", id, r.remarks, fleet.MaxRecords)
		e.RetryAfterSeconds = quotaRetrySeconds
		return nil, e
	}
	return r, nil
}

// quotaRetrySeconds is when to look again whether a bound of the product is still reached.
const quotaRetrySeconds = 60

// signed puts the worker's factory into the data of its comment, in place of what the worker says there.
func signed(data fleet.JSON, factory string) fleet.JSON {
	o := object{}.str("factoryId", factory)
	dec := json.NewDecoder(strings.NewReader(string(data)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return o.end()
	}
	for dec.More() {
		key, err := dec.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			break
		}
		if name != "factoryId" {
			o = o.raw(name, fleet.JSON(value))
		}
	}
	return o.end()
}

// object builds the data of an event: a JSON object, member by member. The zero object is empty.
type object []byte

// by begins the data of an event that the holder of a job brought about.
func by(r *record) object { return object{}.str("factoryId", r.lease.HolderFactoryID) }

func (o object) key(k string) object {
	if len(o) == 0 {
		o = append(make(object, 0, 128), '{')
	} else {
		o = append(o, ',')
	}
	return append(appendString(o, k), ':')
}

func (o object) str(k, v string) object            { return appendString(o.key(k), v) }
func (o object) num(k string, v int64) object      { return strconv.AppendInt(o.key(k), v, 10) }
func (o object) raw(k string, v fleet.JSON) object { return append(o.key(k), v...) }
func (o object) time(k string, t fleet.Time) object {
	return o.str(k, t.String())
}

// opt adds a string unless it is empty.
func (o object) opt(k, v string) object {
	if v == "" {
		return o
	}
	return o.str(k, v)
}

func (o object) end() fleet.JSON {
	if len(o) == 0 {
		return ""
	}
	return fleet.JSON(append(o, '}'))
}

// appendString writes a JSON string; s is valid UTF-8.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
