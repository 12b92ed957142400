package membership

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// The texts are etcd's.
var (
	ErrUnknownMethod          = errors.New("etcdserver: unknown method")
	ErrVersionFormat          = errors.New("etcdserver: wrong downgrade target version format")
	ErrNoClusterVersion       = errors.New("etcdserver: cluster version not found during downgrade")
	ErrDowngradeTarget        = errors.New("etcdserver: invalid downgrade target version")
	ErrDowngradeInProcess     = errors.New("etcdserver: cluster has a downgrade job in progress")
	ErrNoDowngrade            = errors.New("etcdserver: no inflight downgrade job")
	errInvalidDowngradeTarget = errors.New("invalid downgrade target")
)

// watchInterval is how often a leader looks whether the cluster version must
// move, as in etcd.
const watchInterval = 4 * time.Second

// minor returns v without its patch; nil if it is none.
func minor(v string) *semver.Version {
	p, err := semver.NewVersion(v)
	if err != nil {
		return nil
	}
	return &semver.Version{Major: p.Major, Minor: p.Minor}
}

// oneDown is the only version to which one can be downgraded.
func oneDown(v *semver.Version) *semver.Version {
	return &semver.Version{Major: v.Major, Minor: v.Minor - 1}
}

// short is a version as etcd tells it: major.minor.
func short(v string) string {
	p, err := semver.NewVersion(v)
	if err != nil {
		return v
	}
	text := p.String()
	for i, dots := 0, 0; i < len(text); i++ {
		if text[i] == '.' {
			if dots++; dots == 2 {
				return text[:i]
			}
		}
	}
	return text
}

// Downgrade validates, begins or calls off a downgrade and returns the cluster
// version.
func (s *Service) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (version string, err error) {
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE:
		return s.validate(ctx, r.Version)
	case pb.DowngradeRequest_ENABLE:
		err := s.enable(ctx, r.Version)
		if err != nil {
			s.log.Warn("reject downgrade request", zap.Error(err))
			return "", err
		}
	case pb.DowngradeRequest_CANCEL:
		if err := s.cancel(ctx); err != nil { // the caller is not told, as in etcd
			s.log.Warn("failed to cancel downgrade", zap.Error(err))
		}
	default:
		return "", ErrUnknownMethod
	}
	return short(s.cfg.State.ClusterVersion()), nil
}

// parseTarget reads major.minor or major.minor.patch.
func parseTarget(v string) (*semver.Version, error) {
	if p := minor(v); p != nil {
		return p, nil
	}
	if p := minor(v + ".0"); p != nil {
		return p, nil
	}
	return nil, ErrVersionFormat
}

func (s *Service) validate(ctx context.Context, v string) (version string, err error) {
	target, err := parseTarget(v)
	if err != nil {
		return "", err
	}
	version = s.cfg.State.ClusterVersion()
	if version == "" {
		return "", ErrNoClusterVersion
	}
	return short(version), s.check(ctx, target)
}

// check tells whether a downgrade to target may begin.
func (s *Service) check(ctx context.Context, target *semver.Version) error {
	if err := s.linearize(ctx); err != nil {
		return err
	}
	version := minor(s.cfg.State.ClusterVersion())
	switch {
	case version == nil:
		return ErrNoClusterVersion
	case !target.Equal(*oneDown(version)):
		return ErrDowngradeTarget
	case s.cfg.State.Downgrade() != "":
		return ErrDowngradeInProcess
	}
	return nil
}

// linearize waits until the state is at least as new as everything acknowledged.
func (s *Service) linearize(ctx context.Context) error {
	w := make(result, 1)
	if s.cfg.Consensus.ReadIndex(w) {
		return nil
	}
	return w.wait(ctx)
}

func (s *Service) enable(ctx context.Context, v string) error {
	target, err := parseTarget(v)
	if err == nil {
		err = s.check(ctx, target)
	}
	if err == nil {
		err = s.propose(ctx, engine.OpDowngrade, target.String())
	}
	return err
}

func (s *Service) cancel(ctx context.Context) error {
	if err := s.linearize(ctx); err != nil {
		return err
	}
	if s.cfg.State.Downgrade() == "" {
		return ErrNoDowngrade
	}
	return s.propose(ctx, engine.OpDowngrade, "")
}

