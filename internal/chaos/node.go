package chaos

// This file is one node: a process that is started, killed, paused and stopped, and its data directory.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lysnrai/fleet"
)

// RootToken is every cluster's.
const RootToken = "root-token-of-the-chaos-tests"

// Node is one member of a Cluster, running or not. All methods may be called at once.
type Node struct {
	Name                       string
	Dir                        string // its data directory
	HTTPAddr, NodeAddr, gossip string
	Front                      *Front // what clients call instead of HTTPAddr

	binary string
	log    string
	args   []string
	env    []string
	within []string // a command that runs the binary, such as ip netns exec

	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd  // nil while it is down
	ended  chan struct{}
	status int
	paused bool
}

// Start starts the process. It may need a while until it is ready.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("node %s runs already", n.Name)
	}
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	line := append(append([]string{}, n.within...), n.binary)
	line = append(line, n.args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append([]string{"HOME=" + filepath.Dir(n.Dir), "PATH=" + os.Getenv("PATH")}, n.env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.paused = cmd, ended, false
	go func() {
		_ = cmd.Wait()
		n.mu.Lock()
		n.cmd, n.status = nil, cmd.ProcessState.ExitCode()
		n.mu.Unlock()
		close(ended)
	}()
	return nil
}

// Pid is the process's, zero while it is down.
func (n *Node) Pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Up reports whether the process runs and is not paused.
func (n *Node) Up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil && !n.paused
}

// Signal sends a signal, if the process runs.
func (n *Node) Signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s)
	}
}

// Pause stops the process in its tracks; Resume lets it go on.
func (n *Node) Pause() { n.pause(syscall.SIGSTOP, true) }

// Resume is the end of Pause.
func (n *Node) Resume() { n.pause(syscall.SIGCONT, false) }

func (n *Node) pause(s syscall.Signal, paused bool) {
	n.Signal(s)
	n.mu.Lock()
	n.paused = paused
	n.mu.Unlock()
}

// Kill ends the process without a word and waits until it is gone.
func (n *Node) Kill() {
	n.Signal(syscall.SIGKILL)
	n.Wait(10 * time.Second)
}

// Stop asks the process to end, and returns its exit status, -1 if it had to be killed.
func (n *Node) Stop() int {
	n.Resume()
	n.Signal(syscall.SIGTERM)
	if status, ended := n.Wait(30 * time.Second); ended {
		return status
	}
	n.Kill()
	return -1
}

// Wait waits until the process has ended by itself, and returns its exit status.
func (n *Node) Wait(limit time.Duration) (status int, ended bool) {
	n.mu.Lock()
	done := n.ended
	n.mu.Unlock()
	select {
	case <-done:
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.status, true
	case <-time.After(limit):
		return 0, false
	}
}

// LastWords is the last line of the node's log.
func (n *Node) LastWords() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// Log is all that the node has said so far.
func (n *Node) Log() string {
	text, _ := os.ReadFile(n.log)
	return string(text)
}

var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Do calls the node itself, not by way of its front.
func (n *Node) Do(ctx context.Context, method, path, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+n.HTTPAddr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+RootToken)
	request.Header.Set("X-Product-Id", Product)
	request.Header.Set("Content-Type", "application/json")
	return direct.Do(request)
}

// get reads a page of the node.
func (n *Node) get(path string, limit time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	response, err := n.Do(ctx, http.MethodGet, path, "")
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// Unready is why the node is not ready, empty if it is.
func (n *Node) Unready() string {
	if !n.Up() {
		return "down"
	}
	status, body, err := n.get("/readyz", time.Second)
	switch {
	case err != nil:
		return err.Error()
	case status != http.StatusOK:
		return string(body)
	}
	return ""
}

// Gauge reads one number of the node's metrics.
func (n *Node) Gauge(name string) (value float64, err error) {
	_, body, err := n.get("/metrics", 2*time.Second)
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(body), "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, err := fmt.Sscan(rest, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("node %s has no metric %s", n.Name, name)
}

// Leads reports whether the node says that it leads, and has applied its first entry.
func (n *Node) Leads() bool {
	if !n.Up() {
		return false
	}
	v, err := n.Gauge("fleet_is_leader")
	return err == nil && v == 1
}

// Applied is the log index that the node has applied.
func (n *Node) Applied() uint64 {
	if !n.Up() {
		return 0
	}
	v, err := n.Gauge("fleet_applied_index")
	if err != nil {
		return 0
	}
	return uint64(v)
}

// Status is the cluster as this node sees it.
func (n *Node) Status() (*fleet.ClusterStatus, error) {
	status, body, err := n.get("/cluster/status?consistency=stale", 3*time.Second)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, errors.New(string(body))
	}
	s := &fleet.ClusterStatus{}
	return s, json.Unmarshal(body, s)
}
