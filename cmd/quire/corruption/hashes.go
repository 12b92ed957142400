package corruption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// Hashes makes the comparisons of etcd, by HashKV. Its rules and its words are
// etcd's. Each loop belongs to one goroutine.
type Hashes struct {
	cfg     Config
	log     *zap.Logger
	self    zap.Field
	checked int64 // newest revision whose compaction hash was equal everywhere
}

// NewHashes returns the checks.
func NewHashes(cfg Config) *Hashes {
	h := &Hashes{cfg: cfg, log: cfg.Logger, self: zap.String("local-member-id", hexID(cfg.Self))}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	return h
}

// ErrInconsistent says that another member has another hash.
var ErrInconsistent = errors.New("found data inconsistency with peers")

// kvHash is a member's hash at a revision.
type kvHash struct {
	rev, compactRev, current int64
	hash                     uint32
}

// peerHash is another member's, or why there is none.
type peerHash struct {
	id  uint64
	eps []string
	kvHash
	err error
}

func (h *Hashes) own() (kvHash, error) {
	hash, compactRev, current, err := h.cfg.State.HashKV(0)
	return kvHash{rev: current, compactRev: compactRev, current: current, hash: hash}, err
}

// peers asks all other members for their hash at a revision.
func (h *Hashes) peers(ctx context.Context, rev int64) (all []peerHash) {
	body, err := (&pb.HashKVRequest{Revision: rev}).MarshalVT()
	if err != nil {
		h.log.Warn("failed hash kv request", zap.Error(err))
		return nil
	}
	urls := map[uint64][]string{}
	for _, m := range h.cfg.Members() {
		urls[m.ID] = m.PeerURLs
	}
	ids := h.cfg.others()
	ctx, cancel := context.WithTimeout(ctx, h.cfg.RequestTimeout)
	defer cancel()
	for i, a := range h.cfg.Ask(ctx, ids, AskHash, body) {
		p := peerHash{id: ids[i], eps: urls[ids[i]]}
		if p.kvHash, p.err = hashOf(a); p.err != nil {
			h.log.Warn("failed hash kv request", h.self, zap.Int64("requested-revision", rev),
				zap.String("remote-peer-endpoint", strings.Join(p.eps, ",")), zap.Error(p.err))
		}
		all = append(all, p)
	}
	return all
}

// hashOf reads an answer. Errors come as text.
func hashOf(a Answer) (kvHash, error) {
	if a.Err != nil {
		for _, known := range []error{engine.ErrCompacted, engine.ErrFutureRev} {
			if strings.Contains(a.Err.Error(), known.Error()) {
				return kvHash{}, known
			}
		}
		return kvHash{}, a.Err
	}
	var r pb.HashKVResponse
	if err := r.UnmarshalVT(a.Body); err != nil {
		return kvHash{}, errors.Join(errMalformed, err)
	}
	if r.Header == nil {
		return kvHash{}, errMalformed
	}
	return kvHash{rev: r.HashRevision, compactRev: r.CompactRevision, current: r.Header.Revision, hash: r.Hash}, nil
}

// Initial compares this member with the others before it serves anybody. It fails
// only on another hash at the same revision and the same compact revision.
func (h *Hashes) Initial(ctx context.Context) error {
	h.log.Info("starting initial corruption check", h.self, zap.Duration("timeout", h.cfg.RequestTimeout))
	own, err := h.own()
	if err != nil {
		return fmt.Errorf("%x failed to fetch hash (%w)", h.cfg.Self, err)
	}
	mismatch := 0
	for _, p := range h.peers(ctx, own.rev) {
		fields := []zap.Field{h.self, zap.Int64("local-member-revision", own.rev), zap.Int64("local-member-compact-revision", own.compactRev),
			zap.Uint32("local-member-hash", own.hash), zap.String("remote-peer-id", hexID(p.id)), zap.Strings("remote-peer-endpoints", p.eps)}
		switch {
		case errors.Is(p.err, engine.ErrFutureRev):
			h.log.Warn("cannot fetch hash from slow remote peer", append(fields, zap.Error(p.err))...)
		case errors.Is(p.err, engine.ErrCompacted):
			h.log.Warn("cannot fetch hash from remote peer; local member is behind", append(fields, zap.Error(p.err))...)
		}
		if p.err != nil || p.hash == own.hash {
			continue
		}
		fields = append(fields, zap.Int64("remote-peer-revision", p.current), zap.Int64("remote-peer-compact-revision", p.compactRev), zap.Uint32("remote-peer-hash", p.hash))
		if own.compactRev != p.compactRev {
			h.log.Warn("found different compact revision values from remote peer", fields...)
			continue
		}
		h.log.Warn("found different hash values from remote peer", fields...)
		mismatch++
	}
	if mismatch > 0 {
		return fmt.Errorf("%x %w", h.cfg.Self, ErrInconsistent)
	}
	h.log.Info("initial corruption checking passed; no corruption", h.self)
	return nil
}

