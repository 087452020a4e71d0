package fsm

// This file is profiles: numbered versions of a set-up that a claim hands to the worker, each immutable.

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/lysnrai/fleet"
)

func (c *PutProfile) apply(tx *tx) (Result, error) {
	versions, _ := tx.p.profiles.Get(c.Name)
	if n := len(versions); n > 0 && versions[n-1].Snapshot.Equal(c.Snapshot) {
		return &fleet.ProfileResult{Profile: versions[n-1]}, nil
	}
	tx.found()
	p := &fleet.Profile{Name: c.Name, ProductID: tx.p.id, Version: int64(len(versions)) + 1, Snapshot: c.Snapshot}
	tx.p.profiles.Set(c.Name, append(slices.Clone(versions), p))
	tx.p.sum += sumOf[msgp.Marshaler](recordProfile, p, appendDocument)
	tx.changed++
	return &fleet.ProfileResult{Created: true, Profile: p}, nil
}

// profile finds what a job names: the latest of a name, or name@version.
func (p *product) profile(ref string) (*fleet.Profile, bool) {
	if ref == "" {
		return nil, false
	}
	if versions, ok := p.profiles.Get(ref); ok {
		return versions[len(versions)-1], true
	}
	at := strings.LastIndexByte(ref, '@')
	if at < 0 {
		return nil, false
	}
	n, err := strconv.ParseInt(ref[at+1:], 10, 64)
	versions, _ := p.profiles.Get(ref[:at])
	if err != nil || n < 1 || n > int64(len(versions)) {
		return nil, false
	}
	return versions[n-1], true
}
