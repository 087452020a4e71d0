package main

// This file brings flags, environment and a file together: a flag wins over its variable, a variable over the file,
// the file over the default.

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/lysnrai/fleet/internal/nearest"
)

// A setting is where a flag's value came from.
type setting struct {
	name, source string
}

// variable is the environment's name of a flag.
func variable(flag string) string {
	return "FLEET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settle gives each flag that was not given the value of its variable, or of the file, whose path is the value of the
// flag "config". It says where each value that is no default came from.
func settle(flags *pflag.FlagSet, environ []string) ([]setting, error) {
	var settings []setting
	var failed error
	values := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	set := func(f *pflag.Flag, value, source string) {
		if err := f.Value.Set(value); err != nil {
			failed = usagef("%s: %q is no value for --%s, which is %s", source, value, f.Name, kind(f))
			return
		}
		f.Changed = true
		settings = append(settings, setting{f.Name, source})
	}
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := values[variable(f.Name)]
		switch {
		case failed != nil || f.Name == "help":
		case f.Changed:
			settings = append(settings, setting{f.Name, "flag"})
		case ok && value != "":
			set(f, value, variable(f.Name))
		}
	})
	if failed != nil {
		return nil, failed
	}
	path := flags.Lookup("config").Value.String()
	if path == "" {
		return settings, nil
	}
	entries, err := readSettings(path, flagNames(flags))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if f := flags.Lookup(e.name); failed == nil && !f.Changed {
			set(f, e.value, e.place)
		}
	}
	return settings, failed
}

// kind is what a flag's value must be.
func kind(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	}
	return "of the type " + f.Value.Type()
}

func flagNames(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	return names
}

// An entry is one line of a file of settings, and its place in it.
type entry struct{ name, value, place string }

// readSettings reads a YAML mapping whose keys are known; a list is its items with commas.
func readSettings(path string, known []string) ([]entry, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("reading the configuration: %v", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(src, &document); err != nil {
		return nil, usagef("%s: %v", path, err)
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, usagef("%s:%d: this must be lines of the form name: value", path, top.Line)
	}
	var entries []entry
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		e := entry{name: key.Value, value: value.Value, place: fmt.Sprintf("%s:%d", path, key.Line)}
		if !slices.Contains(known, e.name) {
			return nil, usagef("%s: unknown key %q%s", e.place, e.name, nearest.Hint(e.name, known))
		}
		if slices.ContainsFunc(entries, func(other entry) bool { return other.name == e.name }) {
			return nil, usagef("%s: %s is given twice", e.place, e.name)
		}
		switch value.Kind {
		case yaml.ScalarNode:
		case yaml.SequenceNode:
			var items []string
			for _, item := range value.Content {
				items = append(items, item.Value)
			}
			e.value = strings.Join(items, ",")
		default:
			return nil, usagef("%s: %s must be a value or a list of values", e.place, e.name)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// mistyped are the variables that look like one that is read, each with what was probably meant.
func mistyped(flags *pflag.FlagSet, environ []string) (warnings []string) {
	known := []string{"FLEET_ADDR", "FLEET_TOKEN", "FLEET_TOKEN_FILE", "FLEET_PRODUCT", "FLEET_CA_FILE", "FLEET_ROOT_TOKEN", "FLEET_CONFIG"}
	for _, name := range flagNames(flags) {
		known = append(known, variable(name))
	}
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "FLEET_") || slices.Contains(known, name) {
			continue
		}
		if near := nearest.Word(name[len("FLEET_"):], suffixes(known)); near != "" {
			warnings = append(warnings, fmt.Sprintf("%s is not read (did you mean FLEET_%s?)", name, near))
		}
	}
	return warnings
}

func suffixes(variables []string) []string {
	words := make([]string, len(variables))
	for i, v := range variables {
		words[i] = strings.TrimPrefix(v, "FLEET_")
	}
	return words
}
