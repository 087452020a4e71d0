package main

// This file makes, lists and takes back tokens.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/internal/nearest"
)

func newToken() *cobra.Command {
	return group("token", "Say who may do what", groupOperate, newTokenCreate(), newTokenList(), newTokenDelete())
}

func newTokenCreate() *cobra.Command {
	var n connection
	var o output
	var name, expires string
	var roles, products []string
	c := &cobra.Command{
		Use:     "create",
		Short:   "Make a token; its secret is shown this once",
		Example: "  fleet-node token create --name ci --role submitter --product api --expires 720h\n  fleet-node token create --role reader --role factory -o json",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			r := fleet.TokenRequest{Name: name, Products: products}
			if len(roles) == 0 {
				return usagef("give at least one --role: %s", strings.Join(roleNames(), ", "))
			}
			for _, role := range roles {
				if !slices.Contains(roleNames(), role) {
					return usagef("there is no role %q%s", role, nearest.Hint(role, roleNames()))
				}
				r.Roles = append(r.Roles, fleet.Role(role))
			}
			if r.Products == nil {
				r.Products = []string{}
			}
			var err error
			if r.ExpiresAt, err = expiry(expires, time.Now()); err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			t, err := cl.CreateToken(ctx, r)
			if err != nil {
				return err
			}
			switch {
			case o.json():
				return o.value(c, t)
			case o.quiet:
				return o.ids(c, t.Secret)
			}
			if err := fields(c.OutOrStdout(), "id", t.ID, "name", t.Name, "secret", t.Secret); err != nil {
				return err
			}
			c.PrintErrln("keep the secret now; it is not shown again")
			return nil
		},
	}
	n.flags(c)
	o.flags(c)
	f := c.Flags()
	f.StringVar(&name, "name", "", "what it is for")
	f.StringArrayVar(&roles, "role", nil, strings.Join(roleNames(), ", ")+"; may be given more than once")
	// The connection's --product is who calls; here it is what the token is good for, and a call to /cluster needs none.
	f.Lookup("product").Usage = "product that the token is for; may be given more than once (none: all)"
	f.Lookup("product").Value = &productList{&products}
	f.Lookup("product").DefValue = ""
	f.StringVar(&expires, "expires", "", "when it ends: a duration such as 720h, or a time such as 2027-01-31T00:00:00Z")
	return c
}

// productList is a flag that may be given more than once.
type productList struct{ values *[]string }

func (p *productList) String() string { return strings.Join(*p.values, ",") }
func (p *productList) Type() string   { return "stringArray" }
func (p *productList) Set(s string) error {
	*p.values = append(*p.values, s)
	return nil
}

func roleNames() []string {
	names := make([]string, len(fleet.Roles))
	for i, r := range fleet.Roles {
		names[i] = string(r)
	}
	return names
}

// expiry is a time, or a duration from now; zero for never.
func expiry(text string, now time.Time) (t fleet.Time, err error) {
	if text == "" {
		return 0, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return fleet.TimeOf(now.Add(d)).Truncate(time.Millisecond), nil
	}
	if err := t.UnmarshalJSON([]byte(fmt.Sprintf("%q", text))); err != nil {
		return 0, usagef("--expires %q is no duration such as 720h and no time such as 2027-01-31T00:00:00Z", text)
	}
	return t, nil
}

func newTokenList() *cobra.Command {
	var n connection
	var o output
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens, without their secrets",
		Example: "  fleet-node token list\n  fleet-node token list -q",
		Args:    takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			tokens, err := cl.Tokens(ctx)
			if err != nil {
				return err
			}
			if o.json() {
				return o.value(c, struct {
					Tokens []*fleet.Token `json:"tokens"`
				}{tokens})
			}
			var ids []string
			var rows [][]string
			for _, t := range tokens {
				ids = append(ids, t.ID)
				var roles []string
				for _, r := range t.Roles {
					roles = append(roles, string(r))
				}
				products := strings.Join(t.Products, ",")
				if products == "" {
					products = "all"
				}
				rows = append(rows, []string{t.ID, t.Name, strings.Join(roles, ","), products, ago(t.CreatedAt), t.ExpiresAt.String()})
			}
			if o.quiet {
				return o.ids(c, ids...)
			}
			return o.table(c, "tokens", []string{"ID", "NAME", "ROLES", "PRODUCTS", "CREATED", "EXPIRES"}, rows)
		},
	}
	n.flags(c)
	o.flags(c)
	return c
}

func newTokenDelete() *cobra.Command {
	var n connection
	var o output
	var yes bool
	c := &cobra.Command{
		Use:               "delete ID",
		Short:             "Take a token back; it is refused from then on",
		Example:           "  fleet-node token delete 01JD8X4QH6S8M6ZJ2V9T3K5R7W --yes\n  fleet-node token delete 01JD8X4QH6S8M6ZJ2V9T3K5R7W",
		Args:              takes("the id of a token"),
		ValidArgsFunction: firstArg(&n, allTokens),
		RunE: func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "take back the token "+args[0]); err != nil {
				return err
			}
			cl, err := n.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			if err := cl.DeleteToken(ctx, args[0]); err != nil {
				return err
			}
			return o.done(c, args[0])
		},
	}
	n.flags(c)
	o.flags(c)
	yesFlag(c, &yes)
	return c
}
