package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine/auth"
	"quire/index"
	"quire/pagestore"
)

// The apply path. One log entry carries many operations; Apply runs, in order:
//
//	1 decode and run each operation: assign the revision, append the record to
//	  the open page, link it into the index       (sequential, under Engine.writer)
//	2 publish the new visible revision             once per entry
//	3 hand the events to the publisher             once per entry
//	4 tell the waiters                             reply bytes lie in one buffer
//
// What an operation does is a function of the state and the operation alone:
// clocks, flags and clients never decide it, so that every member agrees.

// errStopped is what a waiter is told when the engine cannot go on.
var errStopped = errors.New("etcdserver: server stopped")

// applier is the state of the apply goroutine, guarded by Engine.writer.
type applier struct {
	e     *Engine
	k     *keyspace // the present one
	rev   int64     // of the last write
	sub   int64     // next place within the revision being written
	index uint64
	term  uint64

	rec     []byte // record being built
	body    []byte // reply bodies of the entry
	replies []replySpan
	events  []Event
	wants   bool          // the publisher wants previous values
	as      auth.Identity // whose operation is being done
	access  auth.Access   // what they may do; asked for when the operation begins
	asName  string
	put     pb.PutRequest
	kind    OpKind // of the operation being done
	entry   entryTally
	roll    rolling
	entries uint64 // since the last checkpoint
	bytes   int64  // of records appended since the last checkpoint
	logged  int64  // of entries applied since the last checkpoint
	broken  error
}

type replySpan struct {
	rev      int64
	from, to int // in applier.body
	err      error
}

// keepBody bounds the reply buffer kept between entries.
const keepBody = 1 << 20

// Apply executes one committed entry: operations framed as uvarint length and
// bytes. waiters[i] belongs to operation i; nil when nobody waits here.
func (e *Engine) Apply(index, term uint64, data []byte, waiters []interface{ Dropped(error) }) {
	a := &e.ap
	e.writer.Lock()
	if a.broken != nil {
		e.writer.Unlock()
		dropAll(waiters)
		return
	}
	a.begin(index, term)
	a.logged += int64(len(data))
	for len(data) > 0 && a.broken == nil {
		n, w := binary.Uvarint(data)
		if w <= 0 || n > uint64(len(data)-w) {
			a.fail(fmt.Errorf("engine: entry %d holds a cut operation", index))
			break
		}
		a.run(data[w : w+int(n)])
		data = data[w+int(n):]
	}
	broken := a.broken
	if broken == nil {
		e.applied.Store(index)
		e.term.Store(term)
		a.roll.mark(index, a.rev) // half an entry is nothing to compare
	}
	a.entry.settle(&e.tally)
	due := a.checkpointDue()
	e.writer.Unlock()
	if broken != nil {
		e.die(broken)
		dropAll(waiters)
		return
	}
	a.k.visible.Store(a.rev)
	if e.opts.Publisher != nil && len(data) == 0 {
		e.opts.Publisher.Publish(a.events, a.rev)
	}
	a.reply(waiters)
	e.leader.applied(e, term)
	if due {
		e.checkpoint.kick()
	}
}

// Flush ends a group of entries. Every entry publishes and replies by itself.
func (e *Engine) Flush() {}

func dropAll(waiters []interface{ Dropped(error) }) {
	for _, w := range waiters {
		if w != nil {
			w.Dropped(errStopped)
		}
	}
}

func (a *applier) begin(index, term uint64) {
	a.index, a.term = index, term
	a.entries++
	a.entry.forget()
	a.body, a.replies = a.body[:0], a.replies[:0]
	clear(a.events)
	a.events = a.events[:0]
	a.wants = a.e.opts.Publisher != nil && a.e.opts.Publisher.WantsPrev()
	if cap(a.body) > keepBody {
		a.body = nil
	}
}

func (a *applier) reply(waiters []interface{ Dropped(error) }) {
	var r Reply
	for i, w := range waiters {
		if w == nil {
			continue
		}
		s := a.replies[i]
		r = Reply{Revision: s.rev, Body: a.body[s.from:s.to], Err: s.err}
		if ew, ok := w.(Waiter); ok {
			ew.Applied(&r)
		}
	}
}

// fail makes the engine refuse everything from here on.
func (a *applier) fail(err error) {
	if a.broken == nil {
		a.broken = err
	}
}

// run executes one operation and notes its reply.
func (a *applier) run(op []byte) {
	from := len(a.body)
	a.sub = 0
	a.kind = 0
	rev, err := a.dispatch(op)
	a.entry.ended(a.kind, err)
	if a.sub > 0 {
		a.rev++
	}
	a.roll.operation(a.kind, a.rev, err != nil)
	if rev == 0 {
		rev = a.rev
	}
	if err != nil {
		a.body = a.body[:from]
	}
	a.replies = append(a.replies, replySpan{rev: rev, from: from, to: len(a.body), err: err})
}

// dispatch returns the revision for the reply's header, 0 for the present one.
func (a *applier) dispatch(op []byte) (rev int64, err error) {
	kind, body, err := splitOp(op)
	a.as = auth.Identity{}
	if err == nil && kind == OpAs {
		kind, body, err = a.actAs(body)
	}
	if err != nil {
		a.fail(err)
		return 0, err
	}
	a.kind = kind
	a.access = a.e.auth.Access(a.as)
	if kind <= OpLeaseExpire && a.e.alarms.has(pb.AlarmType_CORRUPT) {
		return 0, ErrCorrupt
	}
	switch kind {
	case OpPut:
		return 0, a.runPut(body)
	case OpDeleteRange:
		return 0, a.runDeleteRange(body)
	case OpTxn:
		return a.runTxn(body)
	case OpCompact:
		return 0, a.runCompact(body)
	case OpLeaseGrant, OpLeaseRevoke, OpLeaseExpire, OpLeaseCheckpoint, OpLeaseRecord:
		return 0, a.runLease(kind, body)
	case OpAlarm:
		return 0, a.runAlarm(body)
	case OpMemberAttr:
		m := new(pb.Member)
		if err := m.UnmarshalVT(body); err != nil {
			return 0, err
		}
		a.e.cluster.setAttributes(m)
		return 0, nil
	case OpClusterVersion:
		a.setClusterVersion(string(body))
		return 0, nil
	case OpDowngrade:
		a.e.cluster.setDowngrade(string(body))
		return 0, nil
	}
	if kind >= OpAuthEnable && kind <= OpRoleRevoke {
		return 0, a.runAuth(kind, body)
	}
	// A kind of a later version: skipping it would make members differ.
	err = fmt.Errorf("engine: entry %d holds an operation of unknown kind %d", a.index, kind)
	a.fail(err)
	return 0, err
}

func (a *applier) setClusterVersion(to string) {
	from := a.e.cluster.clusterVersion()
	a.e.cluster.setVersion(to)
	if from == "" {
		a.e.log.Info("set initial cluster version", zap.String("cluster-version", to))
		return
	}
	a.e.log.Info("updated cluster version", zap.String("from", from), zap.String("to", to))
}

func (a *applier) runPut(body []byte) error {
	req := &a.put
	*req = pb.PutRequest{}
	if err := req.UnmarshalVTUnsafe(body); err != nil {
		return err
	}
	if a.e.alarms.has(pb.AlarmType_NOSPACE) {
		return ErrNoSpace
	}
	if err := a.mayPut(req); err != nil {
		return err
	}
	if err := a.checkPut(req); err != nil {
		return err
	}
	a.body = a.putOne(a.body, req)
	return nil
}

// checkPut refuses what a put may not do, before anything is written.
func (a *applier) checkPut(req *pb.PutRequest) error {
	if req.Lease != 0 && !a.e.lessor.exists(req.Lease) {
		return ErrLeaseNotFound
	}
	if req.IgnoreValue || req.IgnoreLease {
		if _, cur, ok := a.k.idx.Find(req.Key); !ok || cur.Tombstone {
			return ErrKeyNotFound
		}
	}
	return nil
}

// putOne writes one key at the revision being written and appends the body of
// its PutResponse to dst.
func (a *applier) putOne(dst []byte, req *pb.PutRequest) []byte {
	h, cur, ok := a.k.idx.Find(req.Key)
	live := ok && !cur.Tombstone
	kv := keyValue{key: req.Key, value: req.Value, lease: req.Lease, create: a.rev + 1, mod: a.rev + 1, version: 1, sub: a.sub}
	if live {
		kv.create, kv.version = cur.Create, cur.Ver+1
	}
	var prev []byte
	if live && (req.PrevKv || req.IgnoreValue || req.IgnoreLease || a.wants) {
		prev = a.read(cur.Loc)
	}
	if req.IgnoreValue || req.IgnoreLease {
		var old keyValue
		if err := decodeKV(prev, &old); err != nil {
			a.fail(err)
		}
		if req.IgnoreValue {
			kv.value = old.value
		}
		if req.IgnoreLease {
			kv.lease = old.lease
		}
	}
	if req.PrevKv && prev != nil {
		dst = appendMessage(dst, 2<<3|2, prev)
	}
	a.entry.puts++
	a.entry.putBytes += uint64(len(kv.key) + len(kv.value))
	a.link(h, &kv, live && cur.HasLease, a.eventPrev(req.Key, &cur, prev))
	return dst
}

// deleteOne writes the tombstone of a live key.
func (a *applier) deleteOne(key []byte) {
	h, cur, ok := a.k.idx.Find(key)
	if !ok || cur.Tombstone {
		return
	}
	var prev []byte
	if a.wants {
		prev = a.read(cur.Loc)
	}
	kv := keyValue{key: key, mod: a.rev + 1, sub: a.sub, tombstone: true}
	a.link(h, &kv, cur.HasLease, a.eventPrev(key, &cur, prev))
}

// eventPrev returns what an event that replaces cur, whose bytes are prev, gives
// as the previous value: the value as of the revision before. That is another
// one if the same transaction has written the key already.
func (a *applier) eventPrev(key []byte, cur *index.Version, prev []byte) []byte {
	if prev == nil || cur.Main <= a.rev {
		return prev
	}
	old, ok := a.k.idx.Get(key, a.rev)
	if !ok {
		return nil
	}
	return a.read(old.Loc)
}

// link stores the record, makes it the newest version of its key and keeps the
// lease attachments and the events in step.
func (a *applier) link(h index.Handle, kv *keyValue, hadLease bool, prev []byte) {
	a.rec = appendRecord(a.rec[:0], kv)
	ref, err := a.k.store.Append(a.rec)
	if err != nil {
		a.fail(fmt.Errorf("engine: page store: %w", err))
		return
	}
	a.k.idx.BeginWrite()
	a.k.idx.Put(h, kv.key, index.Version{Main: kv.mod, Sub: int32(kv.sub), Create: kv.create, Ver: kv.version,
		Loc: index.Loc(ref), Tombstone: kv.tombstone, HasLease: kv.lease != 0})
	a.k.idx.EndWrite()
	if kv.lease != 0 {
		a.e.lessor.attach(kv.key, kv.lease)
	} else if hadLease {
		a.e.lessor.detach(kv.key)
	}
	a.bytes += int64(len(a.rec))
	a.roll.record(a.rec)
	a.sub++
	if a.e.opts.Publisher != nil {
		stored := a.read(index.Loc(ref))
		a.events = append(a.events, Event{Main: kv.mod, Sub: int32(kv.sub), Delete: kv.tombstone,
			Created: kv.version == 1, Key: keyOf(stored), KV: stored, Prev: prev})
	}
}

// read returns the KeyValue bytes at loc. A record that the index names must be
// readable: anything else is a broken store, and the engine stops.
func (a *applier) read(loc index.Loc) []byte {
	rec, err := a.k.store.Read(pagestore.Ref(loc))
	if err != nil {
		a.fail(fmt.Errorf("engine: page store: %w", err))
		return nil
	}
	return wireKV(rec)
}

func (a *applier) runDeleteRange(body []byte) error {
	var req pb.DeleteRangeRequest
	if err := req.UnmarshalVTUnsafe(body); err != nil {
		return err
	}
	if err := a.mayDelete(&req); err != nil {
		return err
	}
	a.body = a.deleteRange(a.body, &req)
	return nil
}

// deleteRange deletes the live keys of a range and appends the body of its
// DeleteRangeResponse to dst.
func (a *applier) deleteRange(dst []byte, req *pb.DeleteRangeRequest) []byte {
	s := newSpan(req.Key, req.RangeEnd)
	a.entry.deletes++
	var keys [][]byte
	var prevs []byte
	deleted := int64(0)
	a.k.eachAt(s, a.readRev(), 0, func(hit *index.Hit) bool {
		kv := a.read(hit.Loc)
		if kv == nil {
			return false
		}
		keys = append(keys, keyOf(kv))
		if req.PrevKv {
			prevs = appendMessage(prevs, 3<<3|2, kv)
		}
		return true
	})
	for _, k := range keys {
		a.deleteOne(k)
		deleted++
	}
	dst = appendInt(dst, 2<<3, deleted)
	return append(dst, prevs...)
}

// readRev is the revision that reads inside the operation see: its own writes
// included.
func (a *applier) readRev() int64 {
	if a.sub > 0 {
		return a.rev + 1
	}
	return a.rev
}

func (a *applier) runCompact(body []byte) error {
	var req pb.CompactionRequest
	if err := req.UnmarshalVTUnsafe(body); err != nil {
		return err
	}
	switch {
	case req.Revision <= a.k.compactRev.Load():
		return ErrCompacted
	case req.Revision > a.rev:
		return ErrFutureRev
	}
	// The entry's earlier writes are not visible yet, but a reader that starts
	// now must already be refused.
	a.k.compactRev.Store(req.Revision)
	a.e.compactor.start(a.e, req.Revision)
	return nil
}

func (a *applier) runAlarm(body []byte) error {
	var req pb.AlarmRequest
	if err := req.UnmarshalVT(body); err != nil {
		return err
	}
	changed := false
	switch req.Action {
	case pb.AlarmRequest_GET:
		for _, m := range a.e.alarms.list(req.Alarm) {
			a.appendAlarm(m.MemberID, m.Alarm)
		}
		return nil
	case pb.AlarmRequest_ACTIVATE:
		if req.Alarm == pb.AlarmType_NONE {
			return nil
		}
		changed = a.e.alarms.set(req.MemberID, req.Alarm)
		if changed {
			a.e.log.Warn("alarm raised", zap.String("alarm", req.Alarm.String()), zap.String("member-id", hexID(req.MemberID)))
		}
		a.appendAlarm(req.MemberID, req.Alarm)
	case pb.AlarmRequest_DEACTIVATE:
		if changed = a.e.alarms.clear(req.MemberID, req.Alarm); changed {
			a.e.log.Warn("alarm disarmed", zap.String("alarm", req.Alarm.String()), zap.String("member-id", hexID(req.MemberID)))
			a.appendAlarm(req.MemberID, req.Alarm)
		}
	}
	return nil
}

func hexID(id uint64) string { return strings.ToLower(fmt.Sprintf("%x", id)) }

func (a *applier) appendAlarm(member uint64, t pb.AlarmType) {
	m := appendUint(nil, 1<<3, member)
	m = appendInt(m, 2<<3, int64(t))
	a.body = appendMessage(a.body, 2<<3|2, m)
}

// ApplyConfChange carries out a membership change and returns the membership
// that holds from here on, nil if the change is refused.
func (e *Engine) ApplyConfChange(index, term uint64, data []byte, w interface{ Dropped(error) }) (confState []byte) {
	e.writer.Lock()
	if e.ap.broken != nil {
		e.writer.Unlock()
		dropAll([]interface{ Dropped(error) }{w})
		return nil
	}
	cc, err := DecodeConfChange(data)
	if err == nil {
		err = e.cluster.apply(cc)
	}
	e.ap.index, e.ap.term = index, term
	e.ap.entries++
	e.ap.roll.record(data)
	e.ap.roll.operation(0, e.ap.rev, err != nil)
	e.ap.roll.mark(index, e.ap.rev)
	e.applied.Store(index)
	e.term.Store(term)
	e.writer.Unlock()
	if err == nil {
		confState = e.cluster.confState()
		e.logConfChange(cc)
	}
	if ew, ok := w.(Waiter); ok {
		ew.Applied(&Reply{Revision: e.Revision(), Err: err})
	}
	return confState
}

// logConfChange says what has happened to a member, in etcd's words.
func (e *Engine) logConfChange(cc *ConfChange) {
	what := map[uint64]string{confAddVoter: "added member", confAddLearner: "added member", confRemove: "removed member", confUpdate: "updated member"}[cc.Kind]
	fields := []zap.Field{zap.String("cluster-id", hexID(e.opts.ClusterID)), zap.String("local-member-id", hexID(e.opts.MemberID)),
		zap.String("member-id", hexID(cc.Node))}
	if m := cc.Member; m != nil {
		fields = append(fields, zap.Strings("peer-urls", m.PeerURLs), zap.Bool("is-learner", m.IsLearner))
	} else if cc.Kind == confAddVoter {
		what = "promote member"
	}
	e.log.Info(what, fields...)
}

// LeaderChanged starts or stops what only the leader does.
func (e *Engine) LeaderChanged(lead, term uint64, isLeader bool) {
	e.leader.change(e, term, isLeader)
}
