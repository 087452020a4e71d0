// Command bench runs the same job cycle against fleet, etcd, NATS JetStream and Postgres, side by side in one run, and prints how
// many times as fast fleet is: make bench-compare.
//
// A cycle is submit, claim, complete, each answered only when it is on the disks of two nodes of three. What is the same for all:
// three server processes on this machine, started empty for each round and running alone; a backlog, so that a claim never has to
// wait; the clients, each with connections of its own, spread over the nodes; bodies that all differ; how long they warm up and are
// measured. A round measures every peer at every number of clients, and each round starts with another peer. A ratio is taken
// within a round.
//
// It is a module of its own, so that the product's go.mod stays short. Start with peer.go, then measure.go.
package main

// This file is the command line.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := compare
	if len(os.Args) > 1 && os.Args[1] == memberArg {
		run = member
	}
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare measures the peers that it is told to, or all that are here, and reports.
func compare(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	binary := flags.String("fleet-node", "bin/fleet-node", "the fleet-node to measure")
	dir := flags.String("dir", ".", "directory on the disk to measure; what is written there is taken away")
	names := flags.String("peers", "fleet,etcd,nats,postgres", "whom to measure")
	counts := flags.String("clients", "1,16,64", "how many clients call at once, one after the other")
	rounds := flags.Int("rounds", 3, "how often everything is measured")
	duration := flags.Duration("duration", 2*time.Second, "how long one measurement lasts; a quarter of it before is warm-up")
	if err := flags.Parse(args); err != nil {
		return err
	}
	clients, err := numbers(*counts)
	if err != nil {
		return err
	}
	if *rounds < 1 || *duration <= 0 || flags.NArg() > 0 {
		return errors.New("-rounds and -duration must be above zero, and there are no other arguments")
	}
	peers, err := choose(strings.Split(*names, ","), *binary)
	if err != nil {
		return err
	}
	p := plan{
		peers: peers, dir: *dir, clients: clients, rounds: *rounds,
		warmUp: *duration / 4, duration: *duration, backlog: backlog,
		progress: func(text string) { fmt.Fprintln(os.Stderr, text) },
	}
	results := p.run(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	return results.report(os.Stdout, p)
}

// choose finds the peers by name. Postgres may be missing, and is left out then.
func choose(names []string, binary string) ([]peer, error) {
	var chosen []peer
	for _, name := range names {
		switch name {
		case "fleet":
			if _, err := os.Stat(binary); err != nil {
				return nil, fmt.Errorf("there is no fleet-node to measure: %w", err)
			}
			chosen = append(chosen, &fleetPeer{binary: binary})
		case "etcd":
			chosen = append(chosen, &etcdPeer{})
		case "nats":
			chosen = append(chosen, &natsPeer{})
		case "postgres":
			programs, err := findPostgres()
			if err != nil {
				fmt.Fprintln(os.Stderr, "postgres is left out:", err)
				continue
			}
			chosen = append(chosen, &postgresPeer{programs: programs})
		default:
			return nil, fmt.Errorf("there is no peer %q", name)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("there is no peer to measure")
	}
	return chosen, nil
}

func numbers(list string) ([]int, error) {
	var all []int
	for _, field := range strings.Split(list, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > maxClients || slices.Contains(all, n) {
			return nil, fmt.Errorf("-clients %q: want different numbers from 1 to %d with commas between them", list, maxClients)
		}
		all = append(all, n)
	}
	return all, nil
}
