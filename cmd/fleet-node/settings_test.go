package main

// This file tests which of flag, variable and file wins.

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"
)

func agentFlags(t *testing.T, args ...string) (*agent, *pflag.FlagSet) {
	t.Helper()
	var a agent
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	a.flags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &a, f
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := write(t, "name: file\ndata-dir: file\nlog-store: boltdb\njoin: [a:1, b:2]\nno-auth: true\n")
	a, f := agentFlags(t, "--name", "flag")
	settings, err := settle(f, []string{"FLEET_NAME=env", "FLEET_DATA_DIR=env", "FLEET_CONFIG=" + file, "HOME=/x"})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{a.name, a.dataDir, a.logStore, a.join, a.noAuth, a.timing}
	if diff := cmp.Diff([]any{"flag", "env", "boltdb", []string{"a:1", "b:2"}, true, "lan"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	sources := map[string]string{}
	for _, s := range settings {
		sources[s.name] = s.source
	}
	want := map[string]string{
		"name": "flag", "data-dir": "FLEET_DATA_DIR", "config": "FLEET_CONFIG",
		"log-store": file + ":3", "join": file + ":4", "no-auth": file + ":5",
	}
	if diff := cmp.Diff(want, sources); diff != "" {
		t.Errorf("sources (-want +got)\n%s", diff)
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"name: x\nlog-levle: debug\n", `:2: unknown key "log-levle" (did you mean "log-level"?)`},
		{"name: x\nname: y\n", `:2: name is given twice`},
		{"bootstrap-expect: three\n", `:1: "three" is no value for --bootstrap-expect`},
		{"name: {a: b}\n", `:1: name must be a value or a list of values`},
		{"- name\n", `:1: this must be lines of the form name: value`},
		{"config: other.yaml\n", `:1: unknown key "config"`},
	} {
		_, f := agentFlags(t, "--config", write(t, c.text))
		_, err := settle(f, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || statusOf(err) != exitUsage {
			t.Errorf("%q: got %v with status %d, want %q with status %d", c.text, err, statusOf(err), c.want, exitUsage)
		}
	}
	_, f := agentFlags(t)
	if _, err := settle(f, []string{"FLEET_LOG_JSON=perhaps"}); err == nil || !strings.Contains(err.Error(), "FLEET_LOG_JSON") {
		t.Errorf("got %v, want a refusal that names FLEET_LOG_JSON", err)
	}
}

func TestMistyped(t *testing.T) {
	_, f := agentFlags(t)
	got := mistyped(f, []string{"FLEET_HTTP_ADR=x", "FLEET_HTTP_ADDR=x", "FLEET_TOKEN=x", "FLEET_JOB_BODY_OF_ANOTHER_PROGRAM=x", "PATH=x"})
	want := []string{"FLEET_HTTP_ADR is not read (did you mean FLEET_HTTP_ADDR?)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "127.8.9.1:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "node-1:1": false,
	} {
		if got := loopback(addr); got != want {
			t.Errorf("loopback(%q): got %v, want %v", addr, got, want)
		}
	}
}

// What ended jobs are kept for is what the file says, and without it 30 days.
func TestRetention(t *testing.T) {
	for file, want := range map[string]time.Duration{"retention: 168h\n": 7 * 24 * time.Hour, "name: n1\n": 30 * 24 * time.Hour} {
		a, f := agentFlags(t)
		if _, err := settle(f, []string{"FLEET_CONFIG=" + write(t, file)}); err != nil {
			t.Fatal(err)
		}
		if got := a.clusterConfig(hclog.NewNullLogger(), nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8400}).Retention; got != want {
			t.Errorf("%q: got %v, want %v", file, got, want)
		}
	}
}
