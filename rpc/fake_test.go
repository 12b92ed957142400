package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
	"quire/engine"
	"quire/engine/auth"
	"quire/rpc/token"
	"quire/watchfanout"
)

// fake is a whole member in memory: raft that applies at once, a store without
// history, leases that never expire. It is as simple as the services permit.
type fake struct {
	mu     sync.Mutex
	rev    int64
	kvs    map[string]*mvccpb.KeyValue
	leases map[int64]int64
	alarms []*pb.AlarmMember
	quota  int64
	size   int64
	status RaftStatus
	hold   bool // proposals and reads wait until flush
	held   []func()
	watch  []*fakeWatch
	ops    []engine.OpKind
	err    error // what Enqueue answers
	compac chan struct{}
	snap   *fakeSnapshot
}

// allRights grants everything; what the real ones refuse is tested with a real
// member.
type allRights struct{}

func (allRights) MayTxn(*auth.Access, *pb.TxnRequest) error { return nil }
func (allRights) MayReadLease(*auth.Access, int64) error    { return nil }
func (allRights) MayWriteLease(*auth.Access, int64) error   { return nil }
func (allRights) MayReadLeases(*auth.Access) error          { return nil }

func newFake() *fake {
	return &fake{
		rev: 1, kvs: map[string]*mvccpb.KeyValue{}, leases: map[int64]int64{},
		quota:  1 << 30,
		size:   4096,
		status: RaftStatus{Lead: 7, Term: 2, Commit: 5, Applied: 5, IsLeader: true},
	}
}

func (f *fake) config() Config {
	return Config{
		ClusterID: 9, MemberID: 7, Version: "3.7.1",
		Raft: f, KV: f, Leases: f, Space: f, Upkeep: f,
		Auth: auth.NewStore(nil), Tokens: token.None{}, Rights: allRights{},
		RaftStatus:   func() RaftStatus { f.mu.Lock(); defer f.mu.Unlock(); return f.status },
		Members:      func() []*pb.Member { return []*pb.Member{{ID: 7, Name: "m", ClientURLs: []string{"http://c:1"}}} },
		OpenRange:    func(r *pb.RangeRequest, chunk int) RangeCursor { return &fakeCursor{f: f, req: r} },
		OpenWatch:    f.openWatch,
		MoveLeader:   func(context.Context, uint64) error { return nil },
		OpenSnapshot: f.openSnapshot, Membership: fakeMembership{},
	}
}

func (f *fake) Enqueue(w interface{ Dropped(error) }, head, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	op := slices.Concat(head, body)
	f.ops = append(f.ops, engine.OpKind(op[0]))
	f.held = append(f.held, func() {
		f.mu.Lock()
		r := f.apply(engine.OpKind(op[0]), op[1:])
		f.mu.Unlock()
		w.(engine.Waiter).Applied(&r)
	})
	return nil
}

func (f *fake) Kick() {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if !hold {
		f.flush()
	}
}

// flush lets everything that waits happen, in order.
func (f *fake) flush() {
	f.mu.Lock()
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, do := range held {
		do()
	}
}

func (f *fake) ReadIndex(w ReadWaiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold {
		f.held = append(f.held, func() { w.ReadReady(nil) })
		return false
	}
	return true
}

func (f *fake) apply(kind engine.OpKind, body []byte) engine.Reply {
	switch kind {
	case engine.OpPut:
		var r pb.PutRequest
		must(r.UnmarshalVT(body))
		f.rev++
		prev := f.put(&r)
		resp := pb.PutResponse{}
		if r.PrevKv {
			resp.PrevKv = prev
		}
		return f.reply(&resp)
	case engine.OpDeleteRange:
		var r pb.DeleteRangeRequest
		must(r.UnmarshalVT(body))
		resp := pb.DeleteRangeResponse{}
		for _, kv := range f.find(r.Key, r.RangeEnd) {
			if resp.Deleted == 0 {
				f.rev++
			}
			resp.Deleted++
			delete(f.kvs, string(kv.Key))
			f.publish(&mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: f.rev}})
		}
		return f.reply(&resp)
	case engine.OpTxn:
		var r pb.TxnRequest
		must(r.UnmarshalVT(body))
		f.rev++
		resp := pb.TxnResponse{Succeeded: true}
		for _, op := range r.Success {
			if p := op.GetRequestPut(); p != nil {
				f.put(p)
				resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
			}
		}
		return f.reply(&resp)
	case engine.OpLeaseGrant:
		var r pb.LeaseGrantRequest
		must(r.UnmarshalVT(body))
		if _, ok := f.leases[r.ID]; ok {
			return engine.Reply{Err: engine.ErrLeaseExists}
		}
		f.leases[r.ID] = r.TTL
		return f.reply(&pb.LeaseGrantResponse{ID: r.ID, TTL: r.TTL})
	case engine.OpLeaseRevoke:
		var r pb.LeaseRevokeRequest
		must(r.UnmarshalVT(body))
		if _, ok := f.leases[r.ID]; !ok {
			return engine.Reply{Err: engine.ErrLeaseNotFound}
		}
		delete(f.leases, r.ID)
	case engine.OpAlarm:
		var r pb.AlarmRequest
		must(r.UnmarshalVT(body))
		if r.Action == pb.AlarmRequest_ACTIVATE {
			f.alarms = append(f.alarms, &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm})
		}
		return f.reply(&pb.AlarmResponse{Alarms: f.alarms})
	}
	return engine.Reply{Revision: f.rev}
}

