package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/raft"
)

// The texts are etcd's.
var (
	ErrNotEnoughStarted = errors.New("etcdserver: re-configuration failed due to not enough started members")
	ErrLearnerNotReady  = errors.New("etcdserver: can only promote a learner member which is in sync with leader")
	ErrUnhealthy        = errors.New("etcdserver: unhealthy cluster")
	ErrNotLeader        = errors.New("etcdserver: not leader")
	ErrBadURLs          = errors.New("etcdserver: given member URLs are invalid")
)

const (
	// healthInterval is how long a peer must have been connected to count.
	healthInterval = 5 * time.Second
	// readyPercent is how much of the leader's log a learner must have.
	readyPercent = 90
)

// Kinds of a configuration change, the numbers of raftpb.ConfChangeType.
const (
	addVoter   = 0
	removeNode = 1
	updateNode = 2
	addLearner = 3
)

// Consensus is the raft member (raft.Node).
type Consensus interface {
	Propose(op []byte, w interface{ Dropped(error) }) error
	ProposeConfChange(cc []byte, w interface{ Dropped(error) }) error
	ReadIndex(w interface{ ReadReady(error) }) (ready bool)
	Status() raft.Status
	// Progress says up to where each member has the log; nil unless this one leads.
	Progress() map[uint64]raft.Index
}

// State is the replicated membership (engine.Engine).
type State interface {
	Members() []*pb.Member // by ID
	ClusterVersion() string
	Downgrade() (target string)
}

// Config is what a Service is built from.
type Config struct {
	Self      uint64
	Consensus Consensus
	State     State
	// StrictCheck refuses changes that would lose the quorum.
	StrictCheck bool
	// MaxLearners bounds the learners.
	MaxLearners int
	// ActiveSince tells since when a peer answers; the zero time if it does not.
	// nil: no peer does.
	ActiveSince func(id uint64) time.Time
	// PeerVersion is the version of a peer's server, "" if it is not known. nil: of none.
	PeerVersion func(id uint64) string
	// ServerVersion is this program's, as major.minor.patch.
	ServerVersion string
	// DowngradeCheck is how often a leader looks whether a downgrade is complete; 0:
	// never.
	DowngradeCheck time.Duration
	Logger         *zap.Logger
}

// Service answers requests about the membership and the version.
type Service struct {
	cfg Config
	log *zap.Logger
	id  string // of this member, for the log
}

// New returns a Service.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, log: cfg.Logger, id: hexID(cfg.Self)}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if cfg.ActiveSince == nil {
		s.cfg.ActiveSince = func(uint64) time.Time { return time.Time{} }
	}
	if cfg.PeerVersion == nil {
		s.cfg.PeerVersion = func(uint64) string { return "" }
	}
	return s
}

func hexID(id uint64) string { return fmt.Sprintf("%x", id) }

// Add makes a new member known, as a voter or a learner. urls are those that
// package rpc has checked.
func (s *Service) Add(ctx context.Context, urls []string, learner bool) (added *pb.Member, all []*pb.Member, err error) {
	urls = slices.Sorted(slices.Values(urls))
	m := &pb.Member{ID: ID(urls, "", time.Now()), PeerURLs: urls, IsLearner: learner}
	if err := s.mayAdd(learner); err != nil {
		s.log.Warn("rejecting member add request; not enough healthy members", zap.String("local-member-id", s.id),
			zap.Strings("requested-member-add", urls), zap.Error(err))
		return nil, nil, err
	}
	kind := uint64(addVoter)
	if learner {
		kind = addLearner
	}
	all, err = s.change(ctx, kind, m.ID, m)
	return m, all, err
}

func (s *Service) mayAdd(learner bool) error {
	if !s.cfg.StrictCheck {
		return nil
	}
	voters, started := s.voters(0)
	// To a cluster of one that works a second voter may be added, although it
	// loses the quorum until that one has come.
	if after := voters + 1; !learner && !(started == 1 && after == 2) && started < quorum(after) {
		return ErrNotEnoughStarted
	}
	if voters > 1 && s.connected() < quorum(voters+1) {
		return ErrUnhealthy
	}
	return nil
}

// voters counts the voters but one, and those of them that have started.
func (s *Service) voters(except uint64) (n, started int) {
	for _, m := range s.cfg.State.Members() {
		if m.IsLearner || m.ID == except {
			continue
		}
		n++
		if m.Name != "" {
			started++
		}
	}
	return n, started
}

func quorum(n int) int { return n/2 + 1 }

// connected counts the voters that have been connected for healthInterval, this
// member among them.
func (s *Service) connected() (n int) {
	since := time.Now().Add(-healthInterval)
	for _, m := range s.cfg.State.Members() {
		if m.IsLearner {
			continue
		}
		if t := s.cfg.ActiveSince(m.ID); m.ID == s.cfg.Self || !t.IsZero() && t.Before(since) {
			n++
		}
	}
	return n
}

