package fsm

// This file tests who may do what, and what the cluster keeps about tokens and servers.

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/lysnrai/fleet"
)

func secret(s string) []byte { return bytes.Repeat([]byte(s), 32)[:32] }

func TestAuthorize(t *testing.T) {
	c := newCaller(t)
	token := func(id string, role fleet.Role, products ...string) {
		c.must("", &CreateToken{ID: id, Hash: secret(id), Request: fleet.TokenRequest{Roles: []fleet.Role{role}, Products: products}})
	}
	token("all", fleet.RoleAdmin)
	token("scoped", fleet.RoleAdmin, "p")
	token("operator", fleet.RoleOperator, "p", "q")
	token("worker", fleet.RoleFactory)
	for _, x := range []struct {
		actor   string
		role    fleet.Role
		product string
		want    fleet.Code // empty: allowed
	}{
		{ActorRoot, fleet.RoleAdmin, "", ""},
		{ActorAnonymous, fleet.RoleOperator, "p", ""},
		{ActorFleet, fleet.RoleReader, "p", fleet.Forbidden},
		{"", fleet.RoleReader, "p", fleet.Unauthenticated},
		{"gone", fleet.RoleReader, "p", fleet.Unauthenticated},
		{"all", fleet.RoleFactory, "z", ""},
		{"all", fleet.RoleAdmin, "", ""},
		{"scoped", fleet.RoleAdmin, "", fleet.Forbidden},
		{"scoped", fleet.RoleFactory, "p", ""},
		{"operator", fleet.RoleSubmitter, "q", ""},
		{"operator", fleet.RoleReader, "r", fleet.Forbidden},
		{"operator", fleet.RoleFactory, "p", fleet.Forbidden},
		{"worker", fleet.RoleFactory, "p", ""},
		{"worker", fleet.RoleSubmitter, "p", fleet.Forbidden},
	} {
		c.m.View(func(v View) {
			err := v.Authorize(Caller{x.actor}, x.role, x.product)
			if x.want == "" && err != nil || x.want != "" && !errors.Is(err, x.want) {
				t.Errorf("%q as %s in %q: got %v, want %q", x.actor, x.role, x.product, err, x.want)
			}
		})
	}
}

// A caller from outside can't give the leader's commands.
func TestInternalCommandsAreTheLeaders(t *testing.T) {
	m := New()
	for _, actor := range []string{ActorRoot, ActorAnonymous, "", "t"} {
		answers, _ := m.Apply(1, &Entry{Stamp: epoch, Proposals: []Proposal{{Caller: Caller{actor}, Command: &Bootstrap{ClusterID: "c"}}}})
		if !errors.Is(error(answers[0].Err), fleet.Forbidden) {
			t.Errorf("%q: got %v, want %v", actor, answers[0].Err, fleet.Forbidden)
		}
	}
}

func TestTokensComeAndGo(t *testing.T) {
	c := newCaller(t)
	create := &CreateToken{ID: "t", Hash: secret("t"), Request: fleet.TokenRequest{Name: "n", Roles: []fleet.Role{fleet.RoleReader}, ExpiresAt: epoch.Add(60)}}
	c.must("k", create)
	if a := c.propose("k", create); !a.Replayed || a.Result.(*fleet.Token).ID != "t" {
		t.Errorf("repeating a creation: got %+v, want the token again", a)
	}
	if a := c.propose("", &CreateToken{ID: "t", Hash: secret("u")}); a.Err == nil {
		t.Error("an id was given out twice")
	}
	if a := c.propose("", &CreateToken{ID: "u", Hash: secret("u"), Request: fleet.TokenRequest{ExpiresAt: epoch}}); !errors.Is(error(a.Err), fleet.Invalid) {
		t.Errorf("expired at birth: got %v, want %v", a.Err, fleet.Invalid)
	}
	known := func() (ok bool) {
		c.m.View(func(v View) { _, ok = v.Authenticate([32]byte(secret("t"))) })
		return ok
	}
	c.now = epoch.Add(61)
	if !known() {
		t.Error("the token is gone before the entry that expires it")
	}
	c.must("", &Reap{Limit: 10})
	if known() {
		t.Error("the token is still there after the entry that expires it")
	}
	if a := c.propose("", &DeleteToken{ID: "t"}); !errors.Is(error(a.Err), fleet.NotFound) {
		t.Errorf("deleting an expired token: got %v, want %v", a.Err, fleet.NotFound)
	}
	if a := c.propose("", &CreateToken{ID: "t", Hash: secret("v")}); a.Err == nil {
		t.Error("the id of an expired token was given out again")
	}
	c.must("", &CreateToken{ID: "w", Hash: secret("w"), Request: fleet.TokenRequest{ExpiresAt: c.now.Add(9)}})
	c.must("", &DeleteToken{ID: "w"})
	c.m.View(func(v View) {
		if at, ok := v.NextDeadline(); ok {
			t.Errorf("a deadline is left at %v", at)
		}
		if n := len(v.Tokens()); n != 0 {
			t.Errorf("got %d tokens, want 0", n)
		}
	})
}

func TestServers(t *testing.T) {
	c := newCaller(t)
	c.must("", &Bootstrap{ClusterID: "c1"})
	c.must("", &Bootstrap{ClusterID: "c1"})
	if a := c.propose("", &Bootstrap{ClusterID: "c2"}); a.Err == nil {
		t.Error("a second id was accepted")
	}
	c.must("", &PutServer{Server{ID: "s1", Name: "n1", HTTPAddr: "a:1"}})
	c.must("", &PutServer{Server{ID: "s1", Name: "n1", HTTPAddr: "a:2"}})
	if a := c.propose("", &PutServer{Server{ID: "s2", Name: "n1"}}); !errors.Is(error(a.Err), fleet.Forbidden) {
		t.Errorf("a name that is taken: got %v, want %v", a.Err, fleet.Forbidden)
	}
	c.must("", &RemoveServer{ID: "s1"})
	c.must("", &RemoveServer{ID: "never"})
	c.must("", &PutServer{Server{ID: "s2", Name: "n1"}})
	for _, id := range []string{"s1", "never"} {
		if a := c.propose("", &PutServer{Server{ID: id, Name: id}}); !errors.Is(error(a.Err), fleet.Forbidden) {
			t.Errorf("removed server %s: got %v, want %v", id, a.Err, fleet.Forbidden)
		}
	}
	c.m.View(func(v View) {
		got := fmt.Sprint(v.ClusterID(), v.Servers())
		if want := "c1[{never     true} {s1 n1 a:2   true} {s2 n1    false}]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
