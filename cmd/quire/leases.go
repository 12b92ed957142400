package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// leases is the lessor as the clients of any member see it. Clocks run on the
// leader only, so that what depends on them is asked of it, by a call; what is
// replicated is answered here.
type leases struct {
	*engine.Engine
	m *member
	// confirmed is when this member last began to confirm that it leads, with
	// success; nanoseconds on the monotonic clock since start.
	confirmed atomic.Int64
	start     time.Time
}

func newLeases(m *member) *leases { return &leases{Engine: m.engine, m: m, start: time.Now()} }

// LeaseRenew implements rpc.Leases.
func (l *leases) LeaseRenew(ctx context.Context, id int64) (ttl int64, err error) {
	err = l.m.onLeader(ctx, callLeaseRenew, binary.AppendUvarint(nil, uint64(id)),
		func(ctx context.Context) error {
			ttl, err = l.renewHere(ctx, id)
			return err
		},
		func(answer []byte) error {
			v, n := binary.Uvarint(answer)
			if n <= 0 {
				return errAnswer
			}
			ttl = int64(v)
			return nil
		})
	return ttl, err
}

// LeaseTimeToLive implements rpc.Leases.
func (l *leases) LeaseTimeToLive(ctx context.Context, id int64, withKeys bool) (info engine.LeaseInfo, err error) {
	req, err := (&pb.LeaseTimeToLiveRequest{ID: id, Keys: withKeys}).MarshalVT()
	if err != nil {
		return info, err
	}
	err = l.m.onLeader(ctx, callLeaseTimeToLive, req,
		func(ctx context.Context) error {
			info, err = l.infoHere(ctx, id, withKeys)
			return err
		},
		func(answer []byte) error {
			var r pb.LeaseTimeToLiveResponse
			if err := r.UnmarshalVT(answer); err != nil {
				return fmt.Errorf("%w: %w", errAnswer, err)
			}
			info = engine.LeaseInfo{ID: r.ID, TTL: r.TTL, GrantedTTL: r.GrantedTTL, Keys: r.Keys}
			return nil
		})
	return info, err
}

// renewHere renews on the leader.
func (l *leases) renewHere(ctx context.Context, id int64) (int64, error) {
	if err := l.confirm(ctx); err != nil {
		return 0, err
	}
	ttl, err := l.Engine.LeaseRenew(ctx, id)
	if !errors.Is(err, engine.ErrLeaseNotFound) {
		return ttl, err
	}
	// It may be granted and not applied here yet.
	if err := l.m.linearize(ctx); err != nil {
		return 0, err
	}
	return l.Engine.LeaseRenew(ctx, id)
}

func (l *leases) infoHere(ctx context.Context, id int64, withKeys bool) (engine.LeaseInfo, error) {
	if err := l.confirm(ctx); err != nil {
		return engine.LeaseInfo{}, err
	}
	info, err := l.Engine.LeaseTimeToLive(id, withKeys)
	if err != nil || info.TTL >= 0 {
		return info, err
	}
	if err := l.m.linearize(ctx); err != nil {
		return engine.LeaseInfo{}, err
	}
	return l.Engine.LeaseTimeToLive(id, withKeys)
}

// confirm makes sure that this member leads: one that was paused or cut off may
// have been replaced without knowing it, and a renewal that it acknowledged would
// count for nothing. Others elect nobody within an election timeout after they
// confirmed it, so half of one may pass until it must be confirmed again.
func (l *leases) confirm(ctx context.Context) error {
	now := int64(time.Since(l.start))
	if at := l.confirmed.Load(); at != 0 && now-at < int64(l.m.cfg.electionTimeout()/2) {
		return nil
	}
	n := l.m.node.Load()
	before := n.Status()
	if !before.IsLeader {
		return engine.ErrNotPrimary
	}
	if err := l.m.linearize(ctx); err != nil {
		return err
	}
	if after := n.Status(); !after.IsLeader || after.Term != before.Term {
		return engine.ErrNotPrimary
	}
	l.confirmed.Store(max(now, 1))
	return nil
}

// LeaderChanged makes the next renewal confirm anew.
func (l *leases) leaderChanged() { l.confirmed.Store(0) }

// serveRenew answers another member's call.
func (l *leases) serveRenew(ctx context.Context, _ uint64, body []byte) ([]byte, error) {
	id, n := binary.Uvarint(body)
	if n <= 0 {
		return nil, errAnswer
	}
	ttl, err := l.renewHere(ctx, int64(id))
	return binary.AppendUvarint(nil, uint64(ttl)), err
}

func (l *leases) serveTimeToLive(ctx context.Context, _ uint64, body []byte) ([]byte, error) {
	var r pb.LeaseTimeToLiveRequest
	if err := r.UnmarshalVT(body); err != nil {
		return nil, err
	}
	info, err := l.infoHere(ctx, r.ID, r.Keys)
	if err != nil {
		return nil, err
	}
	return (&pb.LeaseTimeToLiveResponse{ID: info.ID, TTL: info.TTL, GrantedTTL: info.GrantedTTL, Keys: info.Keys}).MarshalVT()
}
