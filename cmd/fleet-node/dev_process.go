package main

// This file keeps the processes of a development cluster: it starts them again when they die, and ends them in order.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopWait is how long a process may take to end before it is killed. A node's own limit is ten seconds.
const stopWait = 12 * time.Second

// supervisor starts this very binary as other processes.
type supervisor struct {
	talk     *progress
	stopping chan struct{} // closed under mu
	mu       sync.Mutex    // held while a process is started again, so that none is after the end began
	all      []*process
}

// process is one of them, whatever its current pid.
type process struct {
	name, log, dir string
	env, args      []string
	ended          chan struct{} // it will not be started again

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

func newSupervisor(talk *progress) *supervisor {
	return &supervisor{talk: talk, stopping: make(chan struct{})}
}

// start starts a process and watches it.
func (s *supervisor) start(name, log, dir string, env []string, args ...string) (*process, error) {
	p := &process{name: name, log: log, dir: dir, env: env, args: args, ended: make(chan struct{})}
	if err := p.spawn(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	s.all = append(s.all, p)
	go s.watch(p)
	return p, nil
}

// watch starts a process again whenever it dies. One that dies young waits a moment, so that it can't spin.
func (s *supervisor) watch(p *process) {
	defer close(p.ended)
	for {
		begin := time.Now()
		err := p.current().Wait()
		select {
		case <-s.stopping:
			return
		default:
		}
		was := p.pid()
		if time.Since(begin) < 5*time.Second {
			select {
			case <-s.stopping:
				return
			case <-time.After(time.Second):
			}
		}
		again, stopping := s.respawn(p)
		if stopping {
			return
		}
		if again != nil {
			s.talk.line(fmt.Sprintf("%s (pid %d) ended: %v; it can't be started again: %v", p.name, was, ending(err), again))
			return
		}
		s.talk.line(fmt.Sprintf("%s (pid %d) ended: %v; started again as pid %d", p.name, was, ending(err), p.pid()))
	}
}

// respawn starts a process again, unless the end has begun.
func (s *supervisor) respawn(p *process) (err error, stopping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopping:
		return nil, true
	default:
		return p.spawn(), false
	}
}

func ending(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// stop ends the processes and returns when none is left: the factories, while there are nodes to which they can give back what they
// hold, then the nodes.
func (s *supervisor) stop() {
	s.mu.Lock()
	close(s.stopping)
	s.mu.Unlock()
	nodes := min(devNodes, len(s.all)) // they were started first
	end(s.all[nodes:])
	end(s.all[:nodes])
}

// end tells processes to end and waits for it. Those that take longer than stopWait are killed.
func end(all []*process) {
	for _, p := range all {
		p.signal(syscall.SIGTERM)
	}
	killer := time.AfterFunc(stopWait, func() {
		for _, p := range all {
			p.signal(syscall.SIGKILL)
		}
	})
	defer killer.Stop()
	for _, p := range all {
		<-p.ended
	}
}

// spawn starts the process in a group of its own, so that a Ctrl-C at the terminal reaches it through dev alone.
func (p *process) spawn() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, p.args...)
	cmd.Args[0] = os.Args[0] // under the name by which this one was called
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "FLEET_") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	return nil
}

func (p *process) current() *exec.Cmd {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd
}

func (p *process) pid() int { return p.current().Process.Pid }

func (p *process) signal(s syscall.Signal) { _ = p.current().Process.Signal(s) }

// lastWords is the last line of the process's log.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return "; " + p.name + " said: " + last
	}
	return ""
}

// ports are where one node listens.
type ports struct{ http, node, gossip int }

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// devBase is where the ports of a development cluster begin: 8400–8402, 8410–8412, 8420–8422.
const devBase = 8400

// freePorts are three in a row from base, base + 10 and base + 20, or any others where one of them is taken; from base 0 any.
func freePorts(base int) (all [devNodes]ports, err error) {
	var held []io.Closer
	defer func() {
		for _, h := range held {
			_ = h.Close()
		}
	}()
	take := func(wanted int, gossip bool) (int, error) {
		for _, port := range []int{wanted, 0, 0, 0} {
			l, err := net.Listen("tcp", local(port))
			if err != nil {
				continue
			}
			held = append(held, l)
			port = l.Addr().(*net.TCPAddr).Port
			if !gossip {
				return port, nil
			}
			u, err := net.ListenPacket("udp", local(port))
			if err != nil {
				continue
			}
			held = append(held, u)
			return port, nil
		}
		return 0, errors.New("there is no free port on loopback")
	}
	for i := range all {
		var wanted [3]int
		if base != 0 {
			wanted = [3]int{base + 10*i, base + 10*i + 1, base + 10*i + 2}
		}
		var errs [3]error
		all[i].http, errs[0] = take(wanted[0], false)
		all[i].node, errs[1] = take(wanted[1], false)
		all[i].gossip, errs[2] = take(wanted[2], true)
		if err := errors.Join(errs[:]...); err != nil {
			return all, err
		}
	}
	return all, nil
}

// readiness is why a node is not ready, empty if it is.
func readiness(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "starting"
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if response.StatusCode == http.StatusOK {
		return ""
	}
	return strings.TrimSpace(string(body))
}
