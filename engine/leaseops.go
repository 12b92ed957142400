package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
)

// expireBatch bounds how many leases one operation revokes, so that an expiry
// storm holds apply for a short time only and other operations get in between.
const expireBatch = 64

// checkpointBatch bounds how many remaining TTLs one operation records.
const checkpointBatch = 1000

// recordPeriod is how often the remaining TTLs are looked at.
const recordPeriod = time.Second

// leasePoll is the longest the lease loop sleeps.
const leasePoll = 500 * time.Millisecond

// runLease executes the lease operations.
func (a *applier) runLease(kind OpKind, body []byte) error {
	switch kind {
	case OpLeaseGrant:
		var req pb.LeaseGrantRequest
		if err := req.UnmarshalVT(body); err != nil {
			return err
		}
		if a.e.alarms.has(pb.AlarmType_NOSPACE) {
			return ErrNoSpace
		}
		ttl, err := a.e.lessor.grant(req.ID, req.TTL, a.index)
		if err != nil {
			return err
		}
		a.e.tally.leaseGranted(ttl)
		a.body = appendInt(a.body, 2<<3, req.ID)
		a.body = appendInt(a.body, 3<<3, ttl)
	case OpLeaseRevoke:
		var req pb.LeaseRevokeRequest
		if err := req.UnmarshalVT(body); err != nil {
			return err
		}
		if err := a.mayWriteLease(req.ID); err != nil {
			return err
		}
		return a.revoke(req.ID)
	case OpLeaseExpire:
		return a.expire(body)
	case OpLeaseRecord:
		term, n := binary.Uvarint(body)
		if n <= 0 {
			return errShortOp
		}
		if term == a.term {
			return a.checkpointLeases(body[n:])
		}
	case OpLeaseCheckpoint:
		return a.checkpointLeases(body)
	}
	return nil
}

func (a *applier) checkpointLeases(body []byte) error {
	var req pb.LeaseCheckpointRequest
	if err := req.UnmarshalVT(body); err != nil {
		return err
	}
	for _, c := range req.Checkpoints {
		a.e.lessor.setRemaining(c.ID, c.Remaining_TTL)
	}
	return nil
}

// revoke deletes the keys of a lease as one revision, then the lease.
func (a *applier) revoke(id int64) error {
	keys, err := a.e.lessor.keysOf(id)
	if err != nil {
		return err
	}
	for _, k := range keys {
		a.deleteOne([]byte(k))
	}
	a.entry.deletes += uint64(len(keys))
	a.e.lessor.remove(id)
	a.e.tally.revoked.Add(1)
	return nil
}

// AppendExpire encodes the body of an OpLeaseExpire: the term in which the
// leader decided, then the leases.
func AppendExpire(dst []byte, term uint64, ids []int64) []byte {
	dst = binary.AppendUvarint(dst, term)
	for _, id := range ids {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	return dst
}

// expire revokes leases that a leader's clock has ended, one revision each. An
// operation of an earlier term is dropped: the leader that decided it had been
// replaced, and the new one may have renewed the lease since.
func (a *applier) expire(body []byte) error {
	r := fieldReader{p: body}
	term := r.next()
	if term != a.term {
		return nil
	}
	for len(r.p) > 0 {
		id := int64(r.next())
		if r.err != nil {
			return r.err
		}
		switch err := a.revoke(id); {
		case err == nil:
			a.e.tally.expired.Add(1)
		case !errors.Is(err, ErrLeaseNotFound):
			return err
		}
		if a.sub > 0 {
			a.rev, a.sub = a.rev+1, 0
		}
	}
	return nil
}

// leadership starts and stops the leader's duties of the engine. They start when
// the leader has applied an entry of its own term: then everything that earlier
// leaders have committed is applied, remaining TTLs among it.
type leadership struct {
	term  atomic.Uint64 // in which this member leads, 0 if it does not
	began atomic.Uint64 // the term for which the duties have begun

	records struct {
		sync.Mutex
		cursor uint32 // slot to go on with
		last   int64  // Options.Now of the last look
	}
}

// change is called in order with Apply.
func (l *leadership) change(e *Engine, term uint64, isLeader bool) {
	if !isLeader {
		l.term.Store(0)
		e.lessor.demote()
		return
	}
	l.term.Store(term)
	l.applied(e, e.term.Load())
}

// applied is called after an entry of a term has been applied.
func (l *leadership) applied(e *Engine, term uint64) {
	if lead := l.term.Load(); lead == term && l.began.Swap(term) != term {
		e.lessor.promote(0)
	}
}

func (l *leadership) now() (term uint64, leader bool) {
	term = l.term.Load()
	return term, term != 0 && l.began.Load() == term
}

// leaseLoop proposes the revocation of expired leases and records remaining
// TTLs, while this member leads.
func (e *Engine) leaseLoop() {
	t := time.NewTimer(leasePoll)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-t.C:
		}
		expire, wait := e.dueExpiry()
		revoking := e.propose(expire)
		if expire != nil && revoking == nil {
			wait = leasePoll
		}
		e.await(revoking)
		e.await(e.proposeRecord())
		t.Reset(wait)
	}
}