func (s *Service) propose(ctx context.Context, kind engine.OpKind, body string) error {
	w := make(result, 1)
	if err := s.cfg.Consensus.Propose(engine.AppendOp(nil, kind, []byte(body)), w); err != nil {
		return err
	}
	return w.wait(ctx)
}

// Watch moves the cluster version while this member leads, and follows a
// downgrade, until ctx ends.
func (s *Service) Watch(ctx context.Context) {
	version := time.NewTicker(watchInterval)
	defer version.Stop()
	var downgrade <-chan time.Time
	if s.cfg.DowngradeCheck > 0 {
		t := time.NewTicker(s.cfg.DowngradeCheck)
		defer t.Stop()
		downgrade = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-version.C:
			s.moveVersion(ctx)
		case <-downgrade:
			s.finishDowngrade(ctx)
		}
	}
}

// moveVersion proposes the cluster version that should be, if it is another one.
func (s *Service) moveVersion(ctx context.Context) {
	if !s.cfg.Consensus.Status().IsLeader {
		return
	}
	from := s.cfg.State.ClusterVersion()
	to, err := decide(from, s.lowest(), s.cfg.State.Downgrade())
	if err != nil {
		s.log.Warn("failed to monitor cluster version", zap.String("cluster-version", from), zap.String("downgrade-target", s.cfg.State.Downgrade()), zap.Error(err))
		return
	}
	if to == "" {
		return
	}
	s.log.Info("updating cluster version using v3 API", zap.String("from", short(from)), zap.String("to", short(to)))
	if err := s.propose(ctx, engine.OpClusterVersion, to); err != nil {
		s.log.Warn("failed to update cluster version", zap.Error(err))
		return
	}
	s.log.Info("cluster version is updated", zap.String("cluster-version", short(to)))
	s.log.Info("updated storage version", zap.String("new-storage-version", to))
	if target := s.cfg.State.Downgrade(); target == to {
		s.log.Info("The server is ready to downgrade", zap.String("target-version", target), zap.String("server-version", s.cfg.ServerVersion))
	}
}

// lowest is the lowest version of all members; "" as long as that of one is not
// known.
func (s *Service) lowest() string {
	low := s.cfg.ServerVersion
	for _, m := range s.cfg.State.Members() {
		if m.ID == s.cfg.Self {
			continue
		}
		v, err := semver.NewVersion(s.cfg.PeerVersion(m.ID))
		if err != nil {
			return ""
		}
		if own, err := semver.NewVersion(low); err == nil && v.LessThan(*own) {
			low = v.String()
		}
	}
	return low
}

// decide returns the cluster version to move to, "" to leave it. lowest is that
// of the members, "" if it is not known; target is that of a downgrade, or "".
func decide(cluster, lowest, target string) (string, error) {
	have, low := minor(cluster), minor(lowest)
	switch {
	case low == nil:
		return "", nil
	case have == nil:
		return low.String(), nil
	case target != "":
		to := minor(target)
		switch {
		case to == nil:
			return "", errInvalidDowngradeTarget
		case to.Equal(*have):
			return "", nil
		case !to.Equal(*oneDown(have)) || !to.Equal(*oneDown(low)):
			return "", errInvalidDowngradeTarget
		}
		return to.String(), nil
	case have.LessThan(*low) && have.Major == low.Major:
		return low.String(), nil
	}
	return "", nil
}

// finishDowngrade ends a downgrade when all members run the target version.
func (s *Service) finishDowngrade(ctx context.Context) {
	target := s.cfg.State.Downgrade()
	if target == "" || !s.cfg.Consensus.Status().IsLeader {
		return
	}
	low := minor(s.lowest())
	if low == nil {
		return
	}
	if to := minor(target); to == nil || !to.Equal(*low) {
		s.log.Warn("remotes server has mismatching etcd version", zap.String("remote-member-id", s.id),
			zap.String("current-server-version", low.String()), zap.String("target-version", target))
		return
	}
	s.log.Info("the cluster has been downgraded", zap.String("cluster-version", target))
	if err := s.cancel(ctx); err != nil {
		s.log.Warn("failed to cancel downgrade", zap.Error(err))
	}
}
