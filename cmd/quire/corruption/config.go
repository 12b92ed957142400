package corruption

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// Question is what one member asks another.
type Question int

// The questions, and what answers them.
const (
	AskHash  Question = iota // pb.HashKVRequest → pb.HashKVResponse; Responder.Hash
	AskMarks                 // entries → marks (wire.go); Responder.Marks
)

// Answer is one member's.
type Answer struct {
	Body []byte
	Err  error
}

// State is what is compared (engine.Engine).
type State interface {
	RollingEnds() (oldest, newest engine.RollingMark, ok bool)
	RollingMark(index uint64) (engine.RollingMark, bool)
	HashKV(rev int64) (hash uint32, compactRev, current int64, err error)
	CompactHashes() []engine.CompactHash
}

// Config is what the checks see of the cluster.
type Config struct {
	Self    uint64
	State   State
	Members func() []*pb.Member // this one among them
	Alarms  func() []*pb.AlarmMember
	Leads   func() bool
	// Ask asks several members at once; the answers are in the order of ids.
	Ask func(ctx context.Context, ids []uint64, q Question, body []byte) []Answer
	// Session is a number that becomes another one when a member is started anew,
	// and may do so otherwise; nil: never.
	Session func(id uint64) int64
	// Raise raises the CORRUPT alarm of a member, 0: of nobody in particular, and
	// waits for it.
	Raise func(ctx context.Context, id uint64) error
	// Entry has an entry that does nothing applied by all members; nil: that is not
	// possible.
	Entry func(ctx context.Context) error
	// Confirm returns when everything is applied here that any member had applied
	// when it was called: a linearizable read.
	Confirm func(ctx context.Context) error
	// RequestTimeout bounds what etcd bounds by it: questions about HashKV.
	RequestTimeout time.Duration
	Logger         *zap.Logger
}

// others are the members but this one, by ID.
func (c *Config) others() (ids []uint64) {
	for _, m := range c.Members() {
		if m.ID != c.Self {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (c *Config) session(id uint64) int64 {
	if c.Session == nil {
		return 0
	}
	return c.Session(id)
}

// alarmed tells whether the alarm of a member is raised.
func (c *Config) alarmed(id uint64) bool {
	return slices.ContainsFunc(c.Alarms(), func(a *pb.AlarmMember) bool { return a.MemberID == id && a.Alarm == pb.AlarmType_CORRUPT })
}

func hexID(id uint64) string { return fmt.Sprintf("%x", id) }

// every calls do again and again, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do()
		}
	}
}

// Responder answers the questions of other members.
type Responder struct {
	State State
	Self  uint64
}

// Hash answers AskHash.
func (r Responder) Hash(_ context.Context, _ uint64, body []byte) ([]byte, error) {
	var req pb.HashKVRequest
	if err := req.UnmarshalVT(body); err != nil {
		return nil, err
	}
	hash, compactRev, current, err := r.State.HashKV(req.Revision)
	if err != nil {
		return nil, err
	}
	resp := pb.HashKVResponse{Header: &pb.ResponseHeader{MemberId: r.Self, Revision: current}, Hash: hash, CompactRevision: compactRev, HashRevision: req.Revision}
	return resp.MarshalVT()
}

// Marks answers AskMarks.
func (r Responder) Marks(_ context.Context, _ uint64, body []byte) ([]byte, error) {
	asked, err := parseIndices(body)
	if err != nil {
		return nil, err
	}
	return appendMarks(nil, marksOf(r.State, asked)), nil
}

// marksOf are the marks of these entries, as far as they are remembered; the
// oldest and the newest when none is named.
func marksOf(s State, asked []uint64) (marks []engine.RollingMark) {
	if len(asked) == 0 {
		if oldest, newest, ok := s.RollingEnds(); ok {
			marks = append(marks, oldest, newest)
		}
		return marks
	}
	for _, i := range asked {
		if m, ok := s.RollingMark(i); ok {
			marks = append(marks, m)
		}
	}
	return marks
}
