package main

// This file is etcd as a peer: the usual recipe for a queue, on three members with their default fsync.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/version"
	etcdclient "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const (
	etcdLeaseSeconds = 600
	etcdQuota        = 6 << 30 // bytes; the default of 2 GiB ends a long run
)

// etcdPeer keeps a job as the key job/ID, and queue/ID beside it as long as nobody has it.
type etcdPeer struct {
	endpoints []string
	last      atomic.Int64
}

func (p *etcdPeer) name() string { return "etcd" }

func (p *etcdPeer) about() string {
	return "etcd " + version.Version + ": local read of the first 4 × clients queue keys, one of them by chance, taken by a guarded " +
		"transaction under a lease; synced on two of three"
}

func (p *etcdPeer) start(ctx context.Context, s *site) error {
	free, err := freeAddresses(2 * nodes)
	if err != nil {
		return err
	}
	p.endpoints = nil
	var cluster []string
	for i := range nodes {
		p.endpoints = append(p.endpoints, "http://"+free[i])
		cluster = append(cluster, nodeName(i)+"=http://"+free[nodes+i])
	}
	for i := range nodes {
		err := s.startMember(nodeName(i), "etcd", "-name", nodeName(i), "-dir", filepath.Join(s.dir, nodeName(i)),
			"-client", p.endpoints[i], "-peer", "http://"+free[nodes+i], "-cluster", strings.Join(cluster, ","))
		if err != nil {
			return err
		}
	}
	for i := range nodes {
		c, err := p.dial(i)
		if err != nil {
			return err
		}
		defer c.Close()
		err = s.await(ctx, func(ctx context.Context) error {
			_, err := c.Put(ctx, "ready", "")
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func etcdMember(ctx context.Context, args []string) error {
	config := embed.NewConfig()
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	flags.StringVar(&config.Name, "name", "", "")
	flags.StringVar(&config.Dir, "dir", "", "")
	flags.StringVar(&config.InitialCluster, "cluster", "", "")
	client, peer := flags.String("client", "", ""), flags.String("peer", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	clientURL, err := url.Parse(*client)
	if err != nil {
		return err
	}
	peerURL, err := url.Parse(*peer)
	if err != nil {
		return err
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	config.QuotaBackendBytes, config.LogLevel = etcdQuota, "error"
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return err
	}
}

func (p *etcdPeer) dial(i int) (*etcdclient.Client, error) {
	return etcdclient.New(etcdclient.Config{Endpoints: []string{p.endpoints[i%nodes]}, Logger: zap.NewNop()})
}

func (p *etcdPeer) connect(ctx context.Context, i, n int) (client, error) {
	c, err := p.dial(i)
	if err != nil {
		return nil, err
	}
	lease, err := c.Grant(ctx, etcdLeaseSeconds)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &etcdClient{c, p, lease.ID, int64(4 * n)}, nil
}

type etcdClient struct {
	*etcdclient.Client
	peer  *etcdPeer
	lease etcdclient.LeaseID
	width int64 // how many keys a claim chooses from
}

func (c *etcdClient) submit(ctx context.Context, body string) error {
	id := fmt.Sprintf("%016d", c.peer.last.Add(1))
	r, err := c.Txn(ctx).
		If(etcdclient.Compare(etcdclient.CreateRevision("job/"+id), "=", 0)).
		Then(etcdclient.OpPut("job/"+id, body), etcdclient.OpPut("queue/"+id, "")).
		Commit()
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("the job %s is there already", id)
	}
	return err
}

// claim chooses among the first keys, or all clients would race for the very first.
func (c *etcdClient) claim(ctx context.Context) (*job, error) {
	for {
		r, err := c.Get(ctx, "queue/", etcdclient.WithPrefix(), etcdclient.WithKeysOnly(), etcdclient.WithLimit(c.width), etcdclient.WithSerializable())
		if err != nil || len(r.Kvs) == 0 {
			return nil, err
		}
		found := r.Kvs[rand.IntN(len(r.Kvs))]
		key := string(found.Key)
		id := strings.TrimPrefix(key, "queue/")
		t, err := c.Txn(ctx).
			If(etcdclient.Compare(etcdclient.ModRevision(key), "=", found.ModRevision)).
			Then(etcdclient.OpDelete(key), etcdclient.OpPut("claim/"+id, "", etcdclient.WithLease(c.lease)), etcdclient.OpGet("job/"+id)).
			Commit()
		if err != nil {
			return nil, err
		}
		if t.Succeeded {
			return &job{id, t.Header.Revision, string(t.Responses[2].GetResponseRange().Kvs[0].Value)}, nil
		}
	}
}

func (c *etcdClient) complete(ctx context.Context, j *job) error {
	r, err := c.Txn(ctx).
		If(etcdclient.Compare(etcdclient.CreateRevision("claim/"+j.id), "=", j.fence)).
		Then(etcdclient.OpDelete("claim/"+j.id), etcdclient.OpPut("job/"+j.id, "shipped")).
		Commit()
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("the claim of %s is lost", j.id)
	}
	return err
}

func (c *etcdClient) close() { _ = c.Close() }
