package rpc

// This file says how each kind of result is answered: its status, its headers, and what of it is the body.

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// answerOptions make equal answers equal bytes, and write free-form values as their text.
var answerOptions = json.JoinOptions(json.Deterministic(true), json.WithMarshalers(json.JoinMarshalers(
	json.MarshalToFunc(func(e *jsontext.Encoder, j fleet.JSON) error {
		if j == "" {
			return e.WriteToken(jsontext.Null)
		}
		return e.WriteValue(jsontext.Value(j))
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, t fleet.Time) error {
		if t == 0 {
			return e.WriteToken(jsontext.Null)
		}
		return e.WriteToken(jsontext.String(t.String()))
	}),
)))

// lenientText lets a problem quote what a client sent, valid UTF-8 or not.
var lenientText = jsontext.AllowInvalidUTF8(true)

// streamed is the answer of a handler that has written it itself.
var streamed = new(struct{ _ byte })

// present answers a call and returns the status.
func present(w http.ResponseWriter, c *request, answer any) int {
	h := w.Header()
	switch r := answer.(type) {
	case *fsm.Done:
		return noContent(w)
	case *fleet.SubmitResult:
		h.Set("Fleet-Outcome", string(r.Outcome))
		h.Set("ETag", etag(r.Job.Version))
		if r.Outcome == fleet.Created {
			return write(w, c, http.StatusCreated, r.Job)
		}
		return write(w, c, http.StatusOK, r.Job)
	case *fleet.Claim:
		if r.Job == nil {
			return noContent(w)
		}
	case *fleet.Job:
		return presentJob(w, c, r)
	case *fleet.Event, *fleet.Artifact:
		return write(w, c, http.StatusCreated, r)
	case *fleet.ProfileResult:
		if r.Created {
			return write(w, c, http.StatusCreated, r.Profile)
		}
		return write(w, c, http.StatusOK, r.Profile)
	case *newToken:
		h.Set("Cache-Control", "no-store")
		return write(w, c, http.StatusCreated, r)
	}
	return write(w, c, http.StatusOK, answer)
}

func presentJob(w http.ResponseWriter, c *request, job *fleet.Job) int {
	w.Header().Set("ETag", etag(job.Version))
	if c.noneMatch.names(job.Version) {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified
	}
	return write(w, c, http.StatusOK, job)
}

// etag is a version as a strong entity tag.
func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

func noContent(w http.ResponseWriter) int {
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent
}

// buffers have room to encode answers. One that a large answer has grown is let go.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const largeAnswer = 64 << 10

// write answers with JSON. Whether the client got it is not for the server to know.
func write(w http.ResponseWriter, c *request, status int, body any) int {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	defer func() {
		if b.Cap() <= largeAnswer {
			buffers.Put(b)
		}
	}()
	if err := json.MarshalWrite(b, body, answerOptions); err != nil {
		return refuse(w, c.id, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return status
}
