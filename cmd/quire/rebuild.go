package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/raft/peer"
	"quire/wal"
)

// errStoreDamaged ends a member whose store was found damaged and can be rebuilt
// from another member's. The process then starts itself again.
var errStoreDamaged = errors.New("the store is damaged and is rebuilt from another member")

const (
	// rebuildRetry is the pause after all members were asked in vain.
	rebuildRetry = time.Second
	// aloneRetry is how often a member with a damaged store looks whether the others
	// can do without it.
	aloneRetry = time.Second
)

// openStore opens the store. One that is damaged is rebuilt first, if the cluster
// has other members.
func (m *member) openStore(ctx context.Context) error {
	marked, err := engine.IsMarkedDamaged(m.dirs[0])
	if err != nil {
		return err
	}
	if !marked {
		if m.engine, err = engine.Open(m.dirs[0], m.engineOptions()); !engine.IsDamage(err) {
			return err
		}
		m.engine = nil
	}
	if e := m.rebuild(ctx, err); e != nil {
		return errors.Join(err, e)
	}
	m.replaced = true
	m.engine, err = engine.Open(m.dirs[0], m.engineOptions())
	return err
}

// rebuild replaces the store by another member's. It goes on until it has succeeded.
func (m *member) rebuild(ctx context.Context, damage error) error {
	remains, err := engine.LookInto(m.dirs[0])
	if err != nil {
		return fmt.Errorf("the store cannot be rebuilt, for it does not tell whose it is; remove the member and add another one: %w", err)
	}
	others := slices.DeleteFunc(slices.Clone(remains.Members), func(x *pb.Member) bool { return x.ID == remains.MemberID })
	if len(others) == 0 || m.offline {
		return errors.New("the store is damaged and there is no other member to rebuild it from; restore it from a backup")
	}
	if err := engine.MarkDamaged(m.dirs[0]); err != nil {
		return err
	}
	m.log.Warn("the store is damaged; rebuilding it from another member", zap.String("local-member-id", hex(remains.MemberID)), zap.Error(damage))
	t, err := peer.New(peer.Config{
		ID: remains.MemberID, ClusterID: remains.ClusterID, ServerVersion: apiVersion, PeerURLs: m.cfg.AdvertisePeerURLs.strings(),
		TLS: m.peerTLS, Raft: (*raftPort)(m), Removed: func(uint64) bool { return false }, OnRemoved: func() { m.die(errMemberRemoved) },
		DialTimeout: time.Second + m.cfg.electionTimeout(), ReadTimeout: m.cfg.RaftReadTimeout, WriteTimeout: m.cfg.RaftWriteTimeout,
		HeartbeatInterval: time.Duration(m.cfg.HeartbeatMillis) * time.Millisecond, Logger: m.log,
	})
	if err != nil {
		return err
	}
	defer t.Close()
	t.SetMembers(peersOf(remains.Members))
	began := time.Now()
	for {
		for _, x := range others {
			err := t.FetchSnapshot(ctx, x.ID, remains.Applied, func(ctx context.Context, manifest []byte, fetch func(uint32, []byte, int64) (int, error)) error {
				return remains.Rebuild(ctx, m.dirs[0], manifest, fetch)
			})
			if err == nil {
				m.log.Info("rebuilt the store from another member", zap.String("remote-peer-id", hex(x.ID)), zap.Duration("took", time.Since(began)))
				return nil
			}
			m.log.Warn("cannot rebuild the store from this member yet", zap.String("remote-peer-id", hex(x.ID)), zap.Error(err))
		}
		select {
		case <-time.After(rebuildRetry):
		case <-ctx.Done():
			return ctx.Err()
		case err := <-m.fatal:
			m.die(err)
			return err
		}
	}
}

// rebuilt is called when consensus has gone on from the new store.
func (m *member) rebuilt() error {
	if !m.replaced {
		return nil
	}
	return engine.UnmarkDamaged(m.dirs[0])
}

// damaged is told of damage to the store while it is in use. What is damaged is
// never served. A member that has others leaves as soon as they can do without it,
// and comes back with a sound store.
func (m *member) damaged(err error) {
	if m.offline || m.ailing.Swap(true) {
		return
	}
	go func() {
		m.log.Error("the store is damaged", zap.Error(err))
		for told := false; !m.othersSuffice(); told = true {
			if len(m.engine.Members()) < 2 {
				m.log.Error("there is no other member to rebuild the store from; what is damaged cannot be read")
				m.ailing.Store(false)
				return
			}
			if !told {
				m.log.Warn("this member stays until a quorum of the others is active; then its store is rebuilt")
			}
			select {
			case <-time.After(aloneRetry):
			case err := <-m.fatal:
				m.die(err)
				return
			}
		}
		if err := engine.MarkDamaged(m.dirs[0]); err != nil {
			m.log.Error("cannot note that the store is damaged", zap.Error(err))
			return
		}
		m.handOver(context.Background())
		m.die(fmt.Errorf("%w: %w", errStoreDamaged, err))
	}()
}

// othersSuffice tells whether the cluster has a quorum without this member. Of two
// voters neither can leave: the other one would stand still, perhaps at an index from
// which this one cannot go on.
func (m *member) othersSuffice() bool {
	voters, active := 0, 0
	for _, x := range m.engine.Members() {
		if x.IsLearner {
			continue
		}
		voters++
		if x.ID != m.id && !m.transport.ActiveSince(x.ID).IsZero() {
			active++
		}
	}
	return active > voters/2
}

// startAgain makes this process a new one with the same command line.
func startAgain(args, environ []string) error {
	return fmt.Errorf("cannot start again: %w", syscall.Exec("/proc/self/exe", args, environ))
}

// explain adds to a refusal of the log what can be done about it. The log holds what
// this member has promised to the others: it cannot be made up for by a copy of
// theirs, as the store can.
func (m *member) explain(err error) error {
	if !errors.Is(err, wal.ErrCorrupt) && !errors.Is(err, wal.ErrMissingSegment) {
		return err
	}
	if len(m.engine.Members()) == 1 {
		return fmt.Errorf("%w; there is no other member: restore a backup, or, if only the end of the log is damaged, start once with --force-new-cluster to go on without it", err)
	}
	return fmt.Errorf("%w; replace this member: 'etcdctl member remove %s' at another one, delete this data directory, "+
		"'etcdctl member add' with this member's peer URLs, and start it with --initial-cluster-state existing", err, hex(m.id))
}
