package rpc

// This file reads a body strictly: one JSON object, nothing twice, nothing unknown, nothing of the wrong type.
//
// What is no well-formed JSON object is invalid_json with the offset; what is well-formed but not what the route takes
// is invalid, with the path of the field.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// bodyWait is how long a client may take to send a body.
const bodyWait = 30 * time.Second

var (
	errIsNull  = errors.New("must not be null; leave the field out instead")
	errIsEmpty = errors.New("must not be empty; leave the field out instead")
)

// strictly refuses unknown members, null where the type has none, and keeps free-form values as their text.
var strictly = json.JoinOptions(json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, j *fleet.JSON) error {
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := v.Compact(); err != nil {
			return err
		}
		*j = fleet.JSON(v)
		return nil
	}),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, l *fleet.Labels) error {
		switch d.PeekKind() {
		case '{':
		case 'n':
			return errIsNull
		default:
			return errors.ErrUnsupported
		}
		m := map[string]string{}
		if err := json.UnmarshalDecode(d, &m); err != nil {
			return err
		}
		*l = fleet.LabelsOf(m)
		return nil
	}),
	json.UnmarshalFromFunc(word[fleet.Stage]),
	json.UnmarshalFromFunc(word[fleet.Kind]),
	json.UnmarshalFromFunc(word[fleet.Priority]),
	json.UnmarshalFromFunc(word[fleet.DepsMode]),
	json.UnmarshalFromFunc(word[fleet.Health]),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ any) error {
		if d.PeekKind() == 'n' {
			return errIsNull
		}
		return errors.ErrUnsupported
	}),
)))

// word reads one of a closed list of words. The empty one is in no list, but in Go it stands for one that is absent.
func word[T ~string](d *jsontext.Decoder, w *T) error {
	if d.PeekKind() != '"' {
		return errors.ErrUnsupported
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	if *w = T(token.String()); *w == "" {
		return errIsEmpty
	}
	return nil
}

// limitRead gives a body so much time, also one that nobody asks for: the server reads what a refused call goes on sending.
// Once a body was read the server takes the deadline away by itself, so that a call may wait for longer.
func limitRead(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait)) // not every writer has deadlines
	}
}

// readBody reads what was sent, within the limit and the time.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if err := checkMediaType(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > limit {
		drain(w, r, limit)
		return nil, tooLarge(limit)
	}
	var b bytes.Buffer
	b.Grow(int(min(max(r.ContentLength, 0), 64<<10)) + bytes.MinRead)
	_, err := b.ReadFrom(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		w.Header().Set("Connection", "close")
		return nil, fleet.Errorf(fleet.InvalidJSON, "the body ended early, after %d bytes: send all of it within %v", b.Len(), bodyWait)
	case int64(b.Len()) > limit:
		drain(w, r, limit)
		return nil, tooLarge(limit)
	}
	return b.Bytes(), nil
}

// drain reads on for as much again as the limit: a client that is cut off while it sends never sees the answer. What is
// far too large is cut off at once.
func drain(w http.ResponseWriter, r *http.Request, limit int64) {
	if r.ContentLength <= 2*limit {
		if _, err := io.CopyN(io.Discard, r.Body, 2*limit+1); errors.Is(err, io.EOF) {
			return
		}
	}
	w.Header().Set("Connection", "close")
}

func tooLarge(limit int64) error {
	return fleet.Errorf(fleet.TooLarge, "the body is over the limit of %d bytes of this route: send less, or split it", limit)
}

// checkMediaType refuses what is not JSON, or is encoded. No Content-Type at all counts as JSON.
func checkMediaType(h http.Header) error {
	if e := strings.Join(h.Values("Content-Encoding"), ", "); e != "" && !strings.EqualFold(e, "identity") {
		return fleet.Errorf(fleet.UnsupportedMediaType, "Content-Encoding %q is not supported; send the body as it is", e)
	}
	values := h.Values("Content-Type")
	if len(values) == 0 {
		return nil
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset, given := params["charset"]
	if len(values) > 1 || err != nil || media != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return fleet.Errorf(fleet.UnsupportedMediaType, "Content-Type is %q; send application/json", strings.Join(values, ", "))
	}
	return nil
}