// dueExpiry returns the operation that revokes a batch of expired leases, nil if
// there are none, and says when to look again.
func (e *Engine) dueExpiry() (op []byte, wait time.Duration) {
	term, leader := e.leader.now()
	if !leader || e.opts.Propose == nil {
		return nil, leasePoll
	}
	ids, next := e.lessor.expired(nil, expireBatch)
	switch {
	case len(ids) > 0:
		return AppendOp(nil, OpLeaseExpire, AppendExpire(nil, term, ids)), 0
	case next == forever:
		return nil, leasePoll
	}
	return nil, min(leasePoll, max(time.Duration(next-e.opts.Now()), time.Millisecond))
}

// proposeRecord proposes what dueRecord returns. LeaseRenew takes the lock, too,
// so that what clears a record comes behind it in the log.
func (e *Engine) proposeRecord() *ownOp {
	e.leader.records.Lock()
	defer e.leader.records.Unlock()
	return e.propose(e.dueRecord())
}

// dueRecord returns the operation that records the remaining TTLs of a batch of
// leases, nil if there are none or the last look was a moment ago. The caller
// holds leadership.records.
func (e *Engine) dueRecord() (op []byte) {
	r, now := &e.leader.records, e.opts.Now()
	if r.cursor == 0 && now-r.last <= int64(recordPeriod) {
		return nil
	}
	r.last = now
	term, leader := e.leader.now()
	if !leader || e.opts.Propose == nil {
		r.cursor = 0
		return nil
	}
	var due []savedLease
	if due, r.cursor = e.lessor.due(r.cursor, checkpointBatch, e.opts.LeaseCheckpoint); len(due) == 0 {
		return nil
	}
	req := new(pb.LeaseCheckpointRequest)
	for _, l := range due {
		req.Checkpoints = append(req.Checkpoints, &pb.LeaseCheckpoint{ID: l.id, Remaining_TTL: l.remaining})
	}
	body, err := req.MarshalVT()
	if err != nil {
		e.log.Error("cannot encode a lease checkpoint", zap.Error(err))
		return nil
	}
	return AppendOp(nil, OpLeaseRecord, append(binary.AppendUvarint(nil, term), body...))
}

// ownOp waits for an operation that the engine proposed itself.
type ownOp struct{ done chan error }

func (o *ownOp) Applied(r *Reply)  { o.done <- r.Err }
func (o *ownOp) Dropped(err error) { o.done <- err }

// propose hands an operation of the engine's own to consensus; nil if there is
// none, or if it cannot.
func (e *Engine) propose(op []byte) *ownOp {
	if op == nil {
		return nil
	}
	w := &ownOp{done: make(chan error, 1)}
	if err := e.opts.Propose(op, w); err != nil {
		e.log.Warn("cannot propose a lease operation", zap.Error(err))
		return nil
	}
	return w
}

// await returns when the operation is applied or known to have failed; the
// leases come up again after expireRetry.
func (e *Engine) await(w *ownOp) {
	if w == nil {
		return
	}
	select {
	case <-e.ctx.Done():
	case err := <-w.done:
		if err != nil {
			e.log.Warn("lease operation failed", zap.Error(err))
		}
	}
}

// LeaseRenew gives a lease its full TTL again, on the leader. ErrLeaseNotFound
// for an unknown or expired one, ErrNotPrimary on another member. It waits for the
// log if that has to forget a remaining TTL: until then another leader could end
// the lease too early. So could one that was promoted before the log forgot it;
// therefore this member must still lead in the same term.
func (e *Engine) LeaseRenew(ctx context.Context, id int64) (ttl int64, err error) {
	term, _ := e.leader.now()
	ttl, clear, err := e.LeaseRenewal(id)
	if err != nil || clear == nil || e.opts.Propose == nil {
		return ttl, err
	}
	w := &ownOp{done: make(chan error, 1)}
	e.leader.records.Lock() // a record that is noted has been proposed, or is not yet due
	err = e.opts.Propose(clear, w)
	e.leader.records.Unlock()
	if err != nil {
		return 0, err
	}
	select {
	case err = <-w.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-e.ctx.Done():
		err = errStopped
	}
	if now, leads := e.leader.now(); err == nil && (!leads || now != term) {
		err = ErrNotPrimary
	}
	return ttl, err
}

// LeaseRenewal is LeaseRenew without the wait: the renewal may be acknowledged
// when clear, if it is not nil, has been applied and this member still leads in
// the same term.
func (e *Engine) LeaseRenewal(id int64) (ttl int64, clear []byte, err error) {
	ttl, recorded, err := e.lessor.renew(id)
	if err == nil {
		e.tally.renewed.Add(1)
	}
	if err != nil || !recorded {
		return ttl, nil, err
	}
	body, err := (&pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: id}}}).MarshalVT()
	return ttl, AppendOp(nil, OpLeaseCheckpoint, body), err
}

// LeaseTimeToLive describes a lease, on the leader; TTL is -1 for an unknown one.
// ErrNotPrimary on another member.
func (e *Engine) LeaseTimeToLive(id int64, withKeys bool) (LeaseInfo, error) {
	info := e.lessor.info(id, withKeys)
	if !e.lessor.isPrimary() { // or not any more: then the time left means nothing
		return LeaseInfo{}, ErrNotPrimary
	}
	return info, nil
}

// Leases lists the lease IDs, the one that expires first in front.
func (e *Engine) Leases() []int64 { return e.lessor.list() }

// NewLeaseID picks an ID for a grant that names none: positive and not in use.
func (e *Engine) NewLeaseID() int64 {
	for {
		if id := rand.Int64(); id > 0 && !e.lessor.exists(id) {
			return id
		}
	}
}
