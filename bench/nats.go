package main

// This file is NATS JetStream as a peer: a replicated work-queue stream with one pull consumer, every write synced.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsclient "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	natsStream   = "JOBS"
	natsSubject  = "jobs"
	natsConsumer = "workers"
	natsNext     = "$JS.API.CONSUMER.MSG.NEXT." + natsStream + "." + natsConsumer
)

// natsPull asks for one message and waits a second for it, in nanoseconds.
var natsPull = []byte(`{"batch":1,"expires":1000000000}`)

type natsPeer struct{ addresses []string }

func (p *natsPeer) name() string { return "nats" }

func (p *natsPeer) about() string {
	return "NATS JetStream " + natsserver.VERSION + ": work-queue stream R3, pull of one, acknowledged with an answer; " +
		"sync_interval: always, on two of three"
}

func (p *natsPeer) start(ctx context.Context, s *site) error {
	free, err := freeAddresses(2 * nodes)
	if err != nil {
		return err
	}
	p.addresses = free[:nodes]
	for i := range nodes {
		err := s.startMember(nodeName(i), "nats", "-name", nodeName(i), "-dir", filepath.Join(s.dir, nodeName(i)),
			"-client", free[i], "-peer", free[nodes+i], "-cluster", strings.Join(free[nodes:], ","))
		if err != nil {
			return err
		}
	}
	for i := range nodes {
		err := s.await(ctx, func(ctx context.Context) error { return p.prepare(ctx, i) })
		if err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the stream and its consumer by way of one node.
func (p *natsPeer) prepare(ctx context.Context, i int) error {
	c, err := natsclient.Connect("nats://" + p.addresses[i])
	if err != nil {
		return err
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: natsStream, Subjects: []string{natsSubject}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: nodes,
	})
	if err != nil {
		return err
	}
	_, err = stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: natsConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Minute, MaxAckPending: -1, MaxWaiting: 4 * maxClients,
	})
	return err
}

func natsMember(ctx context.Context, args []string) error {
	// A sync_interval of always is these two, with the server's default for the interval.
	options := &natsserver.Options{JetStream: true, SyncAlways: true, SyncInterval: 2 * time.Minute, NoSigs: true}
	options.Cluster.Name = "bench"
	flags := flag.NewFlagSet("nats", flag.ContinueOnError)
	flags.StringVar(&options.ServerName, "name", "", "")
	flags.StringVar(&options.StoreDir, "dir", "", "")
	client, peer, cluster := flags.String("client", "", ""), flags.String("peer", "", ""), flags.String("cluster", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var errs [2]error
	options.Host, options.Port, errs[0] = hostPort(*client)
	options.Cluster.Host, options.Cluster.Port, errs[1] = hostPort(*peer)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	for _, address := range strings.Split(*cluster, ",") {
		options.Routes = append(options.Routes, &url.URL{Scheme: "nats", Host: address})
	}
	server, err := natsserver.NewServer(options)
	if err != nil {
		return err
	}
	server.ConfigureLogger()
	server.Start()
	<-ctx.Done()
	server.Shutdown()
	return nil
}

func hostPort(address string) (string, int, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(text)
	return host, port, err
}

func (p *natsPeer) connect(_ context.Context, i, _ int) (client, error) {
	c, err := natsclient.Connect("nats://" + p.addresses[i%nodes])
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(c)
	return &natsClient{c, js}, err
}

type natsClient struct {
	*natsclient.Conn
	js jetstream.JetStream
}

func (c *natsClient) submit(ctx context.Context, body string) error {
	_, err := c.js.Publish(ctx, natsSubject, []byte(body))
	return err
}

// claim pulls by the bare protocol: less work for the client than the library's Fetch.
func (c *natsClient) claim(ctx context.Context) (*job, error) {
	m, err := c.RequestWithContext(ctx, natsNext, natsPull)
	if err != nil {
		return nil, err
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return &job{id: m.Reply, body: string(m.Data)}, nil
	case "404", "408": // no message, in time
		return nil, nil
	default:
		return nil, fmt.Errorf("%s %s", status, m.Header.Get("Description"))
	}
}

func (c *natsClient) complete(ctx context.Context, j *job) error {
	_, err := c.RequestWithContext(ctx, j.id, []byte("+ACK"))
	return err
}

func (c *natsClient) close() { c.Close() }
