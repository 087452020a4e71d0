package main

// This file is fleet as a peer: three fleet-node processes, asked over the REST API.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lysnrai/fleet"
	fleetclient "github.com/lysnrai/fleet/rpc/client"
)

const (
	fleetProduct = "bench"
	fleetCallers = 16 // a caller's keyed calls are remembered within a quota, so there are more than one
)

type fleetPeer struct {
	binary    string
	addresses []string
	tokens    []string
}

func (p *fleetPeer) name() string { return "fleet" }

func (p *fleetPeer) about() string {
	version, _ := exec.Command(p.binary, "version", "-q").Output()
	return fmt.Sprintf("fleet-node %s: POST /fleet/claim at any node; synced on two of three, with tokens, and mutual TLS between nodes",
		strings.TrimSpace(string(version)))
}

func (p *fleetPeer) start(ctx context.Context, s *site) error {
	free, err := freeAddresses(3 * nodes)
	if err != nil {
		return err
	}
	http, node, gossip := free[:nodes], free[nodes:2*nodes], free[2*nodes:]
	root := rand.Text()
	for i := range nodes {
		cmd := exec.Command(p.binary, "agent", "--name", nodeName(i), "--data-dir", filepath.Join(s.dir, nodeName(i)),
			"--http-addr", http[i], "--node-addr", node[i], "--gossip-addr", gossip[i],
			"--join", strings.Join(gossip, ","), "--bootstrap-expect", fmt.Sprint(nodes), "--log-level", "warn")
		cmd.Env = []string{"FLEET_ROOT_TOKEN=" + root}
		if err := s.start(nodeName(i), cmd, syscall.SIGKILL); err != nil {
			return err
		}
	}
	p.addresses, p.tokens = http, nil
	for i := range nodes {
		c, err := p.client(i, root)
		if err != nil {
			return err
		}
		err = s.await(ctx, func(ctx context.Context) error {
			_, err := c.Heartbeat(ctx, fleet.HeartbeatRequest{FactoryID: "ready", Health: fleet.HealthDown})
			return err
		})
		if err != nil {
			return err
		}
	}
	c, err := p.client(0, root)
	if err != nil {
		return err
	}
	for i := range fleetCallers {
		token, err := c.CreateToken(ctx, fleet.TokenRequest{
			Name: fmt.Sprintf("caller-%d", i+1), Roles: []fleet.Role{fleet.RoleSubmitter, fleet.RoleFactory},
		})
		if err != nil {
			return err
		}
		p.tokens = append(p.tokens, token.Secret)
	}
	return nil
}

// client makes a client that asks one node, and no other if that fails: what is measured has no second attempts.
func (p *fleetPeer) client(i int, token string) (*fleetclient.Client, error) {
	return fleetclient.New(fleetclient.Config{
		Addresses: []string{"http://" + p.addresses[i%nodes]}, Token: token, Product: fleetProduct, Patience: -1,
		HTTPClient: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()},
	})
}

func (p *fleetPeer) connect(ctx context.Context, i, _ int) (client, error) {
	c, err := p.client(i, p.tokens[i%fleetCallers])
	if err != nil {
		return nil, err
	}
	most, every := int64(fleet.MaxSeats), int64(fleet.MaxHeartbeatSeconds)
	factory := fmt.Sprintf("factory-%d", i+1)
	_, err = c.Heartbeat(ctx, fleet.HeartbeatRequest{FactoryID: factory, Health: fleet.HealthOK, SeatLimit: &most, HeartbeatSeconds: &every})
	return &fleetClient{c, factory}, err
}

type fleetClient struct {
	*fleetclient.Client
	factory string
}

func (c *fleetClient) submit(ctx context.Context, body string) error {
	_, err := c.Submit(ctx, fleet.Submission{BodyMd: body})
	return err
}

func (c *fleetClient) request(most int) fleet.ClaimRequest {
	lease, n := int64(fleet.MaxLeaseSeconds), int64(most)
	return fleet.ClaimRequest{FactoryID: c.factory, LeaseSeconds: &lease, Max: &n}
}

func (c *fleetClient) claim(ctx context.Context) (*job, error) {
	r := c.request(1)
	r.Max = nil
	found, err := c.Claim(ctx, r)
	if found == nil || err != nil {
		return nil, err
	}
	return &job{found.Job.ID, int64(found.Lease.LeaseEpoch), found.Job.BodyMd}, nil
}

func (c *fleetClient) complete(ctx context.Context, j *job) error {
	epoch := uint64(j.fence)
	_, err := c.Report(ctx, j.id, fleet.Report{LeaseEpoch: &epoch, Stage: fleet.Shipped})
	return err
}

func (c *fleetClient) batch(ctx context.Context, bodies []string) (int, error) {
	submissions := make([]fleet.Submission, len(bodies))
	for i, body := range bodies {
		submissions[i] = fleet.Submission{BodyMd: body}
	}
	if _, err := c.SubmitBatch(ctx, submissions); err != nil {
		return 0, fmt.Errorf("submit: %w", err)
	}
	claims, err := c.ClaimBatch(ctx, c.request(len(bodies)))
	if err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	reports := make([]fleet.JobReport, len(claims))
	for i, found := range claims {
		reports[i] = fleet.JobReport{JobID: found.Job.ID, Report: fleet.Report{LeaseEpoch: &found.Lease.LeaseEpoch, Stage: fleet.Shipped}}
	}
	results, err := c.Reports(ctx, reports)
	for _, r := range results {
		if !r.OK {
			err = errors.Join(err, &fleet.Error{Code: r.Code, Detail: r.Detail})
		}
	}
	if err != nil {
		return 0, fmt.Errorf("complete: %w", err)
	}
	return len(results), nil
}

// close has nothing to do: the connections end with the servers.
func (c *fleetClient) close() {}