// decode reads one JSON object into v, a pointer to a struct. A body that is no JSON at all is called that, whatever else is wrong with it.
func decode(body []byte, v any) error {
	err := json.Unmarshal(body, v, strictly)
	if err == nil && shallow(body) {
		return nil
	}
	if err := checkSyntax(body); err != nil {
		return err
	}
	if err == nil {
		return nil
	}
	var bad *json.SemanticError
	if !errors.As(err, &bad) {
		return invalidJSON(body, err)
	}
	return fleet.InvalidField(fieldPath(bad.JSONPointer), "%s", wrongValue(bad))
}

// shallow reports whether a body has too few brackets to be nested too deeply; those in strings count too.
func shallow(body []byte) bool {
	return bytes.Count(body, []byte("{"))+bytes.Count(body, []byte("[")) <= fleet.MaxNesting
}

// checkSyntax says what is wrong with a body as a text, from its beginning on.
func checkSyntax(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	token, err := d.ReadToken()
	if err != nil {
		return invalidJSON(body, err)
	}
	if token.Kind() != '{' {
		return fleet.Errorf(fleet.InvalidJSON, "the body must be one JSON object; this one is something else at offset 0")
	}
	for d.StackDepth() > 0 {
		if _, err := d.ReadToken(); err != nil {
			return invalidJSON(body, err)
		}
		if d.StackDepth() > fleet.MaxNesting {
			return fleet.Errorf(fleet.InvalidJSON, "nesting is over %d levels at offset %d", fleet.MaxNesting, d.InputOffset())
		}
	}
	if rest := bytes.TrimLeft(body[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return fleet.Errorf(fleet.InvalidJSON, "something follows the JSON object at offset %d", len(body)-len(rest))
	}
	return nil
}

func invalidJSON(body []byte, err error) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return fleet.Errorf(fleet.InvalidJSON, "the body is empty at offset 0; send a JSON object")
	}
	var bad *jsontext.SyntacticError
	if !errors.As(err, &bad) {
		return fleet.Errorf(fleet.InvalidJSON, "the body can't be read as JSON")
	}
	where := ""
	if path := fieldPath(bad.JSONPointer); path != "" {
		where = " in " + strconv.Quote(path)
	}
	return fleet.Errorf(fleet.InvalidJSON, "%v%s at offset %d", bad.Err, where, bad.ByteOffset)
}

// wrongValue says what a value should have been.
func wrongValue(e *json.SemanticError) string {
	switch {
	case errors.Is(e.Err, json.ErrUnknownName):
		return "there is no such field here (names are case-sensitive)"
	case e.Err != nil && !errors.Is(e.Err, strconv.ErrSyntax) && !errors.Is(e.Err, strconv.ErrRange):
		return e.Err.Error()
	case e.GoType == nil:
		return "has the wrong type"
	}
	switch e.GoType.Kind() {
	case reflect.String:
		return "must be a string"
	case reflect.Bool:
		return "must be true or false"
	case reflect.Int64, reflect.Uint64:
		if errors.Is(e.Err, strconv.ErrRange) {
			return "is out of range"
		}
		return "must be a whole number"
	case reflect.Float64:
		return "must be a number in range"
	case reflect.Slice:
		return "must be an array"
	}
	return "must be an object"
}

// fieldPath writes a JSON pointer as people write fields: jobs[1].labels.team. Only the members of labels are named by
// the caller, so that any other number in a pointer is a place in an array.
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	previous := ""
	for token := range p.Tokens() {
		_, err := strconv.ParseUint(token, 10, 31)
		switch {
		case err == nil && previous != "" && previous != "labels":
			fmt.Fprintf(&b, "[%s]", token)
		case b.Len() > 0:
			b.WriteByte('.')
			fallthrough
		default:
			b.WriteString(token)
		}
		previous = token
	}
	return b.String()
}
