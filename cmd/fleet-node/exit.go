package main

// This file is the exit statuses, which scripts rely on (docs/operations.md).

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
)

const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNothing     = 3 // nothing to claim
	exitRefused     = 4 // no token, or not a token for this
	exitConflict    = 5
	exitStorage     = 6 // an agent whose disk can't be trusted
	exitRemoved     = 7 // an agent that was removed from its cluster
	exitInterrupted = 130
)

// statusError is an error that has a status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// plainError is printed as it is: the problems of files, each on a line that an editor can jump to.
type plainError struct{ error }

func (e plainError) Unwrap() error { return e.error }

var errInterrupted = &statusError{exitInterrupted, errors.New("interrupted")}

func usagef(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// whatNext is what the API can't know: what to do about an error here, on the command line. Empty: nothing to add.
func whatNext(c *cobra.Command, err error) string {
	token := c.Flags().Lookup("token") // by now it has the token from wherever that came
	var refused *fleet.Error
	switch errors.As(err, &refused); {
	case refused == nil && errors.Is(err, syscall.ECONNREFUSED) && token != nil:
		return "; start a cluster with fleet-node dev, or say where one is with --addr or FLEET_ADDR"
	case refused == nil:
		return ""
	case refused.Code == fleet.Unauthenticated && token != nil && token.Value.String() == "":
		return "; give a token with FLEET_TOKEN or --token-file"
	case slices.ContainsFunc(refused.Fields, func(p fleet.FieldError) bool { return p.Field == "X-Product-Id" }):
		return "; give it with --product or FLEET_PRODUCT"
	case refused.Code == fleet.NoLeader && c.Flags().Lookup("stale") != nil:
		return "; see what this node knows with --stale"
	}
	return ""
}

// conflicts are the codes that say: what you know is not how it is any more.
var conflicts = []fleet.Code{
	fleet.StaleEpoch, fleet.IllegalTransition, fleet.IdempotencyConflict, fleet.IdempotencyKeyReused, fleet.SeatsExhausted,
	fleet.FactoryDown, fleet.LastVoter, fleet.VersionMismatch, fleet.PreconditionRequired,
}

func statusOf(err error) int {
	var own *statusError
	var refused *fleet.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.status
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, cluster.ErrStorage), errors.Is(err, cluster.ErrUnconfirmed):
		return exitStorage
	case errors.Is(err, cluster.ErrRemoved):
		return exitRemoved
	case !errors.As(err, &refused):
		return exitFailed
	case refused.Code == fleet.Unauthenticated || refused.Code == fleet.Forbidden:
		return exitRefused
	case slices.Contains(conflicts, refused.Code):
		return exitConflict
	}
	return exitFailed
}
