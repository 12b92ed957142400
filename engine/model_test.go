package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"google.golang.org/protobuf/proto"

	"encoding/binary"

	"quire/api/mvccpb"
	"quire/disk"
	"quire/pagestore"

	pb "quire/api/etcdserverpb"
)

var (
	seedFlag  = flag.Uint64("engine.seed", 0, "run only this seed")
	seedsFlag = flag.Int("engine.seeds", 60, "how many seeds the random tests run")
)

// forSeeds runs fn over seeds and names the failing one.
func forSeeds(t *testing.T, fn func(t *testing.T, seed uint64)) {
	t.Helper()
	if *seedFlag != 0 {
		fn(t, *seedFlag)
		return
	}
	for s := 1; s <= *seedsFlag && !t.Failed(); s++ {
		fn(t, uint64(s))
		if t.Failed() {
			t.Logf("replay: go test ./engine -run '%s' -engine.seed=%d", t.Name(), s)
		}
	}
}

// model is the deliberately simple state machine: every revision's whole state
// is kept.
type model struct {
	rev, compact int64
	states       map[int64]map[string]*mvccpb.KeyValue
	events       map[int64][]*mvccpb.Event
	leases       map[int64]bool
}

func newModel() *model {
	return &model{rev: 1, compact: -1, states: map[int64]map[string]*mvccpb.KeyValue{1: {}}, events: map[int64][]*mvccpb.Event{}, leases: map[int64]bool{}}
}

// write is one revision in the making.
type write struct {
	m     *model
	state map[string]*mvccpb.KeyValue
	evs   []*mvccpb.Event
}

func (m *model) begin() *write {
	w := &write{m: m, state: map[string]*mvccpb.KeyValue{}}
	for k, v := range m.states[m.rev] {
		w.state[k] = v
	}
	return w
}

func (w *write) end() {
	if len(w.evs) > 0 {
		w.m.rev++
		w.m.states[w.m.rev] = w.state
		w.m.events[w.m.rev] = w.evs
	}
}

func (w *write) put(r *pb.PutRequest) *mvccpb.KeyValue {
	prev := w.state[string(r.Key)]
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, ModRevision: w.m.rev + 1, CreateRevision: w.m.rev + 1, Version: 1}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		if r.IgnoreValue {
			kv.Value = prev.Value
		}
		if r.IgnoreLease {
			kv.Lease = prev.Lease
		}
	}
	w.state[string(r.Key)] = kv
	w.evs = append(w.evs, &mvccpb.Event{Kv: kv, PrevKv: prev})
	return prev
}

func (w *write) del(key, end []byte) (prevs []*mvccpb.KeyValue) {
	for _, kv := range inRange(w.state, key, end) {
		delete(w.state, string(kv.Key))
		prevs = append(prevs, kv)
		w.evs = append(w.evs, &mvccpb.Event{Type: mvccpb.Event_DELETE, PrevKv: kv,
			Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: w.m.rev + 1}})
	}
	return prevs
}

