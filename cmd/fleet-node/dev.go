package main

// This file is a whole cluster to try: three nodes and two factories as processes of this machine, with a job to do.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/internal/mainjob"
	"github.com/lysnrai/fleet/rpc/client"
)

const (
	devProduct = "demo"
	devNodes   = 3
	readyWait  = time.Minute
)

func newDev() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of three nodes here, and let it check the Go packages of this directory",
		Long: "dev starts three nodes and two factories as processes of their own, on loopback, and submits a job for each Go package of\n" +
			"the module here and of the standard library below it; without a go command, a few jobs that only speak. A process that\n" +
			"dies is started again. Nothing is left at the end.",
		Example: "  fleet-node dev\n  fleet-node dev --once",
		GroupID: groupCluster,
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			d := &dev{out: c.OutOrStdout(), talk: newProgress(c.ErrOrStderr())}
			err := d.run(ctx, once)
			if ctx.Err() != nil && err != nil {
				return errInterrupted
			}
			return err
		},
	}
	c.Flags().BoolVar(&once, "once", false, "end after the table")
	return c
}

// dev is a running development cluster.
type dev struct {
	out    io.Writer
	talk   *progress
	dir    string
	token  string
	ports  [devNodes]ports
	nodes  []*process
	client *client.Client
}

func (d *dev) run(ctx context.Context, once bool) (err error) {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "fleet-dev-"); err != nil {
		return err
	}
	procs := newSupervisor(d.talk)
	defer func() {
		procs.stop()
		err = errors.Join(err, os.RemoveAll(d.dir))
	}()
	d.token = "dev_" + rand.Text()
	if d.ports, err = freePorts(devBase); err != nil {
		return err
	}
	if err := d.startNodes(procs); err != nil {
		return err
	}
	if d.client, err = client.New(client.Config{Addresses: d.urls(), Token: d.token, Product: devProduct}); err != nil {
		return err
	}
	if err := d.awaitReady(ctx); err != nil {
		return err
	}
	forget, err := writeContext(strings.Join(d.urls(), ","), d.token, devProduct)
	if err != nil {
		return err
	}
	defer forget()
	d.address()

	d.talk.say("reading the packages")
	plan, err := mainjob.Load(ctx, here)
	if err != nil {
		return err
	}
	if plan.Pretend {
		d.talk.line("there is no go command: the jobs only say what they would build")
	}
	if err := d.startFactories(procs, here); err != nil {
		return err
	}
	report, err := d.ship(ctx, plan)
	if err != nil {
		return err
	}
	if err := d.table(report); err != nil {
		return err
	}
	if !report.OK() {
		err = &statusError{exitFailed, errors.New(report.String())}
	}
	if once {
		return err
	}
	if err != nil {
		d.talk.line(err.Error())
	}
	d.card(ctx)
	<-ctx.Done()
	d.talk.line("stopping")
	return nil
}

func (d *dev) urls() (urls []string) {
	for _, p := range d.ports {
		urls = append(urls, "http://"+local(p.http))
	}
	return urls
}

// startNodes starts agents like any other.
func (d *dev) startNodes(procs *supervisor) error {
	var join []string
	for _, p := range d.ports {
		join = append(join, local(p.gossip))
	}
	for i, p := range d.ports {
		name := fmt.Sprintf("node-%d", i+1)
		node, err := procs.start(name, filepath.Join(d.dir, name+".log"), "", []string{"FLEET_ROOT_TOKEN=" + d.token},
			"agent", "--name", name, "--data-dir", filepath.Join(d.dir, name),
			"--http-addr", local(p.http), "--node-addr", local(p.node), "--gossip-addr", local(p.gossip),
			"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(devNodes), "--timing", "local")
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, node)
	}
	return nil
}

// startFactories starts two factories, each with two seats: one seat's job runs while the other's is reported. Their leases
// are short, so that whoever kills one sees its jobs go on soon.
func (d *dev) startFactories(procs *supervisor, here string) error {
	for i := range 2 {
		name := fmt.Sprintf("factory-%d", i+1)
		env := []string{"FLEET_ADDR=" + strings.Join(d.urls(), ","), "FLEET_TOKEN=" + d.token, "FLEET_PRODUCT=" + devProduct}
		if _, err := procs.start(name, filepath.Join(d.dir, name+".log"), here, env,
			"work", "--factory-id", name, "--capabilities", "go,shell", "--seats", "2", "--lease", "15s", "--grace", "1s", "--drain", "release",
			"--", "sh", "-c", `exec sh -eu "$FLEET_BODY_FILE"`); err != nil {
			return err
		}
	}
	return nil
}

// awaitReady waits for all nodes. A node that can't start says why in its log.
func (d *dev) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	begin := time.Now()
	for {
		waiting := ""
		for i, url := range d.urls() {
			if why := readiness(ctx, url); why != "" {
				waiting = fmt.Sprintf("node-%d: %s", i+1, why)
			}
		}
		if waiting == "" {
			d.talk.line("three nodes are ready after " + tenths(time.Since(begin)))
			return nil
		}
		d.talk.say("waiting for " + waiting)
		select {
		case <-ctx.Done():
			tail := ""
			for _, n := range d.nodes {
				tail += n.lastWords()
			}
			return fmt.Errorf("the nodes were not ready after %s (%s)%s", tenths(time.Since(begin)), waiting, tail)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// writeContext leaves the address and the token where client commands look last. The function it returns takes them
// away again, unless they are another's by then.
func writeContext(addr, token, product string) (forget func(), err error) {
	path, err := contextPath()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("addr: %s\ntoken: %s\nproduct: %s\n", addr, token, product)
	temp, err := os.CreateTemp(filepath.Dir(path), ".context-") // it has mode 0600
	if err != nil {
		return nil, err
	}
	_, err = temp.WriteString(text)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return nil, err
	}
	return func() {
		if now, err := os.ReadFile(path); err == nil && string(now) == text {
			_ = os.Remove(path)
		}
	}, nil
}
