package main

// This file is where a peer's servers run: their processes, their directory, their ports.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	nodes       = 3
	readyWait   = time.Minute
	stopWait    = 10 * time.Second
	askEvery    = 50 * time.Millisecond // whether servers are ready
	memberArg   = "member"
	memberUsage = "bench " + memberArg + " etcd|nats [flags]"
)

// site is the processes of one peer and the directory that they keep everything in.
type site struct {
	dir     string
	servers []*server
}

// server is one process.
type server struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	end   os.Signal // what ends it; with what is on its disk nobody will start again
}

// openSite makes a directory for a site. All may pass through it: Postgres does not run as root.
func openSite(in string) (*site, error) {
	in, err := filepath.Abs(in)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(in, "bench-")
	if err != nil {
		return nil, err
	}
	return &site{dir: dir}, os.Chmod(dir, 0o755)
}

// start starts a process. Nothing of fleet's environment reaches it but what cmd.Env says.
func (s *site) start(name string, cmd *exec.Cmd, end os.Signal) error {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	extra := cmd.Env
	cmd.Env = nil
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "FLEET_") && !strings.HasPrefix(pair, "PG") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, extra...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	p := &server{cmd: cmd, log: log.Name(), ended: make(chan struct{}), end: end}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	s.servers = append(s.servers, p)
	return nil
}

// startMember starts this very program as a server of a peer that is a library.
func (s *site) startMember(name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return s.start(name, exec.Command(self, append([]string{memberArg}, args...)...), syscall.SIGKILL)
}

// member is what startMember starts.
func member(ctx context.Context, args []string) error {
	if len(args) > 1 {
		switch args[1] {
		case "etcd":
			return etcdMember(ctx, args[2:])
		case "nats":
			return natsMember(ctx, args[2:])
		}
	}
	return errors.New("usage: " + memberUsage)
}

// await asks until a peer is ready. A process that ended will not be.
func (s *site) await(ctx context.Context, ready func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := ready(attempt)
		done()
		if err == nil {
			return nil
		}
		for _, p := range s.servers {
			select {
			case <-p.ended:
				return fmt.Errorf("%s has ended: %s", filepath.Base(p.log), p.lastWords())
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-tick.C:
		}
	}
}

// stop ends a process and waits until it has.
func (p *server) stop() {
	_ = p.cmd.Process.Signal(p.end)
	killer := time.AfterFunc(stopWait, func() { _ = p.cmd.Process.Kill() })
	defer killer.Stop()
	<-p.ended
}

// close ends all processes, the last that was started first, and takes the directory away.
func (s *site) close() error {
	for i := len(s.servers) - 1; i >= 0; i-- {
		s.servers[i].stop()
	}
	return os.RemoveAll(s.dir)
}

// lastWords is the end of a process's log.
func (p *server) lastWords() string {
	text, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(text[max(0, len(text)-500):]))
}

// freeAddresses are loopback addresses on which nobody listens.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // not before all are found, so that they differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }
