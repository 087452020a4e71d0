package fsm

// This file is who may do what: tokens, and the one decision that every read and every command is judged by.

import (
	"slices"

	"github.com/lysnrai/fleet"
)

const maxTokens = 100_000

func (c *CreateToken) apply(tx *tx) (Result, error) {
	st, hash := tx.st, string(c.Hash)
	if at := c.Request.ExpiresAt; at != 0 && at <= st.now {
		return nil, fleet.InvalidField("expiresAt", "%s is not in the future: it is %s", at, st.now)
	}
	_, used := st.tokens.Get(c.ID)
	_, revoked := st.revoked.Get(c.ID)
	_, known := st.hashes.Get(hash)
	if used || revoked || known || c.ID == "" || len(hash) != 32 {
		return nil, fleet.Errorf(fleet.Internal, "token id %q or its secret is not new", c.ID)
	}
	if st.tokens.Len() >= maxTokens {
		err := fleet.Errorf(fleet.QuotaExceeded, "there are %d tokens, the most is %d: delete some", st.tokens.Len(), maxTokens)
		err.RetryAfterSeconds = quotaRetrySeconds
		return nil, err
	}
	doc := &fleet.Token{
		ID: c.ID, Name: c.Request.Name, Roles: c.Request.Roles, Products: c.Request.Products,
		CreatedAt: st.now, ExpiresAt: c.Request.ExpiresAt,
	}
	st.tokens.Set(c.ID, &token{doc, hash})
	st.hashes.Set(hash, c.ID)
	if doc.ExpiresAt != 0 {
		st.deadlines.Set(deadline{doc.ExpiresAt, dueToken, "", c.ID})
	}
	tx.changed++
	return doc, nil
}

func (c *DeleteToken) apply(tx *tx) (Result, error) {
	if _, ok := tx.st.tokens.Get(c.ID); !ok {
		return nil, fleet.Errorf(fleet.NotFound, "there is no token %s", c.ID)
	}
	tx.endToken(c.ID)
	tx.changed++
	return &Done{}, nil
}

// endToken ends a token that is revoked, or whose time has come. Until this entry it was valid, whatever a clock says.
func (tx *tx) endToken(id string) {
	tx.st.dropToken(id)
	tx.news.TokenEnded = true
}

// dropToken ends a token for ever. Factories that it registered are open from now on: their owner is only a word.
func (st *state) dropToken(id string) {
	t, ok := st.tokens.Delete(id)
	if !ok {
		return
	}
	st.hashes.Delete(t.hash)
	st.revoked.Set(id, revocation{})
	if t.doc.ExpiresAt != 0 {
		st.deadlines.Delete(deadline{t.doc.ExpiresAt, dueToken, "", id})
	}
}

// authorize judges whether a caller may use a role in a product; empty is the cluster's own, which a token must be for
// all products to reach: who may make tokens for any product may do all.
func (st *state) authorize(c Caller, role fleet.Role, product string) error {
	switch c.Actor {
	case ActorRoot, ActorAnonymous:
		return nil
	case ActorFleet:
		return fleet.Errorf(fleet.Forbidden, "the cluster itself does not ask for role %s", role)
	}
	t, ok := st.tokens.Get(c.Actor)
	if !ok {
		return fleet.Errorf(fleet.Unauthenticated, "no such token, or not any more")
	}
	if !slices.ContainsFunc(t.doc.Roles, func(r fleet.Role) bool { return r.Includes(role) }) {
		return fleet.Errorf(fleet.Forbidden, "token %s has roles %v, this call needs %s", c.Actor, t.doc.Roles, role)
	}
	if len(t.doc.Products) == 0 || slices.Contains(t.doc.Products, product) {
		return nil
	}
	if product == "" {
		return fleet.Errorf(fleet.Forbidden, "token %s is for products %v, this call is about the whole cluster", c.Actor, t.doc.Products)
	}
	return fleet.Errorf(fleet.Forbidden, "token %s is for products %v, not for %s", c.Actor, t.doc.Products, product)
}
