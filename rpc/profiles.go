package rpc

// This file is the calls about profiles.

import (
	"context"
	"strconv"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// putProfile stores the next version, unless the latest is the same.
func (a *API) putProfile(ctx context.Context, c *call[fleet.ProfileRequest]) (*fleet.ProfileResult, error) {
	return propose[*fleet.ProfileResult](ctx, a, c.request, &fsm.PutProfile{
		ProductID: c.product, Name: c.Body.Name, Snapshot: c.Body.Snapshot,
	})
}

type profileList struct {
	Profiles []*fleet.Profile `json:"profiles"`
}

func (a *API) listProfiles(ctx context.Context, c *request) (list *profileList, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		list = &profileList{v.Profiles(c.product)}
		return nil
	})
	return list, err
}

// profile is the latest version, or the one that the path names.
func (a *API) profile(ctx context.Context, c *request) (p *fleet.Profile, err error) {
	name, version := c.vars["name"], int64(0)
	asked := name
	if digits, named := c.vars["version"]; named {
		asked = name + "@" + digits
		if version, err = strconv.ParseInt(digits, 10, 64); err != nil || version < 1 {
			return nil, noSuch("profile", asked)
		}
	}
	err = a.read(ctx, c, func(v fsm.View) error {
		var found bool
		if p, found = v.Profile(c.product, name, version); !found {
			return noSuch("profile", asked)
		}
		return nil
	})
	return p, err
}
