package fsm

// This file says of each command who may ask for it and where it acts.

import "github.com/lysnrai/fleet"

func (c *Submit) role() fleet.Role        { return fleet.RoleSubmitter }
func (c *SubmitBatch) role() fleet.Role   { return fleet.RoleSubmitter }
func (c *Claim) role() fleet.Role         { return fleet.RoleFactory }
func (c *ClaimBatch) role() fleet.Role    { return fleet.RoleFactory }
func (c *Patch) role() fleet.Role         { return fleet.RoleFactory }
func (c *OperatorPatch) role() fleet.Role { return fleet.RoleOperator }
func (c *Report) role() fleet.Role        { return fleet.RoleFactory }
func (c *Renew) role() fleet.Role         { return fleet.RoleFactory }
func (c *Release) role() fleet.Role       { return fleet.RoleFactory }
func (c *Cancel) role() fleet.Role        { return fleet.RoleSubmitter }
func (c *Requeue) role() fleet.Role       { return fleet.RoleOperator }
func (c *Heartbeat) role() fleet.Role     { return fleet.RoleFactory }
func (c *Comment) role() fleet.Role       { return holderOrOperator(c.LeaseEpoch) }
func (c *AddArtifact) role() fleet.Role   { return holderOrOperator(c.Request.LeaseEpoch) }
func (c *PutProfile) role() fleet.Role    { return fleet.RoleOperator }
func (c *CreateToken) role() fleet.Role   { return fleet.RoleAdmin }
func (c *DeleteToken) role() fleet.Role   { return fleet.RoleAdmin }
func (c *Reap) role() fleet.Role          { return "" }
func (c *LeaderChange) role() fleet.Role  { return "" }
func (c *Noop) role() fleet.Role          { return "" }
func (c *Bootstrap) role() fleet.Role     { return "" }
func (c *PutServer) role() fleet.Role     { return "" }
func (c *RemoveServer) role() fleet.Role  { return "" }
func (c *Level) role() fleet.Role         { return "" }
func (c *Checkpoint) role() fleet.Role    { return "" }

func holderOrOperator(epoch *uint64) fleet.Role {
	if epoch != nil {
		return fleet.RoleFactory
	}
	return fleet.RoleOperator
}

func (c *Submit) product() string        { return c.ProductID }
func (c *SubmitBatch) product() string   { return c.ProductID }
func (c *Claim) product() string         { return c.ProductID }
func (c *ClaimBatch) product() string    { return c.ProductID }
func (c *Patch) product() string         { return c.ProductID }
func (c *OperatorPatch) product() string { return c.ProductID }
func (c *Report) product() string        { return c.ProductID }
func (c *Renew) product() string         { return c.ProductID }
func (c *Release) product() string       { return c.ProductID }
func (c *Cancel) product() string        { return c.ProductID }
func (c *Requeue) product() string       { return c.ProductID }
func (c *Heartbeat) product() string     { return c.ProductID }
func (c *Comment) product() string       { return c.ProductID }
func (c *AddArtifact) product() string   { return c.ProductID }
func (c *PutProfile) product() string    { return c.ProductID }
func (c *CreateToken) product() string   { return "" }
func (c *DeleteToken) product() string   { return "" }
func (c *Reap) product() string          { return "" }
func (c *LeaderChange) product() string  { return "" }
func (c *Noop) product() string          { return "" }
func (c *Bootstrap) product() string     { return "" }
func (c *PutServer) product() string     { return "" }
func (c *RemoveServer) product() string  { return "" }
func (c *Level) product() string         { return "" }
func (c *Checkpoint) product() string    { return "" }
