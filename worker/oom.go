package worker

// This file asks the kernel whether it killed something for want of memory.

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills is how many processes of this factory's control group were killed so; 0 where that can't be known. Root is
// where /proc and /sys are.
func oomKills(root string) int {
	self, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(self)) {
		group, unified := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !unified {
			continue
		}
		events, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", group, "memory.events"))
		if err != nil {
			return 0
		}
		for event := range strings.Lines(string(events)) {
			if count, ok := strings.CutPrefix(event, "oom_kill "); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(count))
				return n
			}
		}
	}
	return 0
}

// blameMemory names the reason for which a command was killed, if the count of kills rose meanwhile.
func blameMemory(o Outcome, before, after int) Outcome {
	if o.Reason == reasonKilled && after > before {
		o.Reason = reasonOOM
	}
	return o
}
