package main

import (
	"context"
	"errors"
	"net"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/raft/peer"
)

// errMemberRemoved ends a member that its cluster has removed; the process ends
// without a fault, as etcd's does.
var errMemberRemoved = errors.New("the member has been permanently removed from the cluster")

// leaveDelay lets a removed member's last answers leave.
const leaveDelay = time.Second

// raftPort is the consensus member as the transport sees it: it may not be
// there yet.
type raftPort member

// StepAll implements peer.Raft.
func (p *raftPort) StepAll(ms []*raftpb.Message) {
	if n := p.node.Load(); n != nil {
		n.StepAll(ms)
	}
}

// ReportUnreachable implements peer.Raft.
func (p *raftPort) ReportUnreachable(id uint64) {
	if n := p.node.Load(); n != nil {
		n.ReportUnreachable(id)
	}
}

// ReportSnapshot implements peer.Raft.
func (p *raftPort) ReportSnapshot(id uint64, ok bool) {
	if n := p.node.Load(); n != nil {
		n.ReportSnapshot(id, ok)
	}
}

// readDone is told how a ReadIndex ends.
type readDone chan error

// ReadReady implements raft.ReadWaiter.
func (r readDone) ReadReady(err error) { r <- err }

// linearize waits until the applied state is at least as new as everything that
// was acknowledged before.
func (m *member) linearize(ctx context.Context) error {
	w := make(readDone, 1)
	if m.node.Load().ReadIndex(w) {
		return nil
	}
	select {
	case err := <-w:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openTransport makes the connections to the peers; nothing is dialed yet.
func (m *member) openTransport() (err error) {
	c := m.cfg
	m.leases = newLeases(m)
	m.transport, err = peer.New(peer.Config{
		ID: m.id, ClusterID: m.cid, ServerVersion: apiVersion, PeerURLs: c.AdvertisePeerURLs.strings(),
		TLS: m.peerTLS, LocalAddr: c.localAddress(m.log),
		Handlers:  m.handlers(),
		Snapshots: m.engine.Transfers(), SnapshotBytesPerSecond: c.SnapshotBytesPerSecond,
		Raft: (*raftPort)(m), Removed: m.engine.Removed, OnRemoved: func() { m.leave(0) },
		DialTimeout: time.Second + c.electionTimeout(),
		ReadTimeout: c.RaftReadTimeout, WriteTimeout: c.RaftWriteTimeout,
		HeartbeatInterval: time.Duration(c.HeartbeatMillis) * time.Millisecond,
		Logger:            m.log,
	})
	return err
}

// localAddress is where connections to peers begin: with the gate
// SetMemberLocalAddr the first advertised address that is one and reaches beyond
// this machine, so that a machine with several is known by that. Otherwise, and if
// there is none, nil.
func (c *Config) localAddress(log *zap.Logger) net.IP {
	if !c.Features.Enabled(gateSetMemberLocalAddr) {
		return nil
	}
	urls := zap.Strings("advertise-peer-urls", c.AdvertisePeerURLs.strings())
	log.Info("searching for a suitable member local address in AdvertisePeerURLs", urls)
	for _, u := range c.AdvertisePeerURLs {
		if ip := net.ParseIP(u.Hostname()); ip != nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			log.Info("setting member local address", zap.String("LocalAddr", ip.String()))
			return ip
		}
	}
	log.Warn("unable to set a member local address due to lack of suitable local addresses", urls)
	return nil
}

// syncPeers makes the applied membership the transport's. A member that joins
// knows only what it was told when it asked.
func (m *member) syncPeers() {
	if m.offline {
		return
	}
	list := m.engine.Members()
	if len(list) == 0 {
		list = m.remotes
	}
	m.transport.SetMembers(peersOf(list))
}

func peersOf(list []*pb.Member) []peer.Member {
	ms := make([]peer.Member, len(list))
	for i, x := range list {
		ms[i] = peer.Member{ID: x.ID, URLs: x.PeerURLs}
	}
	return ms
}

// leave ends this member after a while: it was removed.
func (m *member) leave(after time.Duration) {
	time.AfterFunc(after, func() { m.die(errMemberRemoved) })
}

// logRemoval says what etcd says when it ends for this reason.
func logRemoval(log *zap.Logger) {
	log.Warn("server error", zap.Error(errMemberRemoved))
	log.Warn("data-dir used by this member must be removed")
}
