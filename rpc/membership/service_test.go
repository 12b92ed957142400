package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/raft"
)

// cluster is consensus and state at once: it applies changes at once and keeps
// what was proposed.
type cluster struct {
	mu                 sync.Mutex // guards what TestWatch changes
	members            []*pb.Member
	version, downgrade string
	leader             bool
	progress           map[uint64]raft.Index
	proposed           []string
	onRead             func()
	readErr            error // of a read
	stuck              bool  // nothing is ever applied
	refuse             error // by the state machine
}

func (c *cluster) Members() []*pb.Member { return c.members }

func (c *cluster) ClusterVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

func (c *cluster) Downgrade() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.downgrade
}

func (c *cluster) Status() raft.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return raft.Status{IsLeader: c.leader}
}

func (c *cluster) Progress() map[uint64]raft.Index {
	if !c.leader {
		return nil
	}
	return c.progress
}

func (c *cluster) ReadIndex(w interface{ ReadReady(error) }) bool {
	if c.onRead != nil {
		c.onRead()
	}
	if c.readErr != nil {
		w.ReadReady(c.readErr)
	}
	return c.readErr == nil
}

func (c *cluster) end(w interface{ Dropped(error) }) {
	if !c.stuck {
		w.(engine.Waiter).Applied(&engine.Reply{Err: c.refuse})
	}
}

func (c *cluster) Propose(op []byte, w interface{ Dropped(error) }) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.proposed = append(c.proposed, fmt.Sprintf("%d %s", op[0], op[1:])); engine.OpKind(op[0]) {
	case engine.OpClusterVersion:
		c.version = string(op[1:])
	case engine.OpDowngrade:
		c.downgrade = string(op[1:])
	}
	c.end(w)
	return nil
}

func (c *cluster) ProposeConfChange(cc []byte, w interface{ Dropped(error) }) error {
	change, err := engine.DecodeConfChange(cc)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d %x", change.Kind, change.Node)
	if m := change.Member; m != nil {
		text = fmt.Sprintf("%d %v %t max %d", change.Kind, m.PeerURLs, m.IsLearner, change.MaxLearners)
	}
	c.proposed = append(c.proposed, text)
	c.end(w)
	return nil
}

// service is one over a cluster of which member 1 is this one. Members are given
// as: name, "" for one that has not started; a leading '-' makes a learner.
func service(names ...string) (*Service, *cluster) {
	c := &cluster{leader: true, version: "3.7.0", progress: map[uint64]raft.Index{}}
	for i, name := range names {
		m := &pb.Member{ID: uint64(i + 1), Name: name, PeerURLs: []string{fmt.Sprintf("http://%d:1", i+1)}}
		if len(name) > 0 && name[0] == '-' {
			m.Name, m.IsLearner = name[1:], true
		}
		c.members = append(c.members, m)
		c.progress[m.ID] = 100
	}
	return New(Config{Self: 1, Consensus: c, State: c, StrictCheck: true, MaxLearners: 2, ServerVersion: "3.7.1"}), c
}

// all marks every peer as connected for long, or some as not.
func (s *Service) connect(gone ...uint64) {
	s.cfg.ActiveSince = func(id uint64) time.Time {
		if slices.Contains(gone, id) {
			return time.Time{}
		}
		return time.Now().Add(-time.Minute)
	}
}

func TestAdd(t *testing.T) {
	for _, tc := range []struct {
		members []string
		gone    []uint64
		learner bool
		loose   bool
		want    error
	}{
		{members: []string{"a"}},
		{members: []string{"a"}, learner: true},
		{members: []string{"a", ""}, want: ErrNotEnoughStarted},
		{members: []string{"a", ""}, loose: true},
		{members: []string{"a", ""}, learner: true},
		{members: []string{"a", "b"}},
		{members: []string{"a", "b", ""}, want: ErrNotEnoughStarted},
		{members: []string{"a", "b"}, gone: []uint64{2}, want: ErrUnhealthy},
		{members: []string{"a", "b", "c"}, gone: []uint64{2}, want: ErrUnhealthy},
		{members: []string{"a", "b", "c", "d"}, gone: []uint64{2}},
		{members: []string{"a", "-"}},
	} {
		s, c := service(tc.members...)
		s.connect(tc.gone...)
		s.cfg.StrictCheck = !tc.loose
		m, all, err := s.Add(t.Context(), []string{"http://z:1", "http://y:1"}, tc.learner)
		if !errors.Is(err, tc.want) || (err == nil) != (len(c.proposed) == 1) {
			t.Errorf("%+v: %v, proposed %v", tc, err, c.proposed)
			continue
		}
		if err != nil {
			continue
		}
		want := fmt.Sprintf("%d [http://y:1 http://z:1] %t max 2", map[bool]int{false: addVoter, true: addLearner}[tc.learner], tc.learner)
		if c.proposed[0] != want || m.ID == 0 || len(all) != len(tc.members) {
			t.Errorf("%+v: proposed %q, want %q; member %v", tc, c.proposed[0], want, m)
		}
	}
}

