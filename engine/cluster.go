package engine

import (
	"sort"
	"sync"

	pb "quire/api/etcdserverpb"
)

// cluster is the replicated membership: the only source of truth about who is a
// member (FAULTS: two sources make zombies). It changes on the apply goroutine.
type cluster struct {
	mu struct {
		sync.RWMutex
		members map[uint64]*pb.Member // values are never changed, only replaced
		removed map[uint64]bool
		version string
	}
}

func newCluster() *cluster {
	c := new(cluster)
	c.mu.members = make(map[uint64]*pb.Member)
	c.mu.removed = make(map[uint64]bool)
	return c
}

func (c *cluster) restore(m *pb.Member) {
	c.mu.Lock()
	c.mu.members[m.ID] = m
	c.mu.Unlock()
}

func (c *cluster) restoreRemoved(id uint64) {
	c.mu.Lock()
	c.mu.removed[id] = true
	c.mu.Unlock()
}

func (c *cluster) setVersion(v string) {
	c.mu.Lock()
	c.mu.version = v
	c.mu.Unlock()
}

func (c *cluster) clusterVersion() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.version
}

// list returns the members by ID; they must not be changed.
func (c *cluster) list() []*pb.Member {
	c.mu.RLock()
	ms := make([]*pb.Member, 0, len(c.mu.members))
	for _, m := range c.mu.members {
		ms = append(ms, m)
	}
	c.mu.RUnlock()
	sort.Slice(ms, func(i, j int) bool { return ms[i].ID < ms[j].ID })
	return ms
}

func (c *cluster) wasRemoved(id uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.removed[id]
}

func (c *cluster) removedIDs() []uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]uint64, 0, len(c.mu.removed))
	for id := range c.mu.removed {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}

// setAttributes publishes the name and client URLs of a member; the attributes
// of one that is not known any more are ignored, as in etcd.
func (c *cluster) setAttributes(m *pb.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.mu.members[m.ID]; old != nil {
		n := old.CloneVT()
		n.Name, n.ClientURLs = m.Name, m.ClientURLs
		c.mu.members[m.ID] = n
	}
}

// apply carries out one configuration change, or refuses it.
func (c *cluster) apply(cc *confChange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.mu.members[cc.node]
	if c.mu.removed[cc.node] {
		return ErrMemberNotFound
	}
	switch cc.kind {
	case confAddVoter, confAddLearner:
		if old != nil && old.IsLearner && cc.kind == confAddVoter && cc.member == nil {
			n := old.CloneVT()
			n.IsLearner = false // promotion
			c.mu.members[cc.node] = n
			return nil
		}
		if old != nil {
			return ErrMemberExists
		}
		if cc.member == nil {
			return ErrMemberNotFound
		}
		if c.hasPeerURLLocked(cc.node, cc.member.PeerURLs) {
			return ErrPeerURLExists
		}
		n := cc.member.CloneVT()
		n.ID, n.IsLearner = cc.node, cc.kind == confAddLearner
		c.mu.members[cc.node] = n
	case confRemove:
		if old == nil {
			return ErrMemberNotFound
		}
		delete(c.mu.members, cc.node)
		c.mu.removed[cc.node] = true
	case confUpdate:
		if old == nil {
			return ErrMemberNotFound
		}
		if cc.member == nil || c.hasPeerURLLocked(cc.node, cc.member.PeerURLs) {
			return ErrPeerURLExists
		}
		n := old.CloneVT()
		n.PeerURLs = cc.member.PeerURLs
		c.mu.members[cc.node] = n
	}
	return nil
}

func (c *cluster) hasPeerURLLocked(except uint64, urls []string) bool {
	for id, m := range c.mu.members {
		if id == except {
			continue
		}
		for _, have := range m.PeerURLs {
			for _, want := range urls {
				if have == want {
					return true
				}
			}
		}
	}
	return false
}

// confState encodes the voters and learners for the consensus room.
func (c *cluster) confState() []byte {
	var b []byte
	for _, m := range c.list() {
		tag := byte(1 << 3) // raftpb.ConfState.voters
		if m.IsLearner {
			tag = 2 << 3 // learners
		}
		b = appendUint(b, tag, m.ID)
	}
	return b
}

// alarmSet is the replicated set of raised alarms.
type alarmSet struct {
	mu struct {
		sync.RWMutex
		raised map[alarmKey]bool
	}
}

type alarmKey struct {
	member uint64
	typ    pb.AlarmType
}

func newAlarmSet() *alarmSet {
	a := new(alarmSet)
	a.mu.raised = make(map[alarmKey]bool)
	return a
}

// set raises an alarm and reports whether it was not raised before.
func (a *alarmSet) set(member uint64, t pb.AlarmType) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := alarmKey{member, t}
	was := a.mu.raised[k]
	a.mu.raised[k] = true
	return !was
}

// clear disarms an alarm and reports whether it was raised.
func (a *alarmSet) clear(member uint64, t pb.AlarmType) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := alarmKey{member, t}
	was := a.mu.raised[k]
	delete(a.mu.raised, k)
	return was
}

// list returns the raised alarms of type t, or of every type for NONE.
func (a *alarmSet) list(t pb.AlarmType) []*pb.AlarmMember {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []*pb.AlarmMember
	for k := range a.mu.raised {
		if t == pb.AlarmType_NONE || k.typ == t {
			out = append(out, &pb.AlarmMember{MemberID: k.member, Alarm: k.typ})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Alarm != out[j].Alarm {
			return out[i].Alarm < out[j].Alarm
		}
		return out[i].MemberID < out[j].MemberID
	})
	return out
}

func (a *alarmSet) has(t pb.AlarmType) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for k := range a.mu.raised {
		if k.typ == t {
			return true
		}
	}
	return false
}
