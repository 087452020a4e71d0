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

var errIsNull = errors.New("must not be null; leave the field out instead")

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
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ any) error {
		if d.PeekKind() == 'n' {
			return errIsNull
		}
		return errors.ErrUnsupported
	}),
)))

// readBody reads what was sent, within the limit and the time.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if err := checkMediaType(r.Header); err != nil {
		return nil, err
	}
	tooLarge := fleet.Errorf(fleet.TooLarge, "the body is over the limit of %d bytes of this route", limit)
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // else the server would read on to find the next request
		return nil, tooLarge
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyWait)) // not every writer has deadlines; a real connection does
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		w.Header().Set("Connection", "close")
		return nil, fleet.Errorf(fleet.InvalidJSON, "the body ended early, after %d bytes", len(b))
	}
	return b, nil
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

// decode reads one JSON object into v, a pointer to a struct.
func decode(body []byte, v any) error {
	if err := checkSyntax(body); err != nil {
		return err
	}
	err := json.Unmarshal(body, v, strictly)
	if err == nil {
		return nil
	}
	var bad *json.SemanticError
	if !errors.As(err, &bad) {
		return invalidJSON(body, err)
	}
	return fleet.InvalidField(fieldPath(bad.JSONPointer), "%s", wrongValue(bad))
}

// checkSyntax reads the whole body once before any of it is believed.
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
