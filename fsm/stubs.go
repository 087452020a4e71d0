package fsm

// This file holds the place of what is being built.

func (c *Submit) apply(*tx) (Result, error)        { panic("todo") }
func (c *SubmitBatch) apply(*tx) (Result, error)   { panic("todo") }
func (c *Claim) apply(*tx) (Result, error)         { panic("todo") }
func (c *ClaimBatch) apply(*tx) (Result, error)    { panic("todo") }
func (c *Patch) apply(*tx) (Result, error)         { panic("todo") }
func (c *OperatorPatch) apply(*tx) (Result, error) { panic("todo") }
func (c *Report) apply(*tx) (Result, error)        { panic("todo") }
func (c *Renew) apply(*tx) (Result, error)         { panic("todo") }
func (c *Release) apply(*tx) (Result, error)       { panic("todo") }
func (c *Cancel) apply(*tx) (Result, error)        { panic("todo") }
func (c *Requeue) apply(*tx) (Result, error)       { panic("todo") }
func (c *Heartbeat) apply(*tx) (Result, error)     { panic("todo") }
func (c *Comment) apply(*tx) (Result, error)       { panic("todo") }
func (c *AddArtifact) apply(*tx) (Result, error)   { panic("todo") }
func (c *PutProfile) apply(*tx) (Result, error)    { panic("todo") }
func (c *CreateToken) apply(*tx) (Result, error)   { panic("todo") }
func (c *DeleteToken) apply(*tx) (Result, error)   { panic("todo") }
func (c *Reap) apply(*tx) (Result, error)          { panic("todo") }
func (c *LeaderChange) apply(*tx) (Result, error)  { panic("todo") }
func (c *Noop) apply(*tx) (Result, error)          { panic("todo") }
func (c *Bootstrap) apply(*tx) (Result, error)     { panic("todo") }
func (c *PutServer) apply(*tx) (Result, error)     { panic("todo") }
func (c *RemoveServer) apply(*tx) (Result, error)  { panic("todo") }
