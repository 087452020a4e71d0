package rpc

// This file is the calls about tokens. The cluster never sees a secret: only its hash goes into the log.

import (
	"context"
	"crypto/sha256"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/fsm"
)

// newToken is a token as it is shown once, with its secret.
type newToken struct {
	fleet.Token
	Secret string `json:"secret,omitzero"`
}

// tokenRequest asks for a token. One that is to be good for all products says so: leaving them out is more likely a slip.
type tokenRequest struct{ fleet.TokenRequest }

func (r *tokenRequest) Validate() []fleet.FieldError {
	errs := r.TokenRequest.Validate()
	if r.Products == nil {
		errs = append(errs, fleet.FieldError{Field: "products", Detail: "is missing; [] means all products"})
	}
	return errs
}

// createToken makes a token. A repeat is answered from memory, without the secret: nobody has it any more.
func (a *API) createToken(ctx context.Context, c *call[tokenRequest]) (*newToken, error) {
	secret := newSecret()
	hash := sha256.Sum256([]byte(secret))
	token, err := propose[*fleet.Token](ctx, a, c.request, &fsm.CreateToken{ID: a.ids.next(), Hash: hash[:], Request: c.Body.TokenRequest})
	if err != nil {
		return nil, err
	}
	if c.replayed {
		secret = ""
	}
	return &newToken{*token, secret}, nil
}

type tokenList struct {
	Tokens []*fleet.Token `json:"tokens"`
}

func (a *API) listTokens(ctx context.Context, c *request) (list *tokenList, err error) {
	err = a.read(ctx, c, func(v fsm.View) error {
		list = &tokenList{v.Tokens()}
		return nil
	})
	return list, err
}

func (a *API) deleteToken(ctx context.Context, c *call[none]) (*fsm.Done, error) {
	return propose[*fsm.Done](ctx, a, c.request, &fsm.DeleteToken{ID: c.vars["id"]})
}
