package worker

// This file is the directory of a run: what the command is given, and what it writes for the factory to read.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

const (
	maxResultBytes     = fleet.MaxBody - 64<<10 // the rest of a call's body is for what else is reported
	maxCheckpointBytes = 64 << 10
)

// directory is the files of one run, open to nobody else.
type directory struct {
	path    string
	profile bool // there is a profile

	statusRead int64 // how much of the status file was taken in
}

// newDirectory writes what the command is given.
func newDirectory(task *Task) (*directory, error) {
	path, err := os.MkdirTemp("", "fleet-run-") // mode 0700
	if err != nil {
		return nil, err
	}
	d := &directory{path: path, profile: task.Run.ProfileSnapshot != ""}
	job, err := json.Marshal(task.Job, jsontext.WithIndent("  "))
	if err == nil {
		err = d.write("job.json", job)
	}
	if err == nil {
		err = d.write("body.md", []byte(task.Job.BodyMd))
	}
	if err == nil && d.profile {
		err = d.write("profile.json", []byte(task.Run.ProfileSnapshot))
	}
	if err == nil && task.Job.Checkpoint != nil {
		var b []byte
		if b, err = json.Marshal(task.Job.Checkpoint); err == nil {
			err = d.write("checkpoint.json", b)
		}
	}
	if err != nil {
		d.remove()
		return nil, err
	}
	return d, nil
}

func (d *directory) file(name string) string { return filepath.Join(d.path, name) }

func (d *directory) write(name string, b []byte) error { return os.WriteFile(d.file(name), b, 0o600) }

// open opens a file that the command writes; nil if there is none. It must be a plain one: to open a named pipe would
// take until somebody writes to it.
func (d *directory) open(name string) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(d.file(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// read reads a file that the command writes, up to a limit; nothing if there is none.
func (d *directory) read(name string, limit int64) ([]byte, error) {
	f, _, err := d.open(name)
	if f == nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is over %d bytes", name, limit)
	}
	return b, err
}

func (d *directory) remove() { _ = os.RemoveAll(d.path) }

// variables say where each file is.
func (d *directory) variables() []variable {
	list := []variable{
		{"FLEET_JOB_FILE", d.file("job.json")},
		{"FLEET_BODY_FILE", d.file("body.md")},
		{"FLEET_CHECKPOINT_FILE", d.file("checkpoint.json")},
		{"FLEET_RESULT_FILE", d.file("result.json")},
		{"FLEET_STATUS_FILE", d.file("status.jsonl")},
		{"FLEET_STOP_FILE", d.file("stop")},
		{"FLEET_LOG_FILE", d.file("log")},
	}
	if d.profile {
		list = append(list, variable{"FLEET_PROFILE_FILE", d.file("profile.json")})
	}
	return list
}

// resultFile is what a command says of its work when it ends.
type resultFile struct {
	Stage        fleet.Stage             `json:"stage"`
	Reason       string                  `json:"reason"`
	Result       fleet.JSON              `json:"result"`
	VerifyResult fleet.JSON              `json:"verifyResult"`
	Insights     *fleet.Insights         `json:"insights"`
	Artifacts    []fleet.ArtifactRequest `json:"artifacts"`

	Unknown map[string]jsontext.Value `json:",embed"` // nothing is done with these, but that is said
}

// result reads the result file; there need not be one.
func (d *directory) result() (r resultFile, err error) {
	b, err := d.read("result.json", maxResultBytes)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return resultFile{}, err
	}
	switch r.Stage {
	case "", fleet.Shipped, fleet.Failed, fleet.Review, fleet.Testing:
		return r, nil
	}
	return resultFile{}, fmt.Errorf("stage is %q, want shipped, failed, review or testing", r.Stage)
}

// checkpoint reads the checkpoint file; nil if there is none.
func (d *directory) checkpoint() (*fleet.Checkpoint, error) {
	b, err := d.read("checkpoint.json", maxCheckpointBytes)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return nil, err
	}
	c := &fleet.Checkpoint{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, err
	}
	return c, nil
}

// statusLine is one thing that a command says while it runs.
type statusLine struct {
	Stage    fleet.Stage     `json:"stage"`
	Comment  string          `json:"comment"`
	Insights *fleet.Insights `json:"insights"`
}

// statusLines are the whole lines that were added since the last call. At the end also what has no line feed. A file that
// has become shorter was begun anew.
func (d *directory) statusLines(atEnd bool) (lines [][]byte, err error) {
	f, size, err := d.open("status.jsonl")
	if f == nil {
		return nil, err
	}
	defer f.Close()
	if size < d.statusRead {
		d.statusRead = 0
	}
	b, err := io.ReadAll(io.NewSectionReader(f, d.statusRead, fleet.MaxBody))
	if err != nil {
		return nil, err
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	if atEnd || len(b) == fleet.MaxBody && whole == 0 {
		whole = len(b) // a line that long is none; it is read as what it is
	}
	d.statusRead += int64(whole)
	for line := range bytes.Lines(b[:whole]) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// object is a JSON object with one text.
func object(name, text string) fleet.JSON {
	b, err := json.Marshal(map[string]string{name: text}, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return "{}"
	}
	return fleet.JSON(b)
}
