package corruption

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// fakeMember has marks from its oldest entry to its newest; from a certain entry on
// they may be others than the cluster's.
type fakeMember struct {
	id             uint64
	oldest, newest uint64
	differs        uint64 // entry from which on its marks are its own; 0: none
	as             uint64 // whose marks those are; 0: its own
	missing        map[uint64]bool
	down           bool
	answer         func(body []byte) ([]byte, error) // instead of the true one
	asked          int

	hash      uint32
	compact   int64
	rev       int64
	hashErr   error
	compacted []engine.CompactHash
}

func (f *fakeMember) RollingEnds() (oldest, newest engine.RollingMark, ok bool) {
	if f.newest == 0 {
		return oldest, newest, false
	}
	oldest, _ = f.RollingMark(f.oldest)
	newest, _ = f.RollingMark(f.newest)
	return oldest, newest, true
}

func (f *fakeMember) RollingMark(i uint64) (engine.RollingMark, bool) {
	if i < f.oldest || i > f.newest || i%engine.MarkEvery != 0 || f.missing[i] || f.newest == 0 {
		return engine.RollingMark{}, false
	}
	m := engine.RollingMark{Index: i, Revision: int64(i) * 10, Sum: i * 7919}
	if f.differs > 0 && i >= f.differs {
		who := f.id
		if f.as > 0 {
			who = f.as
		}
		m.Sum += who
		m.Revision++
	}
	return m, true
}

func (f *fakeMember) HashKV(rev int64) (uint32, int64, int64, error) {
	for _, c := range f.compacted {
		if c.Revision == rev {
			return c.Hash, c.CompactRevision, f.rev, nil
		}
	}
	return f.hash, f.compact, f.rev, f.hashErr
}

func (f *fakeMember) CompactHashes() []engine.CompactHash { return slices.Clone(f.compacted) }

// fakeCluster is what a check on one of its members sees.
type fakeCluster struct {
	members []*fakeMember
	mu      sync.Mutex
	alarms  []*pb.AlarmMember
	refuse  error // of alarms
	leads   bool
	session int64
	logs    *observer.ObservedLogs
	confirm func() error
}

// newFake makes a cluster whose members all have the marks of entries 8 to 8000.
func newFake(n int) *fakeCluster {
	c := &fakeCluster{leads: true, confirm: func() error { return nil }}
	for i := range n {
		c.members = append(c.members, &fakeMember{id: uint64(i + 1), oldest: 8, newest: 8000, compact: -1, rev: 100})
	}
	return c
}

func (c *fakeCluster) config() Config {
	core, logs := observer.New(zapcore.DebugLevel)
	c.logs = logs
	return Config{
		Self: 1, State: c.members[0], Leads: func() bool { return c.leads }, Logger: zap.New(core),
		RequestTimeout: askTimeout,
		Members: func() (all []*pb.Member) {
			for _, m := range c.members {
				all = append(all, &pb.Member{ID: m.id, PeerURLs: []string{"http://m"}})
			}
			return all
		},
		Alarms: func() []*pb.AlarmMember {
			c.mu.Lock()
			defer c.mu.Unlock()
			return slices.Clone(c.alarms)
		},
		Ask:     c.ask,
		Session: func(uint64) int64 { return c.session },
		Confirm: func(context.Context) error { return c.confirm() },
		Raise: func(_ context.Context, id uint64) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.refuse == nil {
				c.alarms = append(c.alarms, &pb.AlarmMember{MemberID: id, Alarm: pb.AlarmType_CORRUPT})
			}
			return c.refuse
		},
	}
}

var errDown = errors.New("down")

// ask is answered on goroutines, as between processes.
func (c *fakeCluster) ask(ctx context.Context, ids []uint64, q Question, body []byte) []Answer {
	answers := make([]Answer, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		m := c.members[slices.IndexFunc(c.members, func(m *fakeMember) bool { return m.id == id })]
		m.asked++
		all.Go(func() {
			r := Responder{State: m, Self: m.id}
			switch {
			case m.down:
				answers[i].Err = errDown
			case m.answer != nil:
				answers[i].Body, answers[i].Err = m.answer(body)
			case q == AskHash:
				answers[i].Body, answers[i].Err = r.Hash(ctx, 1, body)
			default:
				answers[i].Body, answers[i].Err = r.Marks(ctx, 1, body)
			}
		})
	}
	all.Wait()
	return answers
}

// named are the members whose alarm is raised, in order.
func (c *fakeCluster) named() (ids []uint64) {
	for _, a := range c.alarms {
		ids = append(ids, a.MemberID)
	}
	slices.Sort(ids)
	return ids
}

// logged returns the fields of the only line with this message.
func (c *fakeCluster) logged(t *testing.T, msg string) map[string]any {
	t.Helper()
	found := c.logs.FilterMessage(msg).All()
	if len(found) != 1 {
		t.Fatalf("%d lines %q in %v", len(found), msg, c.logs.All())
	}
	return found[0].ContextMap()
}
