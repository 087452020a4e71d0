package main

// This file runs the examples of every command's help, so that none of them lies.

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// ends is the status of examples that can't do what they show on a cluster of one node with nothing to delete; -1 is one
// that has no end and is only parsed.
var ends = map[string]int{
	"fleet-node dev":        -1,
	"fleet-node dev --once": -1,
	"FLEET_ROOT_TOKEN=secret fleet-node agent --bootstrap-expect 1 --data-dir n1.fleet-data": -1,
	"fleet-node agent --config /etc/fleet/agent.yaml":                                        -1,
	"fleet-node job events --follow -o json":                                                 -1,
	"fleet-node cluster remove node-3":                                                       exitUsage,
	"fleet-node cluster remove node-3 --yes":                                                 exitFailed,
	"fleet-node cluster transfer --yes":                                                      exitConflict,
	"fleet-node cluster transfer node-2 --yes":                                               exitFailed,
	"fleet-node snapshot restore fleet.snapshot":                                             exitUsage,
	"fleet-node snapshot restore fleet.snapshot --yes -o json":                               -1, // testdata/script/restore.txtar does it
	"fleet-node snapshot restore fleet.snapshot --yes --raise 1":                             -1,
	"fleet-node recover --data-dir n1.fleet-data --dry-run":                                  -1, // testdata/script/recover.txtar does it
	"fleet-node recover --data-dir n1.fleet-data --yes":                                      -1,
	"fleet-node token delete 01JD8X4QH6S8M6ZJ2V9T3K5R7W":                                     exitUsage,
	"fleet-node token delete 01JD8X4QH6S8M6ZJ2V9T3K5R7W --yes":                               exitFailed,
}

// Every command shows at least two ways to use it, and each of them does what it says.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a node")
	}
	dir, bin := t.TempDir(), t.TempDir()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(bin, "fleet-node")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"fix.md":          "---\ntitle: Fix it\ncapabilities: [go]\n---\nexit 0\n",
		"jobs/a.md":       "exit 0\n",
		"run.sh":          "#!/bin/sh\nexit 0\n",
		"profile.json":    `{"model":"large"}`,
		"backup/.keep":    "",
		"flaky/flaky.md":  "---\nkey: fix-flaky-42\ncapabilities: [go]\nlabels: {team: api}\n---\nexit 0\n",
		"flaky/second.md": "---\ncapabilities: [gpu]\n---\nexit 0\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	env := append(sharedNode(t).env(t, "examples"), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	sh := func(line string) (string, int) {
		c := exec.Command("sh", "-c", line)
		c.Dir, c.Env, c.WaitDelay = dir, append(os.Environ(), env...), time.Second
		killer := time.AfterFunc(60*time.Second, func() { _ = c.Process.Kill() })
		defer killer.Stop()
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err.Error(), -1
		}
		return string(out), c.ProcessState.ExitCode()
	}
	// A factory ships what is watched, and what it ships can be requeued or cancelled no more: those have their own jobs.
	factory := self(env, "work", "--factory-id", "examples", "--capabilities", "go,linux", "--", "true")
	factory.Dir = dir
	if err := factory.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = factory.Process.Signal(os.Interrupt)
		_ = factory.Wait()
	}()
	fresh := func(key string) string { // the id of a job that waits
		out, status := sh("printf -- '---\\nkey: " + key + "\\ncapabilities: [gpu]\\n---\\nx' | fleet-node job submit -q -")
		if status != 0 {
			t.Fatal(out)
		}
		return strings.TrimSpace(out)
	}
	if out, status := sh("fleet-node job submit flaky; fleet-node profile put coder - <profile.json; for n in 1 2; do echo \"{\\\"n\\\":$n}\" | fleet-node profile put coder -; done; fleet-node snapshot save fleet.snapshot"); status != 0 {
		t.Fatal(out)
	}

	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			walk(child)
		}
		if c.HasSubCommands() || c.IsAdditionalHelpTopicCommand() {
			return
		}
		lines := strings.Split(c.Example, "\n")
		if len(lines) < 2 {
			t.Errorf("%s: got %d examples, want at least 2", c.CommandPath(), len(lines))
		}
		for _, line := range lines {
			line = strings.TrimSpace(line)
			if !strings.Contains(line, c.CommandPath()) {
				t.Errorf("%s: the example %q is of another command", c.CommandPath(), line)
			}
			want := ends[line]
			if want == -1 {
				_, args, _ := strings.Cut(line, c.CommandPath())
				if err := c.ParseFlags(strings.Fields(args)); err != nil {
					t.Errorf("%s: %v", line, err)
				}
				continue
			}
			run := line
			if c.Name() == "cancel" || c.Name() == "requeue" {
				id := fresh("waits-" + c.Name() + strings.Repeat("x", len(line)))
				run = strings.NewReplacer("key:fix-flaky-42", id, "7Q", id[20:]).Replace(line)
				if c.Name() == "requeue" {
					sh("fleet-node job cancel " + id)
				}
			} else if strings.Contains(line, "7Q") {
				out, _ := sh("fleet-node job list -q --key fix-flaky-42")
				run = strings.ReplaceAll(line, "7Q", strings.TrimSpace(out)[20:])
			}
			if c.Name() == "work" {
				if out, status := sh("fleet-node job submit -q jobs/a.md && printf 'exit 0' | fleet-node job submit -q -"); status != 0 {
					t.Fatal(out)
				}
				run = strings.Replace(run, "fleet-node work", "fleet-node work --factory-id other --idle-exit 1s", 1)
				want = -2 // --once may come too late for the job
			}
			if out, status := sh(run); status != want && (want != -2 || status != exitDone && status != exitNothing) {
				t.Errorf("%s: got the status %d, want %d\n%s", run, status, want, out)
			}
		}
	}
	walk(newRoot())
}
