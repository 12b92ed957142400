package main

import (
	"time"

	"quire/rpc/membership"
)

// identity returns the IDs that the bootstrap flags give this member.
func (c *Config) identity() (member, cluster uint64, err error) {
	members, err := parseCluster(c.InitialCluster)
	if err != nil {
		return 0, 0, err
	}
	var ids []uint64
	for name, urls := range members {
		id := membership.ID(urls.strings(), c.ClusterToken, time.Time{})
		ids = append(ids, id)
		if name == c.Name {
			member = id
		}
	}
	return member, membership.ClusterID(ids), nil
}
