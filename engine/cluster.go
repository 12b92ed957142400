package engine

import (
	"sort"
	"sync"
	"sync/atomic"

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
		// downgrade is the version to which one is under way, "" for none.
		downgrade string
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

// replace takes over the membership of another cluster, which is not used any more.
func (c *cluster) replace(other *cluster) {
	c.mu.Lock()
	c.mu.members, c.mu.removed = other.mu.members, other.mu.removed
	c.mu.version, c.mu.downgrade = other.mu.version, other.mu.downgrade
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

func (c *cluster) setDowngrade(target string) {
	c.mu.Lock()
	c.mu.downgrade = target
	c.mu.Unlock()
}

func (c *cluster) downgradeTarget() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.downgrade
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
func (c *cluster) apply(cc *ConfChange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.removed[cc.Node] {
		return ErrMemberNotFound
	}
	old := c.mu.members[cc.Node]
	if (cc.Kind == confAddVoter || cc.Kind == confAddLearner) && cc.Member != nil {
		return c.addLocked(cc, old)
	}
	if old == nil {
		return ErrMemberNotFound
	}
	switch cc.Kind {
	case confAddVoter: // promotion
		if !old.IsLearner {
			return ErrMemberNotLearner
		}
		n := old.CloneVT()
		n.IsLearner = false
		c.mu.members[cc.Node] = n
	case confRemove:
		if !old.IsLearner && c.votersLocked() == 1 {
			return ErrLastVoter
		}
		delete(c.mu.members, cc.Node)
		c.mu.removed[cc.Node] = true
	case confUpdate:
		if cc.Member == nil || c.hasPeerURLLocked(cc.Node, cc.Member.PeerURLs) {
			return ErrPeerURLExists
		}
		n := old.CloneVT()
		n.PeerURLs = cc.Member.PeerURLs
		c.mu.members[cc.Node] = n
	}
	return nil
}

func (c *cluster) addLocked(cc *ConfChange, old *pb.Member) error {
	learner := cc.Kind == confAddLearner
	switch {
	case old != nil:
		return ErrMemberExists
	case c.hasPeerURLLocked(cc.Node, cc.Member.PeerURLs):
		return ErrPeerURLExists
	case learner && cc.MaxLearners > 0 && len(c.mu.members)-c.votersLocked() >= cc.MaxLearners:
		return ErrTooManyLearners
	}
	n := cc.Member.CloneVT()
	n.ID, n.IsLearner = cc.Node, learner
	c.mu.members[cc.Node] = n
	return nil
}

func (c *cluster) votersLocked() (n int) {
	for _, m := range c.mu.members {
		if !m.IsLearner {
			n++
		}
	}
	return n
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
	some atomic.Bool // alarms are raised; asked at every operation
	mu   struct {
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

// replace takes over the alarms of another set, which is not used any more.
func (a *alarmSet) replace(other *alarmSet) {
	a.mu.Lock()
	a.mu.raised = other.mu.raised
	a.some.Store(len(a.mu.raised) > 0)
	a.mu.Unlock()
}

// set raises an alarm and reports whether it was not raised before.
func (a *alarmSet) set(member uint64, t pb.AlarmType) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := alarmKey{member, t}
	was := a.mu.raised[k]
	a.mu.raised[k] = true
	a.some.Store(true)
	return !was
}

// clear disarms an alarm and reports whether it was raised.
func (a *alarmSet) clear(member uint64, t pb.AlarmType) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := alarmKey{member, t}
	was := a.mu.raised[k]
	delete(a.mu.raised, k)
	a.some.Store(len(a.mu.raised) > 0)
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

// hasOf reports whether a member's alarm is raised.
func (a *alarmSet) hasOf(member uint64, t pb.AlarmType) bool {
	if !a.some.Load() {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.mu.raised[alarmKey{member, t}]
}

func (a *alarmSet) has(t pb.AlarmType) bool {
	if !a.some.Load() {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for k := range a.mu.raised {
		if k.typ == t {
			return true
		}
	}
	return false
}
