package fsm

// This file is what the cluster keeps about itself: its id, and every server that was ever in it.

import "github.com/lysnrai/fleet"

func (c *Bootstrap) apply(tx *tx) (Result, error) {
	if id := tx.st.clusterID; id != "" && id != c.ClusterID {
		return nil, fleet.Errorf(fleet.Forbidden, "this cluster is %s already, not %s", id, c.ClusterID)
	}
	tx.st.clusterID = c.ClusterID
	return &Done{}, nil
}

func (c *PutServer) apply(tx *tx) (Result, error) {
	servers := &tx.st.servers
	if old, ok := servers.Get(c.Server.ID); ok && old.Removed {
		return nil, fleet.Errorf(fleet.Forbidden, "server id %s was removed from this cluster: wipe its data directory to join as a new one", c.Server.ID)
	}
	var namesake string
	servers.Scan(func(id string, s *Server) bool {
		if s.Name == c.Server.Name && id != c.Server.ID && !s.Removed {
			namesake = id
		}
		return namesake == ""
	})
	if namesake != "" {
		return nil, fleet.Errorf(fleet.Forbidden, "server %s has the name %s: remove it first, or choose another name", namesake, c.Server.Name)
	}
	s := c.Server
	servers.Set(s.ID, &s)
	return &Done{}, nil
}

// A server that was never recorded can be removed too: its id is refused from now on.
func (c *RemoveServer) apply(tx *tx) (Result, error) {
	s := Server{ID: c.ID}
	if old, ok := tx.st.servers.Get(c.ID); ok {
		s = *old
	}
	s.Removed = true
	tx.st.servers.Set(s.ID, &s)
	return &Done{}, nil
}
