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
	"quire/raft"
	"quire/raft/peer"
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

// The errors are etcd's.
var (
	errLeaseTimeout  = errors.New("etcdserver: request timed out")
	errLeaseNoLeader = errors.New("etcdserver: no leader")
)

// leaseRetry is the pause before the leader is asked again, as in etcd.
const leaseRetry = 50 * time.Millisecond

// LeaseRenew implements rpc.Leases.
func (l *leases) LeaseRenew(ctx context.Context, id int64) (ttl int64, err error) {
	err = l.onLeader(ctx, callLeaseRenew, binary.AppendUvarint(nil, uint64(id)),
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
	err = l.onLeader(ctx, callLeaseTimeToLive, req,
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

var errAnswer = errors.New("malformed answer of a peer")

// onLeader runs here on the leader, or asks it by a call and gives the answer
// to there. It goes on through a change of leader, but not for long without one:
// this member may be cut off, and the client does better with another.
func (l *leases) onLeader(ctx context.Context, method peer.Method, req []byte, here func(context.Context) error, there func([]byte) error) error {
	if l.m.node.Load().Status().IsLeader {
		if err := here(ctx); !retryOnLeader(err) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime(l.m.cfg))
	defer cancel()
	patience := time.Now().Add(l.m.cfg.electionTimeout())
	for {
		s := l.m.node.Load().Status()
		var err error
		switch {
		case s.IsLeader:
			err = here(ctx)
		case s.Lead != 0:
			err = l.ask(ctx, s.Lead, method, req, there)
			patience = time.Now().Add(l.m.cfg.electionTimeout())
		case time.Now().After(patience):
			return errLeaseNoLeader
		default:
			err = errLeaseNoLeader
		}
		if !retryOnLeader(err) {
			return err
		}
		select {
		case <-time.After(leaseRetry):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return errLeaseTimeout
		}
	}
}

// retryOnLeader: whoever was asked does not lead, or could not be asked. The
// operations may be repeated.
func retryOnLeader(err error) bool {
	return err != nil && !errors.Is(err, engine.ErrLeaseNotFound) && !errors.Is(err, raft.ErrStopped) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// ask calls the leader, as long as it is the leader.
func (l *leases) ask(ctx context.Context, lead uint64, method peer.Method, req []byte, there func([]byte) error) error {
	try, cancel := context.WithTimeout(ctx, l.m.cfg.electionTimeout()+time.Second)
	defer cancel()
	changed := l.m.node.Load().LeaderNotify()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-try.Done():
		}
	}()
	answer, err := l.m.transport.Call(try, lead, method, req)
	var said *peer.CallError
	switch {
	case err == nil:
		return there(answer)
	case errors.As(err, &said) && said.Text == engine.ErrLeaseNotFound.Error():
		return engine.ErrLeaseNotFound
	case ctx.Err() == nil:
		return fmt.Errorf("asking the leader %x: %v", lead, err) // not as an end of ctx: the next leader is asked
	}
	return err
}

// requestTime bounds a request as in package rpc.
func requestTime(c *Config) time.Duration { return 5*time.Second + 2*c.electionTimeout() }

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
