package rpc

// This file says who calls, and in which product. What a caller may do is for fsm.View.Authorize to say.

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/fsm"
)

// crossOrigin refuses what another site's page makes a browser send.
var crossOrigin = http.NewCrossOriginProtection()

// authenticate finds the caller, and the products of its token (nil: all).
func (a *API) authenticate(ctx context.Context, r *http.Request) (fsm.Caller, []string, error) {
	if a.noAuth {
		return fsm.Caller{Actor: fsm.ActorAnonymous}, nil, checkLocal(r)
	}
	secret, err := bearer(r.Header)
	if err != nil {
		return fsm.Caller{}, nil, err
	}
	hash := sha256.Sum256([]byte(secret))
	if root := a.rootHash.Load(); root != nil && subtle.ConstantTimeCompare(hash[:], root[:]) == 1 {
		return fsm.Caller{Actor: fsm.ActorRoot}, nil, nil
	}
	var token *fleet.Token
	find := func(v fsm.View) { token, _ = v.Authenticate(hash) }
	a.node.View(find)
	if token == nil && wellFormedSecret(secret) {
		// It may have been made a moment ago, through another node.
		if err := a.node.Read(ctx, cluster.Linearizable, 0, find); err != nil {
			return fsm.Caller{}, nil, err
		}
	}
	if token == nil {
		return fsm.Caller{}, nil, fleet.Errorf(fleet.Unauthenticated, "this token is not known: it may have been revoked or have expired; ask an admin for another")
	}
	return fsm.Caller{Actor: token.ID}, token.Products, nil
}

// bearer is the secret of the one Authorization header.
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch len(values) {
	case 0:
		return "", fleet.Errorf(fleet.Unauthenticated, "send Authorization: Bearer <token>")
	case 1:
	default:
		return "", fleet.Errorf(fleet.Unauthenticated, "there are %d Authorization headers; send one", len(values))
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", fleet.Errorf(fleet.Unauthenticated, "the Authorization header is not of the form Bearer <token>")
	}
	return secret, nil
}

// checkLocal keeps web pages away from a node that lets everybody in: by the name that a rebound DNS record would carry,
// and by what browsers say of where a call comes from.
func checkLocal(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
		return fleet.Errorf(fleet.Forbidden, "under --no-auth a node is called localhost or by its IP address, not %q", host)
	}
	if err := crossOrigin.Check(r); err != nil {
		return fleet.Errorf(fleet.Forbidden, "under --no-auth no other site's page may call")
	}
	return nil
}

// product is the one that the call acts in: of its header, or the only one of its token.
func product(h http.Header, ofToken []string) (string, error) {
	values := h.Values("X-Product-Id")
	switch {
	case len(values) > 1:
		return "", fleet.InvalidField("X-Product-Id", "there are %d of these headers; send one", len(values))
	case len(values) == 1:
		return values[0], invalid(fleet.ValidateName("X-Product-Id", values[0]))
	case len(ofToken) == 1:
		return ofToken[0], nil
	}
	return "", fleet.InvalidField("X-Product-Id", "is missing: say which product this is about, for this token is good for more than one")
}

// authorize refuses a caller who has none of the roles in the product.
func (a *API) authorize(c *request, roles ...fleet.Role) (err error) {
	a.node.View(func(v fsm.View) {
		for _, role := range roles {
			if err = v.Authorize(c.caller, role, c.product); err == nil {
				return
			}
		}
	})
	return err
}
