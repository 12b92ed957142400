package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/cmd/quire/corruption"
	"quire/engine"
	"quire/raft"
	"quire/raft/peer"
	"quire/rpc/membership"
)

// What members ask of each other. The numbers are part of the peer protocol.
const (
	callLeaseRenew      peer.Method = 1
	callLeaseTimeToLive peer.Method = 2
	callPromote         peer.Method = 3
	callHashKV          peer.Method = 4
	callMarks           peer.Method = 5
)

// handlers answer the calls of other members.
func (m *member) handlers() map[peer.Method]peer.Handler {
	compared := corruption.Responder{State: m.engine, Self: m.id}
	return map[peer.Method]peer.Handler{
		callLeaseRenew:      m.leases.serveRenew,
		callLeaseTimeToLive: m.leases.serveTimeToLive,
		callPromote:         m.servePromote,
		callHashKV:          compared.Hash,
		callMarks:           compared.Marks,
	}
}

// The errors are etcd's.
var (
	errTimedOut = errors.New("etcdserver: request timed out")
	errNoLeader = errors.New("etcdserver: no leader")
	errAnswer   = errors.New("malformed answer of a peer")
)

// leaderRetry is the pause before the leader is asked again, as in etcd.
const leaderRetry = 50 * time.Millisecond

// requestTime bounds a request as in package rpc.
func requestTime(c *Config) time.Duration { return 5*time.Second + 2*c.electionTimeout() }

// onLeader runs here on the leader, or asks it by a call and gives the answer
// to there. It goes on through a change of leader, but not for long without one:
// this member may be cut off, and the client does better with another. What is
// asked may be carried out twice.
func (m *member) onLeader(ctx context.Context, method peer.Method, req []byte, here func(context.Context) error, there func([]byte) error) error {
	if m.node.Load().Status().IsLeader {
		if err := here(ctx); !notLeading(err) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime(m.cfg))
	defer cancel()
	patience := time.Now().Add(m.cfg.electionTimeout())
	for {
		s := m.node.Load().Status()
		var err error
		switch {
		case s.IsLeader:
			err = here(ctx)
		case s.Lead != 0:
			err = m.ask(ctx, s.Lead, method, req, there)
			patience = time.Now().Add(m.cfg.electionTimeout())
		case time.Now().After(patience):
			return errNoLeader
		default:
			err = errNoLeader
		}
		if !notLeading(err) {
			return err
		}
		select {
		case <-time.After(leaderRetry):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return errTimedOut
		}
	}
}

// errAskAgain: the leader could not be asked.
var errAskAgain = errors.New("the leader was not reached")

// notLeading: whoever was asked does not lead, or could not be asked.
func notLeading(err error) bool {
	for _, e := range []error{
		errAskAgain, errNoLeader, engine.ErrNotPrimary, membership.ErrNotLeader,
		raft.ErrLeaderChanged, raft.ErrNoLeader, raft.ErrNotLeader, raft.ErrTimeout,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ask calls the leader, as long as it is the leader.
func (m *member) ask(ctx context.Context, lead uint64, method peer.Method, req []byte, there func([]byte) error) error {
	try, cancel := context.WithTimeout(ctx, m.cfg.electionTimeout()+time.Second)
	defer cancel()
	changed := m.node.Load().LeaderNotify()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-try.Done():
		}
	}()
	answer, err := m.transport.Call(try, lead, method, req)
	var said *peer.CallError
	switch {
	case err == nil:
		return there(answer)
	case errors.As(err, &said):
		return saidBy(said)
	case ctx.Err() == nil:
		return fmt.Errorf("%w: %v", errAskAgain, err)
	}
	return err
}

// saidBy gives an error that came as text its identity again, as far as anybody
// looks for it. Clients know errors by their text.
func saidBy(e *peer.CallError) error {
	for _, known := range []error{engine.ErrLeaseNotFound, engine.ErrNotPrimary, membership.ErrNotLeader} {
		if e.Text == known.Error() {
			return known
		}
	}
	if strings.HasPrefix(e.Text, "raft: ") { // it was about to cease to lead
		return fmt.Errorf("%w: %s", errAskAgain, e.Text)
	}
	return e
}

// memberships lets any member promote a learner: only the leader knows how far
// it has come.
type memberships struct {
	*membership.Service
	m *member
}

// Promote implements rpc.Membership.
func (s memberships) Promote(ctx context.Context, id uint64) (all []*pb.Member, err error) {
	err = s.m.onLeader(ctx, callPromote, binary.AppendUvarint(nil, id),
		func(ctx context.Context) error {
			all, err = s.Service.Promote(ctx, id)
			return err
		},
		func(answer []byte) error {
			var r pb.MemberPromoteResponse
			if err := r.UnmarshalVT(answer); err != nil {
				return fmt.Errorf("%w: %w", errAnswer, err)
			}
			all = r.Members
			return nil
		})
	return all, err
}

// servePromote answers another member's call.
func (m *member) servePromote(ctx context.Context, _ uint64, body []byte) ([]byte, error) {
	id, n := binary.Uvarint(body)
	if n <= 0 || m.membership == nil {
		return nil, errAnswer
	}
	all, err := m.membership.Promote(ctx, id)
	if err != nil {
		return nil, err
	}
	return (&pb.MemberPromoteResponse{Members: all}).MarshalVT()
}
