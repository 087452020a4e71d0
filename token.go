package fleet

// This file is who may call: tokens and their roles.

// Role is what a token may do. Each includes reader; operator includes submitter; admin includes all.
type Role string

// The roles.
const (
	RoleReader    Role = "reader"
	RoleSubmitter Role = "submitter"
	RoleFactory   Role = "factory"
	RoleOperator  Role = "operator"
	RoleAdmin     Role = "admin"
)

// Roles lists every role.
var Roles = [...]Role{RoleReader, RoleSubmitter, RoleFactory, RoleOperator, RoleAdmin}

// Includes reports whether a token with role r may do what asks for the other role. An unknown role includes nothing.
func (r Role) Includes(other Role) bool {
	switch r {
	case RoleAdmin:
		return true
	case RoleOperator:
		return other == RoleOperator || other == RoleSubmitter || other == RoleReader
	case RoleSubmitter, RoleFactory, RoleReader:
		return other == r || other == RoleReader
	}
	return false
}

// Token is a credential as it is shown: never its secret, of which the cluster keeps only a hash.
type Token struct {
	ID        string   `json:"id" msg:"id"`
	Name      string   `json:"name" msg:"name,omitempty"`
	Roles     []Role   `json:"roles" msg:"roles"`
	Products  []string `json:"products" msg:"products"` // empty: all
	CreatedAt Time     `json:"createdAt" msg:"createdAt"`
	ExpiresAt Time     `json:"expiresAt,omitzero" msg:"expiresAt,omitempty"`
}
