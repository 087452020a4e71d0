package worker

// This file is the environment of a command.

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lysnrai/fleet"
)

// What the manifest may take of the environment: a variable over 128 KiB, or too much of all, keeps a command from
// starting. FLEET_JOB_FILE has it all.
const (
	maxMetaBytes    = 64 << 10 // of one
	maxAllMetaBytes = 512 << 10
)

// environ is what a command is told, on top of the factory's own environment without what speaks of the factory itself,
// its token among it.
func (f *factory) environ(inherited []string, task *Task, dir *directory) []string {
	var env []string
	for _, pair := range inherited {
		name, _, _ := strings.Cut(pair, "=")
		if ours := name == "FLEET" || strings.HasPrefix(name, "FLEET_") || name == "TRACEPARENT"; !ours || name == "FLEET_CA_FILE" {
			env = append(env, pair)
		}
	}
	add := func(name, value string) {
		if value != "" && !strings.ContainsRune(value, 0) {
			env = append(env, name+"="+value)
		}
	}
	job, run := task.Job, task.Run
	add("FLEET", "1")
	add("FLEET_ADDR", strings.Join(f.Client.Addresses(), ","))
	add("FLEET_PRODUCT", job.ProductID)
	add("FLEET_TOKEN", f.PassToken)
	add("FLEET_JOB_ID", job.ID)
	add("FLEET_RUN_ID", run.ID)
	add("FLEET_ATTEMPT", strconv.FormatInt(run.Attempt, 10))
	add("FLEET_LEASE_EPOCH", strconv.FormatUint(task.Epoch(), 10))
	add("FLEET_FACTORY_ID", f.FactoryID)
	add("FLEET_SEAT", strconv.Itoa(task.Seat))
	add("FLEET_PRIORITY", string(job.Priority))
	engine := run.Engine
	if engine == "" {
		engine = job.EngineClass
	}
	add("FLEET_ENGINE", engine)
	add("FLEET_PROFILE", job.Profile)
	add("FLEET_IDEMPOTENCY_KEY", job.IdempotencyKey)
	add("FLEET_TRACKER_ITEM_ID", job.TrackerItemID)
	add("FLEET_PARENT_ID", job.ParentID)
	if parent, ok := job.Labels.Get("traceparent"); ok {
		add("TRACEPARENT", parent)
	}
	if job.Budget != nil && job.Budget.Wall != nil && run.StartedAt != 0 {
		add("FLEET_DEADLINE", run.StartedAt.Add(*job.Budget.Wall).Time().Format(time.RFC3339))
	}
	room := maxAllMetaBytes
	for _, v := range scalars(job.ManifestSnapshot) {
		if size := len(v.name) + len(v.value); size <= min(maxMetaBytes, room) {
			room -= size
			add("FLEET_META_"+v.name, v.value)
		}
	}
	for _, file := range dir.variables() {
		add(file.name, file.value)
	}
	return env
}

// variable is a name with its value.
type variable struct{ name, value string }

// scalars is the strings, numbers and booleans of an object, under upper-snake names, in its order.
func scalars(manifest fleet.JSON) (list []variable) {
	d := jsontext.NewDecoder(strings.NewReader(string(manifest)))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return nil
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return list
		}
		key := upperSnake(name.String())
		value, err := d.ReadValue()
		if err != nil {
			return list
		}
		switch value.Kind() {
		case '"':
			var text string
			if json.Unmarshal(value, &text) == nil {
				list = append(list, variable{key, text})
			}
		case '0', 't', 'f':
			list = append(list, variable{key, string(value)})
		}
	}
	return list
}

// upperSnake writes maxTurns and max-turns as MAX_TURNS.
func upperSnake(key string) string {
	var b strings.Builder
	lower := false
	for _, r := range key {
		switch {
		case r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r):
			b.WriteByte('_')
			lower = false
			continue
		case unicode.IsUpper(r) && lower:
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r) || unicode.IsDigit(r)
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