func (f *fake) reply(m message) engine.Reply {
	b, err := appendMessage(nil, m)
	must(err)
	return engine.Reply{Revision: f.rev, Body: b}
}

func (f *fake) put(r *pb.PutRequest) (prev *mvccpb.KeyValue) {
	prev = f.kvs[string(r.Key)]
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: f.rev, ModRevision: f.rev, Version: 1, Lease: r.Lease}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	f.kvs[string(r.Key)] = kv
	f.publish(&mvccpb.Event{Kv: kv})
	return prev
}

func (f *fake) find(key, end []byte) (found []*mvccpb.KeyValue) {
	for _, kv := range f.kvs {
		if bytes.Equal(kv.Key, key) || len(end) > 0 && bytes.Compare(kv.Key, key) >= 0 && (bytes.Equal(end, []byte{0}) || bytes.Compare(kv.Key, end) < 0) {
			found = append(found, kv)
		}
	}
	slices.SortFunc(found, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return found
}

func (f *fake) Revision() int64 { f.mu.Lock(); defer f.mu.Unlock(); return f.rev }

func (f *fake) Range(r *pb.RangeRequest, dst []byte) ([]byte, int64, error) {
	if f.Divergent() {
		return nil, 0, engine.ErrCorrupt
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Revision > f.rev {
		return nil, 0, engine.ErrFutureRev
	}
	kvs := f.find(r.Key, r.RangeEnd)
	resp := pb.RangeResponse{Count: int64(len(kvs)), Kvs: kvs}
	if r.Limit > 0 && int(r.Limit) < len(kvs) {
		resp.Kvs, resp.More = kvs[:r.Limit], true
	}
	b, err := appendMessage(dst, &resp)
	return b, f.rev, err
}

func (f *fake) ReadTxn(r *pb.TxnRequest, dst []byte) ([]byte, int64, error) {
	b, err := appendMessage(dst, &pb.TxnResponse{Succeeded: true})
	return b, f.Revision(), err
}

func (f *fake) AwaitCompacted(ctx context.Context, rev int64) error {
	if f.compac != nil {
		<-f.compac
	}
	return nil
}

// fakeCursor gives one key per chunk.
type fakeCursor struct {
	f   *fake
	req *pb.RangeRequest
	at  int
}

func (c *fakeCursor) Next(dst []byte) ([]byte, int64, bool, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	kvs := c.f.find(c.req.Key, c.req.RangeEnd)
	var resp pb.RangeResponse
	if c.at < len(kvs) {
		resp.Kvs = kvs[c.at : c.at+1]
	}
	c.at++
	if c.at < len(kvs) {
		b, err := appendMessage(dst, &resp)
		return b, 0, false, err
	}
	resp.Count = int64(len(kvs))
	b, err := appendMessage(dst, &resp)
	return b, c.f.rev, true, err
}

func (f *fake) LeaseRenew(_ context.Context, id int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ttl, ok := f.leases[id]
	if !ok {
		return 0, engine.ErrLeaseNotFound
	}
	return ttl, nil
}

func (f *fake) LeaseTimeToLive(ctx context.Context, id int64, withKeys bool) (engine.LeaseInfo, error) {
	ttl, err := f.LeaseRenew(ctx, id)
	info := engine.LeaseInfo{ID: id, TTL: ttl, GrantedTTL: ttl}
	if withKeys {
		info.Keys = [][]byte{[]byte("k")}
	}
	return info, err
}

func (f *fake) Leases() (ids []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.leases {
		ids = append(ids, id)
	}
	return ids
}

func (f *fake) NewLeaseID() int64 { return 4711 }

func (f *fake) DBSize() (int64, int64) { f.mu.Lock(); defer f.mu.Unlock(); return f.size, f.size / 2 }
func (f *fake) Quota() int64           { return f.quota }
func (f *fake) QuotaExceeded(cost int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size+int64(cost) >= f.quota
}

func (f *fake) HasAlarm(t pb.AlarmType) bool {
	return slices.ContainsFunc(f.Alarms(), func(a *pb.AlarmMember) bool { return a.Alarm == t })
}

func (f *fake) Alarms() []*pb.AlarmMember {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.alarms)
}

func (f *fake) Divergent() bool {
	return slices.ContainsFunc(f.Alarms(), func(a *pb.AlarmMember) bool { return a.MemberID == 7 && a.Alarm == pb.AlarmType_CORRUPT })
}

func (f *fake) HashKV(rev int64) (uint32, int64, int64, error) { return 42, -1, f.Revision(), nil }
func (f *fake) Hash() (uint32, int64, error)                   { return 43, f.Revision(), nil }
func (f *fake) Defragment(context.Context) error               { return nil }
func (f *fake) StorageVersion() string                         { return "3.7.0" }
func (f *fake) ClusterVersion() string                         { return "3.7.0" }
func (f *fake) Downgrade() string                              { return "" }

// fakeWatch sends everything to its only watcher.
type fakeWatch struct {
	f     *fake
	ready func()
	queue []*pb.WatchResponse
	busy  bool
}

func (f *fake) openWatch(o watchfanout.StreamOptions) WatchStream {
	w := &fakeWatch{f: f, ready: o.Ready}
	f.mu.Lock()
	f.watch = append(f.watch, w)
	f.mu.Unlock()
	return w
}

// publish is called with mu held.
func (f *fake) publish(ev *mvccpb.Event) {
	for _, w := range f.watch {
		w.queue = append(w.queue, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: f.rev}, Events: []*mvccpb.Event{ev}})
		go w.ready()
	}
}

