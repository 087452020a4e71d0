package main

// This file is Postgres as a peer, where it is installed: a table claimed by SKIP LOCKED, a primary and two synchronous standbys.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// postgresSchema has what the recipe needs, and no more.
const postgresSchema = `
CREATE TABLE jobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stage text NOT NULL DEFAULT 'queued',
  epoch bigint NOT NULL DEFAULT 0,
  lease_until timestamptz,
  body text NOT NULL);
CREATE INDEX jobs_queue ON jobs (id) WHERE stage = 'queued'`

// postgresPeer starts the programs of one directory, as another account if this one is root.
type postgresPeer struct {
	programs string
	url      string
}

// findPostgres is where its programs are: beside the initdb of the path, or where distributions put them.
func findPostgres() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if inPath, err := exec.LookPath("initdb"); err == nil {
		found = append(found, inPath)
	}
	if len(found) == 0 {
		return "", errors.New("initdb is not installed")
	}
	initdb, err := filepath.EvalSymlinks(found[len(found)-1])
	if err == nil && os.Getuid() == 0 {
		_, err = user.Lookup("postgres") // the server refuses to run as root
	}
	return filepath.Dir(initdb), err
}

func (p *postgresPeer) name() string { return "postgres" }

func (p *postgresPeer) about() string {
	version, _ := exec.Command(filepath.Join(p.programs, "postgres"), "--version").Output()
	return strings.TrimSpace(string(version)) + ": UPDATE of what SELECT … FOR UPDATE SKIP LOCKED LIMIT 1 finds; " +
		"a primary and one of two synchronous standbys have synced"
}

// command makes one of the programs ready to run, as the account that owns the data.
func (p *postgresPeer) command(dir, program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(p.programs, program), args...)
	cmd.Dir = dir
	if os.Getuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr, os.Chown(dir, int(uid), int(gid))); err != nil {
			return nil, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd, nil
}

// finish runs one of the programs to its end.
func (p *postgresPeer) finish(dir, program string, args ...string) error {
	cmd, err := p.command(dir, program, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (p *postgresPeer) start(ctx context.Context, s *site) error {
	free, err := freeAddresses(nodes)
	if err != nil {
		return err
	}
	data := func(i int) string { return filepath.Join(s.dir, nodeName(i)) }
	p.url = "postgres://postgres@" + free[0] + "/postgres?sslmode=disable"
	if err := p.finish(s.dir, "initdb", "-D", data(0), "-U", "postgres", "-A", "trust", "--no-sync"); err != nil {
		return err
	}
	for i := range nodes {
		host, port, err := net.SplitHostPort(free[i])
		if err != nil {
			return err
		}
		if i > 0 {
			err := p.finish(s.dir, "pg_basebackup", "-d", p.url, "-D", data(i), "-R", "-X", "stream", "-c", "fast", "--no-sync")
			if err != nil {
				return err
			}
		}
		cmd, err := p.command(s.dir, "postgres", "-D", data(i), "-p", port, "-c", "listen_addresses="+host, "-c", "unix_socket_directories=",
			"-c", fmt.Sprintf("max_connections=%d", maxClients+50), "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "cluster_name="+nodeName(i))
		if err != nil {
			return err
		}
		if err := s.start(nodeName(i), cmd, syscall.SIGQUIT); err != nil { // at once: nobody will need its data
			return err
		}
		err = s.await(ctx, func(ctx context.Context) error {
			c, err := pgx.Connect(ctx, "postgres://postgres@"+free[i]+"/postgres?sslmode=disable")
			if err == nil {
				err = c.Close(ctx)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return p.prepare(ctx, s)
}

// prepare makes the standbys synchronous, and the table.
func (p *postgresPeer) prepare(ctx context.Context, s *site) error {
	c, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"} {
		if _, err := c.Exec(ctx, statement); err != nil {
			return err
		}
	}
	err = s.await(ctx, func(ctx context.Context) error {
		var standbys int
		err := c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming'").Scan(&standbys)
		if err == nil && standbys != nodes-1 {
			err = fmt.Errorf("%d of %d standbys follow", standbys, nodes-1)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, postgresSchema)
	return err
}

// connect goes to the primary: no other takes writes.
func (p *postgresPeer) connect(ctx context.Context, _, _ int) (client, error) {
	c, err := pgx.Connect(ctx, p.url)
	return &postgresClient{c}, err
}

type postgresClient struct{ *pgx.Conn }

func (c *postgresClient) submit(ctx context.Context, body string) error {
	_, err := c.Exec(ctx, "INSERT INTO jobs (body) VALUES ($1)", body)
	return err
}

func (c *postgresClient) claim(ctx context.Context) (*job, error) {
	var (
		j  job
		id int64
	)
	err := c.QueryRow(ctx, `UPDATE jobs SET stage = 'assigned', epoch = epoch + 1, lease_until = now() + interval '10 min'
		WHERE id = (SELECT id FROM jobs WHERE stage = 'queued' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
		RETURNING id, epoch, body`).Scan(&id, &j.fence, &j.body)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	j.id = strconv.FormatInt(id, 10)
	return &j, err
}

func (c *postgresClient) complete(ctx context.Context, j *job) error {
	id, err := strconv.ParseInt(j.id, 10, 64)
	if err != nil {
		return err
	}
	done, err := c.Exec(ctx, "UPDATE jobs SET stage = 'shipped' WHERE id = $1 AND epoch = $2 AND stage = 'assigned'", id, j.fence)
	if err == nil && done.RowsAffected() != 1 {
		err = fmt.Errorf("the claim of %s is lost", j.id)
	}
	return err
}

func (c *postgresClient) close() { _ = c.Close(context.Background()) }