func (s *Service) find(id uint64) *pb.Member {
	for _, m := range s.cfg.State.Members() {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// Remove takes a member out of the cluster for good.
func (s *Service) Remove(ctx context.Context, id uint64) ([]*pb.Member, error) {
	if err := s.mayRemove(id); err != nil {
		s.log.Warn("rejecting member remove request; not enough healthy members", zap.String("local-member-id", s.id),
			zap.String("requested-member-remove-id", hexID(id)), zap.Error(err))
		return nil, err
	}
	return s.change(ctx, removeNode, id, nil)
}

func (s *Service) mayRemove(id uint64) error {
	m := s.find(id)
	if !s.cfg.StrictCheck || m != nil && m.IsLearner {
		return nil
	}
	if voters, started := s.voters(id); started < quorum(voters) {
		return ErrNotEnoughStarted
	}
	if id != s.cfg.Self && s.cfg.ActiveSince(id).IsZero() {
		return nil // it is no part of the quorum that works
	}
	if voters, _ := s.voters(0); s.connected()-1 < 1+(voters-1)/2 {
		return ErrUnhealthy
	}
	return nil
}

// Update changes the peer URLs of a member. Like etcd it takes whatever is given
// for this member itself; of others the URLs are dialled, so they must be sound
// (etcd ends all members with a panic).
func (s *Service) Update(ctx context.Context, id uint64, urls []string, sound bool) ([]*pb.Member, error) {
	if !sound && id != s.cfg.Self && s.find(id) != nil {
		return nil, ErrBadURLs
	}
	return s.change(ctx, updateNode, id, &pb.Member{ID: id, PeerURLs: urls})
}

// Promote makes a voter of a learner that has caught up.
func (s *Service) Promote(ctx context.Context, id uint64) ([]*pb.Member, error) {
	if err := s.mayPromote(ctx, id); err != nil {
		return nil, err
	}
	return s.change(ctx, addVoter, id, nil)
}

func (s *Service) mayPromote(ctx context.Context, id uint64) error {
	if s.cfg.Consensus.Progress() == nil {
		return ErrNotLeader // etcd forwards the request to the leader's peer port
	}
	// Another member may have told the client that the learner is there before it is
	// here.
	if err := s.linearize(ctx); err != nil {
		return err
	}
	progress := s.cfg.Consensus.Progress()
	if progress == nil {
		return ErrNotLeader
	}
	has, ok := progress[id]
	if !ok {
		return engine.ErrMemberNotFound
	}
	if need := progress[s.cfg.Self]; has*100 < need*readyPercent {
		s.log.Warn("rejecting promote learner: learner is not ready", zap.String("learner-id", hexID(id)),
			zap.Uint64("learner-has", uint64(has)), zap.Uint64("leader-has", uint64(need)))
		return ErrLearnerNotReady
	}
	if !s.cfg.StrictCheck {
		return nil
	}
	// The learner counts as a voter that has started.
	if voters, started := s.voters(0); started+1 < quorum(voters+1) {
		s.log.Warn("rejecting member promote request; not enough healthy members", zap.String("local-member-id", s.id),
			zap.String("requested-member-promote-id", hexID(id)))
		return ErrNotEnoughStarted
	}
	return nil
}

// change proposes a membership change, waits until it is applied and returns the
// members then.
func (s *Service) change(ctx context.Context, kind, node uint64, m *pb.Member) ([]*pb.Member, error) {
	if node == 0 {
		return nil, engine.ErrMemberNotFound
	}
	cc, err := engine.EncodeConfChange(engine.ConfChange{Kind: kind, Node: node, Member: m, MaxLearners: s.cfg.MaxLearners})
	if err != nil {
		return nil, err
	}
	w := make(result, 1)
	if err := s.cfg.Consensus.ProposeConfChange(cc, w); err != nil {
		return nil, err
	}
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	s.log.Info("applied a configuration change through raft", zap.String("local-member-id", s.id),
		zap.String("raft-conf-change", [...]string{"ConfChangeAddNode", "ConfChangeRemoveNode", "ConfChangeUpdateNode", "ConfChangeAddLearnerNode"}[kind]),
		zap.String("raft-conf-change-node-id", hexID(node)))
	return s.cfg.State.Members(), nil
}

// result is told how a proposal or a read ends.
type result chan error

// Applied implements engine.Waiter.
func (r result) Applied(rep *engine.Reply) { r <- rep.Err }

// Dropped implements engine.Waiter.
func (r result) Dropped(err error) { r <- err }

// ReadReady implements raft.ReadWaiter.
func (r result) ReadReady(err error) { r <- err }

func (r result) wait(ctx context.Context) error {
	select {
	case err := <-r:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