func (w *fakeWatch) add(r *pb.WatchResponse) error {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if w.busy {
		return watchfanout.ErrBusy
	}
	r.Header = &pb.ResponseHeader{Revision: w.f.rev}
	w.queue = append(w.queue, r)
	go w.ready()
	return nil
}

func (w *fakeWatch) Create(r *pb.WatchCreateRequest) error {
	return w.add(&pb.WatchResponse{Created: true, WatchId: r.WatchId})
}
func (w *fakeWatch) Cancel(id int64) error {
	return w.add(&pb.WatchResponse{Canceled: true, WatchId: id})
}
func (w *fakeWatch) Progress() error { return w.add(&pb.WatchResponse{WatchId: -1}) }

func (w *fakeWatch) Fill(dst []byte) ([]byte, int, bool) {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if len(w.queue) == 0 {
		return dst, 0, false
	}
	r := w.queue[0]
	w.queue = w.queue[1:]
	dst, err := appendMessage(dst, r)
	must(err)
	return dst, len(r.Events), len(w.queue) > 0
}

func (w *fakeWatch) Close() {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.f.watch = slices.DeleteFunc(w.f.watch, func(o *fakeWatch) bool { return o == w })
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(cond func() bool) bool {
	for range 1000 {
		if cond() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// fakeSnapshot is a snapshot in memory that knows whether it was closed.
type fakeSnapshot struct {
	*bytes.Reader
	closed atomic.Bool
}

func (s *fakeSnapshot) SizeBytes() int64 { return s.Size() }
func (s *fakeSnapshot) Close()           { s.closed.Store(true) }

func (f *fake) openSnapshot(context.Context) (SnapshotFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.snap == nil {
		return nil, engine.ErrSnapshotSpace
	}
	return f.snap, nil
}

// fakeMembership echoes what it is asked for.
type fakeMembership struct{}

func (fakeMembership) Add(_ context.Context, urls []string, learner bool) (*pb.Member, []*pb.Member, error) {
	m := &pb.Member{ID: 8, PeerURLs: urls, IsLearner: learner}
	return m, []*pb.Member{{ID: 7}, m}, nil
}

func (fakeMembership) Remove(_ context.Context, id uint64) ([]*pb.Member, error) {
	if id != 7 {
		return nil, engine.ErrMemberNotFound
	}
	return []*pb.Member{{ID: id, Name: "removed"}}, nil
}

func (fakeMembership) Update(_ context.Context, id uint64, urls []string, sound bool) ([]*pb.Member, error) {
	return []*pb.Member{{ID: id, PeerURLs: urls, Name: fmt.Sprint("sound ", sound)}}, nil
}

func (fakeMembership) Promote(_ context.Context, id uint64) ([]*pb.Member, error) {
	return []*pb.Member{{ID: id, Name: "promoted"}}, nil
}

func (fakeMembership) Downgrade(_ context.Context, r *pb.DowngradeRequest) (string, error) {
	if r.Version == "" {
		return "", errors.New("etcdserver: wrong downgrade target version format")
	}
	return r.Version + "!", nil
}