// RunPeriodic makes the periodic check, on the leader, until ctx ends.
func (h *Hashes) RunPeriodic(ctx context.Context, interval time.Duration) {
	h.log.Info("enabled corruption checking", h.self, zap.Duration("interval", interval))
	h.every(ctx, interval, func() {
		if err := h.Periodic(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("failed to check hash KV", zap.Error(err))
		}
	})
}

// RunCompaction compares the hashes that compactions leave, on the leader, until
// ctx ends.
func (h *Hashes) RunCompaction(ctx context.Context, interval time.Duration) {
	h.every(ctx, interval, func() { h.Compaction(ctx) })
}

// every makes a check again and again while this member leads.
func (h *Hashes) every(ctx context.Context, interval time.Duration, check func()) {
	every(ctx, interval, func() {
		if h.cfg.Leads() {
			check()
		}
	})
}

// Periodic compares the leader's newest state with that of the others. One alarm
// is raised at most.
func (h *Hashes) Periodic(ctx context.Context) error {
	first, err := h.own()
	if err != nil {
		return err
	}
	peers := h.peers(ctx, first.rev)
	confirm, cancel := context.WithTimeout(ctx, h.cfg.RequestTimeout)
	err = h.cfg.Confirm(confirm)
	cancel()
	if err != nil {
		return err
	}
	second, err := h.own()
	if err != nil {
		return err
	}
	alarmed := false
	mismatch := func(id uint64) {
		if !alarmed {
			alarmed = true
			h.raise(ctx, id)
		}
	}
	if second.hash != first.hash && second.rev == first.rev && first.compactRev == second.compactRev {
		h.log.Warn("found hash mismatch", zap.Int64("revision-1", first.rev), zap.Int64("compact-revision-1", first.compactRev), zap.Uint32("hash-1", first.hash),
			zap.Int64("revision-2", second.rev), zap.Int64("compact-revision-2", second.compactRev), zap.Uint32("hash-2", second.hash))
		mismatch(h.cfg.Self)
	}
	checked := 0
	for _, p := range peers {
		if p.err != nil {
			continue
		}
		checked++
		if h.suspicious(&p, first, second) {
			mismatch(p.id)
		}
	}
	h.log.Info("finished peer corruption check", zap.Int("number-of-peers-checked", checked))
	return nil
}

// suspicious tells whether what a follower answers between two looks of the leader
// cannot be.
func (h *Hashes) suspicious(p *peerHash, first, second kvHash) bool {
	follower := zap.String("follower-peer-id", hexID(p.id))
	bad := false
	if p.current > second.rev {
		h.log.Warn("revision from follower must be less than or equal to leader's", zap.Int64("leader-revision", second.rev),
			zap.Int64("follower-revision", p.current), follower)
		bad = true
	}
	if p.compactRev > second.compactRev {
		h.log.Warn("compact revision from follower must be less than or equal to leader's", zap.Int64("leader-compact-revision", second.compactRev),
			zap.Int64("follower-compact-revision", p.compactRev), follower)
		bad = true
	}
	if p.compactRev == first.compactRev && p.hash != first.hash {
		h.log.Warn("same compact revision then hashes must match", zap.Int64("leader-compact-revision", second.compactRev), zap.Uint32("leader-hash", first.hash),
			zap.Int64("follower-compact-revision", p.compactRev), zap.Uint32("follower-hash", p.hash), follower)
		bad = true
	}
	return bad
}