func (m *model) checkPut(state map[string]*mvccpb.KeyValue, r *pb.PutRequest) error {
	if r.Lease != 0 && !m.leases[r.Lease] {
		return ErrLeaseNotFound
	}
	if (r.IgnoreValue || r.IgnoreLease) && state[string(r.Key)] == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (m *model) revoke(id int64) error {
	if !m.leases[id] {
		return ErrLeaseNotFound
	}
	w := m.begin()
	for _, kv := range inRange(w.state, []byte{0}, []byte{0}) {
		if kv.Lease == id {
			w.del(kv.Key, nil)
		}
	}
	w.end()
	delete(m.leases, id)
	return nil
}

func inRange(state map[string]*mvccpb.KeyValue, key, end []byte) (kvs []*mvccpb.KeyValue) {
	for k, kv := range state {
		switch {
		case len(end) == 0 && k != string(key),
			len(end) > 0 && k < string(key),
			len(end) > 0 && !bytes.Equal(end, []byte{0}) && k >= string(end):
		default:
			kvs = append(kvs, kv)
		}
	}
	sort.Slice(kvs, func(i, j int) bool { return bytes.Compare(kvs[i].Key, kvs[j].Key) < 0 })
	return kvs
}

func (m *model) rangeAt(r *pb.RangeRequest, rev int64) (*pb.RangeResponse, error) {
	at := r.Revision
	if at > rev {
		return nil, ErrFutureRev
	}
	if at <= 0 {
		at = rev
	}
	if at < m.compact {
		return nil, ErrCompacted
	}
	kvs := inRange(m.states[at], r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Count: int64(len(kvs))}
	if r.CountOnly {
		return resp, nil
	}
	kept := kvs[:0]
	for _, kv := range kvs {
		if (r.MinModRevision == 0 || kv.ModRevision >= r.MinModRevision) && (r.MaxModRevision == 0 || kv.ModRevision <= r.MaxModRevision) &&
			(r.MinCreateRevision == 0 || kv.CreateRevision >= r.MinCreateRevision) && (r.MaxCreateRevision == 0 || kv.CreateRevision <= r.MaxCreateRevision) {
			kept = append(kept, kv)
		}
	}
	less := map[pb.RangeRequest_SortTarget]func(a, b *mvccpb.KeyValue) int{
		pb.RangeRequest_KEY:     func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) },
		pb.RangeRequest_MOD:     func(a, b *mvccpb.KeyValue) int { return int(a.ModRevision - b.ModRevision) },
		pb.RangeRequest_CREATE:  func(a, b *mvccpb.KeyValue) int { return int(a.CreateRevision - b.CreateRevision) },
		pb.RangeRequest_VERSION: func(a, b *mvccpb.KeyValue) int { return int(a.Version - b.Version) },
		pb.RangeRequest_VALUE:   func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) },
	}[r.SortTarget]
	sort.SliceStable(kept, func(i, j int) bool {
		if r.SortOrder == pb.RangeRequest_DESCEND {
			return less(kept[i], kept[j]) > 0
		}
		return less(kept[i], kept[j]) < 0
	})
	if r.Limit > 0 && int64(len(kept)) > r.Limit {
		kept, resp.More = kept[:r.Limit], true
	}
	for _, kv := range kept {
		if r.KeysOnly {
			kv = kv.CloneVT()
			kv.Value, kv.Lease = nil, 0
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

// rig drives an engine as the consensus room would: it keeps the log since the
// last checkpoint and replays it after a crash.
type rig struct {
	t      testing.TB
	fs     *disk.Mem
	e      *Engine
	index  uint64
	log    map[uint64][]byte
	events []Event
	prev   bool
	quiet  bool // a fatal error is expected
	id     uint64
	member []*pb.Member
	clock  func() int64
	onRev  func(int64) // a snapshot was taken over
	snaps  string      // directory for snapshots
}

func (r *rig) Publish(evs []Event, _ int64) { r.events = append(r.events, evs...) }
func (r *rig) Restored(rev int64) {
	if r.onRev != nil {
		r.onRev(rev)
	}
}
func (r *rig) WantsPrev() bool { return r.prev }

func newRig(t testing.TB, seed uint64) *rig {
	r := &rig{t: t, fs: disk.NewMem(seed), log: map[uint64][]byte{}, index: 1, prev: true, snaps: t.TempDir()}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	e, err := Open(r.fs, r.options())
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.e = e
	r.replay()
}

func (r *rig) options() Options {
	if r.id == 0 {
		r.id, r.member = 9, []*pb.Member{{ID: 9, PeerURLs: []string{"http://a"}}}
	}
	return Options{ClusterID: 7, MemberID: r.id, Publisher: r, QuotaBytes: -1, Members: r.member, Now: r.clock,
		Pages:   pagestore.Options{SegmentBytes: 64 << 10, PageBytes: 4 << 10, Inline: true},
		OnFatal: r.fatal, SnapshotDir: r.snaps}
}

// replay applies what the log has behind the checkpoint.
func (r *rig) replay() {
	r.t.Helper()
	e := r.e
	if a := e.AppliedIndex(); a > r.index {
		r.t.Fatalf("applied index %d is beyond the log's end %d", a, r.index)
	}
	for i := max(e.AppliedIndex(), 1) + 1; i <= r.index; i++ {
		if r.log[i] == nil {
			r.t.Fatalf("checkpoint at %d needs entry %d, which was trimmed", e.AppliedIndex(), i)
		}
		e.Apply(i, 1, r.log[i], nil)
	}
}

func (r *rig) fatal(err error) {
	if !r.quiet {
		r.t.Errorf("fatal: %v", err)
	}
}

func (r *rig) crash() {
	if err := r.e.Abandon(); err != nil {
		r.t.Fatal(err)
	}
	r.events = nil
	r.open()
	r.events = nil
}

type testWaiter struct{ r Reply }

func (w *testWaiter) Applied(r *Reply) {
	w.r = *r
	w.r.Body = append([]byte(nil), r.Body...)
}
func (w *testWaiter) Dropped(err error) { w.r.Err = err }

// apply runs operations as one entry.
func (r *rig) apply(ops ...[]byte) []Reply {
	var data []byte
	var ws []interface{ Dropped(error) }
	for _, op := range ops {
		data = append(binary.AppendUvarint(data, uint64(len(op))), op...)
		ws = append(ws, new(testWaiter))
	}
	r.index++
	r.log[r.index] = data
	r.e.Apply(r.index, 1, data, ws)
	out := make([]Reply, len(ws))
	for i := range ws {
		out[i] = ws[i].(*testWaiter).r
	}
	return out
}

type vtMessage interface{ MarshalVT() ([]byte, error) }

func op(t testing.TB, kind OpKind, m vtMessage) []byte {
	b, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return AppendOp(nil, kind, b)
}

// checkReply compares a reply with what the model says.
func checkReply(t *testing.T, what string, r Reply, rev int64, want interface {
	proto.Message
	UnmarshalVT([]byte) error
}, wantErr error) {
	t.Helper()
	if !errors.Is(r.Err, wantErr) {
		t.Fatalf("%s: error %v, want %v", what, r.Err, wantErr)
	}
	if wantErr != nil {
		return
	}
	if r.Revision != rev {
		t.Fatalf("%s: revision %d, want %d", what, r.Revision, rev)
	}
	if want == nil {
		return
	}
	got := proto.Clone(want)
	proto.Reset(got)
	if err := got.(interface{ UnmarshalVT([]byte) error }).UnmarshalVT(r.Body); err != nil {
		t.Fatalf("%s: body: %v", what, err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func randKey(r *rand.Rand) []byte { return fmt.Appendf(nil, "k%02d", r.IntN(24)) }

func randSpan(r *rand.Rand) (key, end []byte) {
	switch r.IntN(6) {
	case 0, 1:
		return randKey(r), nil
	case 2:
		return []byte{0}, []byte{0}
	case 3:
		return randKey(r), []byte{0}
	}
	return randKey(r), randKey(r)
}

func randPut(r *rand.Rand) *pb.PutRequest {
	p := &pb.PutRequest{Key: randKey(r), PrevKv: r.IntN(3) == 0}
	if r.IntN(8) == 0 {
		p.IgnoreValue = true
	} else if n := r.IntN(40); n > 2 {
		p.Value = bytes.Repeat([]byte{byte('a' + r.IntN(26))}, n*n*n/20)
	}
	switch r.IntN(6) {
	case 0:
		p.Lease = int64(1 + r.IntN(5))
	case 1:
		p.IgnoreLease = true
	}
	return p
}

func randRange(r *rand.Rand, rev int64) *pb.RangeRequest {
	q := &pb.RangeRequest{KeysOnly: r.IntN(5) == 0, CountOnly: r.IntN(5) == 0}
	q.Key, q.RangeEnd = randSpan(r)
	if r.IntN(2) == 0 {
		q.Limit = int64(r.IntN(8))
	}
	if r.IntN(2) == 0 {
		q.Revision = r.Int64N(rev + 3)
	}
	switch r.IntN(6) {
	case 0:
		q.SortOrder, q.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_KEY
	case 1: // mod revisions differ, or the order of equals is open
		q.SortOrder, q.SortTarget = pb.RangeRequest_SortOrder(r.IntN(3)), pb.RangeRequest_KEY
	case 2:
		q.MinModRevision, q.MaxCreateRevision = r.Int64N(rev+1), r.Int64N(rev+1)
	case 3:
		q.MaxModRevision, q.MinCreateRevision = r.Int64N(rev+1), r.Int64N(rev+1)
	}
	return q
}