func TestRemove(t *testing.T) {
	for _, tc := range []struct {
		members []string
		gone    []uint64
		id      uint64
		loose   bool
		want    error
	}{
		{members: []string{"a"}, id: 1, want: ErrNotEnoughStarted},
		{members: []string{"a"}, id: 1, loose: true}, // the state machine refuses the last voter
		{members: []string{"a"}, id: 77, gone: []uint64{77}},
		{members: []string{"a", "-"}, id: 2},
		{members: []string{"a", ""}, id: 2, gone: []uint64{2}},
		{members: []string{"a", "b"}, id: 2, gone: []uint64{2}},
		{members: []string{"a", "b"}, id: 2, want: nil},
		{members: []string{"a", "b"}, id: 1, gone: []uint64{2}, want: ErrUnhealthy},
		{members: []string{"a", "b", "c"}, id: 2, gone: []uint64{3}, want: ErrUnhealthy},
		{members: []string{"a", "b", ""}, id: 2, want: ErrNotEnoughStarted},
	} {
		s, c := service(tc.members...)
		s.connect(tc.gone...)
		s.cfg.StrictCheck = !tc.loose
		_, err := s.Remove(t.Context(), tc.id)
		if !errors.Is(err, tc.want) || (err == nil) != (len(c.proposed) == 1) {
			t.Errorf("%+v: %v, proposed %v", tc, err, c.proposed)
		}
	}
}

func TestUpdate(t *testing.T) {
	s, c := service("a", "b")
	if _, err := s.Update(t.Context(), 1, []string{"rubbish"}, false); err != nil {
		t.Errorf("of this member: %v", err)
	}
	if _, err := s.Update(t.Context(), 2, []string{"rubbish"}, false); !errors.Is(err, ErrBadURLs) {
		t.Errorf("of another member: %v", err)
	}
	if _, err := s.Update(t.Context(), 3, []string{"rubbish"}, false); err != nil {
		t.Errorf("of nobody: %v", err) // the state machine knows better
	}
	if want := "2 [rubbish] false max 2"; c.proposed[0] != want {
		t.Errorf("proposed %q, want %q", c.proposed[0], want)
	}
}

func TestPromote(t *testing.T) {
	s, c := service("a", "-b")
	if _, err := s.Promote(t.Context(), 9); !errors.Is(err, engine.ErrMemberNotFound) {
		t.Errorf("nobody: %v", err)
	}
	c.onRead = func() { c.progress[2] = 89 } // what was added through another member is applied by the read
	delete(c.progress, 2)
	if _, err := s.Promote(t.Context(), 2); !errors.Is(err, ErrLearnerNotReady) {
		t.Errorf("too far behind: %v", err)
	}
	c.onRead = nil
	c.progress[2] = 90
	if _, err := s.Promote(t.Context(), 2); err != nil || c.proposed[0] != "0 2" {
		t.Errorf("ready: %v, proposed %v", err, c.proposed)
	}
	c.leader = false
	if _, err := s.Promote(t.Context(), 2); !errors.Is(err, ErrNotLeader) {
		t.Errorf("not leader: %v", err)
	}
	s, _ = service("a", "", "", "-d")
	if _, err := s.Promote(t.Context(), 4); !errors.Is(err, ErrNotEnoughStarted) {
		t.Errorf("not enough: %v", err)
	}
}

func TestChangeFails(t *testing.T) {
	s, c := service("a")
	c.refuse = engine.ErrTooManyLearners
	if _, _, err := s.Add(t.Context(), []string{"http://z:1"}, true); !errors.Is(err, engine.ErrTooManyLearners) {
		t.Errorf("refused when applied: %v", err)
	}
	c.stuck = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := s.Add(ctx, []string{"http://z:1"}, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("never applied: %v", err)
	}
}

// TestID compares with what etcd 3.7.1 was seen to compute.
func TestID(t *testing.T) {
	if got := ID([]string{"http://127.0.0.1:23801"}, "etcd-cluster", time.Time{}); got != 0xbdae9bbc11dd390d {
		t.Errorf("first member: %x", got)
	}
	if got := ClusterID([]uint64{0xbdae9bbc11dd390d}); got != 0xd1cfaf999eb97a2a {
		t.Errorf("cluster: %x", got)
	}
	a, b := time.Unix(1_700_000_000, 5), time.Unix(1_700_000_001, 0)
	if ID([]string{"http://z:1"}, "", a) == ID([]string{"http://z:1"}, "", b) || ID([]string{"y", "z"}, "", a) != ID([]string{"z", "y"}, "", a.Add(1)) {
		t.Error("the second counts, the order of URLs does not")
	}
}