func (h *Hashes) raise(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.RequestTimeout)
	defer cancel()
	if err := h.cfg.Raise(ctx, id); err != nil {
		h.log.Warn("cannot raise the alarm of a divergent member", zap.String("member-id", hexID(id)), zap.Error(err))
	}
}

// Compaction compares the hashes that were taken before the last compactions,
// newest first, until all members had one of them.
func (h *Hashes) Compaction(ctx context.Context) {
	h.log.Info("starting compact hash check", h.self, zap.Duration("timeout", h.cfg.RequestTimeout))
	hashes := h.cfg.State.CompactHashes()
	slices.SortFunc(hashes, func(a, b engine.CompactHash) int { return int(b.Revision - a.Revision) })
	if i := slices.IndexFunc(hashes, func(c engine.CompactHash) bool { return c.Revision <= h.checked }); i >= 0 {
		hashes = hashes[:i]
	}
	n := len(hashes)
	for i, c := range hashes {
		peers := h.peers(ctx, c.Revision)
		if len(peers) > 0 && h.compareCompaction(ctx, c, peers) {
			n = i + 1
			break
		}
	}
	h.log.Info("finished compaction hash check", zap.Int("number-of-hashes-checked", n))
}

// compareCompaction returns true when an older hash need not be compared: all
// members had this one, or an alarm was raised.
func (h *Hashes) compareCompaction(ctx context.Context, own engine.CompactHash, peers []peerHash) bool {
	leader := []zap.Field{zap.String("leader-id", hexID(h.cfg.Self))}
	members := map[uint32][]uint64{own.Hash: {h.cfg.Self}}
	checked := 0
	for _, p := range peers {
		reason := ""
		switch {
		case p.err != nil:
			reason = "no response"
		case p.compactRev != own.CompactRevision:
			reason = fmt.Sprintf("the peer's CompactRevision %d doesn't match leader's CompactRevision %d", p.compactRev, own.CompactRevision)
		}
		if reason != "" {
			h.log.Warn("Skipped peer's hash", zap.Int("number-of-peers", len(peers)), leader[0], zap.String("peer-id", hexID(p.id)), zap.String("reason", reason))
			continue
		}
		checked++
		members[p.hash] = append(members[p.hash], p.id)
	}
	if len(members) == 1 {
		return h.allEqual(own, checked, len(peers))
	}
	leader = append(leader, zap.Int64("leader-revision", own.Revision), zap.Int64("leader-compact-revision", own.CompactRevision), zap.Uint32("leader-hash", own.Hash))
	quorum := false
	for hash, ids := range members {
		if len(ids) > (len(peers)+1)/2 {
			quorum = true
			delete(members, hash)
			break
		}
	}
	if !quorum {
		h.log.Error("Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0", leader...)
		h.raise(ctx, 0)
	}
	for hash, ids := range members {
		var names []string
		for _, id := range ids {
			names = append(names, hexID(id))
			if quorum {
				h.raise(ctx, id)
			}
		}
		h.log.Error("Detected compaction hash mismatch", append(slices.Clone(leader), zap.Uint32("peer-hash", hash),
			zap.String("peer-ids", strings.Join(names, ",")), zap.Bool("quorum-exist", quorum))...)
	}
	return true
}

func (h *Hashes) allEqual(own engine.CompactHash, checked, peers int) bool {
	fields := []zap.Field{zap.Int("number-of-peers-checked", checked), zap.Int64("revision", own.Revision), zap.Int64("compactRevision", own.CompactRevision)}
	if checked < peers {
		h.log.Warn("skipped revision in compaction hash check; was not able to check all peers", append(fields, zap.Int("number-of-peers", peers))...)
		return false
	}
	h.log.Info("successfully checked hash on whole cluster", fields...)
	h.checked = max(h.checked, own.Revision)
	return true
}
