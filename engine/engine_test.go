package engine

import (
	"errors"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/api/mvccpb"

	pb "quire/api/etcdserverpb"
)

// TestModel runs random operations against the simple model, with compactions,
// checkpoints and crashes in between, and compares every reply, reads at every
// kind of revision, the events, and the history read back.
func TestModel(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r, m := newRig(t, seed), newModel()
		for i := 0; i < 250 && !t.Failed(); i++ {
			step(t, rnd, r, m)
		}
		checkHistory(t, r, m)
		if err := r.e.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func step(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	before := m.rev
	r.events = nil
	switch n := rnd.IntN(100); {
	case n < 40:
		stepPut(t, rnd, r, m)
	case n < 52:
		stepDelete(t, rnd, r, m)
	case n < 70:
		stepTxn(t, rnd, r, m)
	case n < 80:
		stepLease(t, rnd, r, m)
	case n < 84:
		stepCompact(t, rnd, r, m)
	case n < 87:
		if err := r.e.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	case n < 90:
		r.crash()
	}
	if m.rev > before {
		checkEvents(t, r.events, m, before+1)
	}
	for range 3 {
		checkRange(t, rnd, r, m)
	}
}

func checkRange(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	t.Helper()
	q := randRange(rnd, m.rev)
	want, wantErr := m.rangeAt(q, m.rev)
	body, rev, err := r.e.Range(q, nil)
	checkReply(t, "range "+q.String(), Reply{Revision: rev, Body: body, Err: err}, m.rev, want, wantErr)
	if q.SortOrder != 0 || revisionFilters(q) {
		return
	}
	c, got := r.e.RangeStream(q, 64), new(pb.RangeResponse)
	for done := false; !done; {
		var b []byte
		if b, rev, done, err = c.Next(nil); err != nil {
			break
		}
		if uerr := got.UnmarshalVT(b); uerr != nil {
			t.Fatal(uerr)
		}
	}
	if !errors.Is(err, wantErr) {
		t.Fatalf("stream %v: error %v, want %v", q, err, wantErr)
	}
	if err == nil && (rev != m.rev || !proto.Equal(got, want)) {
		t.Fatalf("stream %v at %d:\n got %v\nwant %v", q, rev, got, want)
	}
}

func stepPut(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	// Several operations in one entry.
	var ops [][]byte
	var want []*pb.PutResponse
	var errs []error
	var revs []int64
	for range 1 + rnd.IntN(3) {
		p := randPut(rnd)
		if p.IgnoreValue {
			p.Value = nil
		}
		if p.IgnoreLease {
			p.Lease = 0
		}
		ops = append(ops, op(t, OpPut, p))
		w := m.begin()
		err := m.checkPut(w.state, p)
		resp := new(pb.PutResponse)
		if err == nil {
			if prev := w.put(p); p.PrevKv {
				resp.PrevKv = prev
			}
			w.end()
		}
		want, errs, revs = append(want, resp), append(errs, err), append(revs, m.rev)
	}
	for i, rep := range r.apply(ops...) {
		checkReply(t, "put", rep, revs[i], want[i], errs[i])
	}
}

func stepDelete(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	d := &pb.DeleteRangeRequest{PrevKv: rnd.IntN(2) == 0}
	d.Key, d.RangeEnd = randSpan(rnd)
	w := m.begin()
	prevs := w.del(d.Key, d.RangeEnd)
	w.end()
	want := &pb.DeleteRangeResponse{Deleted: int64(len(prevs))}
	if d.PrevKv {
		want.PrevKvs = prevs
	}
	checkReply(t, "delete", r.apply(op(t, OpDeleteRange, d))[0], m.rev, want, nil)
}

func stepLease(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	id := int64(1 + rnd.IntN(5))
	if rnd.IntN(3) > 0 {
		var wantErr error
		if m.leases[id] {
			wantErr = ErrLeaseExists
		}
		m.leases[id] = true
		rep := r.apply(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: 1}))[0]
		checkReply(t, "grant", rep, m.rev, &pb.LeaseGrantResponse{ID: id, TTL: 2}, wantErr)
		return
	}
	if rnd.IntN(2) == 0 {
		// Of the present term it revokes, of another it does nothing.
		term := uint64(1 + rnd.IntN(2))
		if term == 1 {
			for _, l := range []int64{id, id%5 + 1} {
				if err := m.revoke(l); err != nil && !errors.Is(err, ErrLeaseNotFound) {
					t.Fatal(err)
				}
			}
		}
		rep := r.apply(AppendOp(nil, OpLeaseExpire, AppendExpire(nil, term, []int64{id, id%5 + 1})))[0]
		checkReply(t, "expire", rep, m.rev, nil, nil)
		return
	}
	wantErr := m.revoke(id)
	checkReply(t, "revoke", r.apply(op(t, OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: id}))[0], m.rev, nil, wantErr)
}

func stepCompact(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	rev := m.compact + rnd.Int64N(max(m.rev-m.compact, 1)+2) - 0
	var wantErr error
	switch {
	case rev <= m.compact:
		wantErr = ErrCompacted
	case rev > m.rev:
		wantErr = ErrFutureRev
	default:
		m.compact = rev
	}
	checkReply(t, "compact", r.apply(op(t, OpCompact, &pb.CompactionRequest{Revision: rev}))[0], m.rev, nil, wantErr)
	if wantErr == nil && rnd.IntN(2) == 0 {
		r.e.compactTo(rev)
	}
}

// stepTxn runs a transaction with compares, a nested transaction and reads of
// its own writes.
func stepTxn(t *testing.T, rnd *rand.Rand, r *rig, m *model) {
	req := &pb.TxnRequest{}
	for range rnd.IntN(3) {
		req.Compare = append(req.Compare, randCompare(rnd, m))
	}
	free := rnd.Perm(24)
	req.Success, req.Failure = randOps(rnd, m, free[:12], 0), randOps(rnd, m, free[:12], 0)
	if !isWrite(req) {
		body, rev, err := r.e.ReadTxn(req, nil)
		want, _, wantErr := m.txn(req)
		checkReply(t, "read txn", Reply{Revision: rev, Body: body, Err: err}, m.rev, want, wantErr)
		return
	}
	want, w, wantErr := m.txn(req)
	if wantErr == nil {
		w.end()
	}
	checkReply(t, "txn "+req.String(), r.apply(op(t, OpTxn, req))[0], m.rev, want, wantErr)
}

func isWrite(req *pb.TxnRequest) bool {
	for _, o := range append(append([]*pb.RequestOp(nil), req.Success...), req.Failure...) {
		if o.GetRequestRange() == nil {
			return true
		}
	}
	return false
}

func checkEvents(t *testing.T, got []Event, m *model, from int64) {
	t.Helper()
	i := 0
	for rev := from; rev <= m.rev; rev++ {
		for sub, ev := range m.events[rev] {
			if i >= len(got) {
				t.Fatalf("event %d of revision %d is missing", sub, rev)
			}
			checkEvent(t, &got[i], ev, rev, sub, true)
			i++
		}
	}
	if i != len(got) {
		t.Fatalf("%d events too many", len(got)-i)
	}
}

func checkEvent(t *testing.T, g *Event, ev *mvccpb.Event, rev int64, sub int, withPrev bool) {
	t.Helper()
	kv := new(mvccpb.KeyValue)
	if err := kv.UnmarshalVT(g.KV); err != nil {
		t.Fatal(err)
	}
	if g.Main != rev || g.Sub != int32(sub) || g.Delete != (ev.Type == mvccpb.Event_DELETE) || !proto.Equal(kv, ev.Kv) || string(g.Key) != string(ev.Kv.Key) {
		t.Fatalf("event %d.%d: got %+v %v, want %v", rev, sub, g, kv, ev)
	}
	if g.Created != (ev.Kv.Version == 1) {
		t.Fatalf("event %d.%d: created %v", rev, sub, g.Created)
	}
	if g.Prev == nil {
		if withPrev && ev.PrevKv != nil {
			t.Fatalf("event %d.%d lacks its previous value", rev, sub)
		}
		return
	}
	prev := new(mvccpb.KeyValue)
	if err := prev.UnmarshalVT(g.Prev); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(prev, ev.PrevKv) {
		t.Fatalf("event %d.%d: previous %v, want %v", rev, sub, prev, ev.PrevKv)
	}
}

// checkHistory reads all events back.
func checkHistory(t *testing.T, r *rig, m *model) {
	t.Helper()
	if _, _, err := r.e.Events(nil, m.compact-1, 1<<20, true); m.compact > 0 && !errors.Is(err, ErrCompacted) {
		t.Fatalf("history before the compact revision: %v", err)
	}
	from := max(m.compact, 1)
	for next := from; next <= m.rev; {
		evs, n, err := r.e.Events(nil, next, 300, true)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for rev := next; rev < n; rev++ {
			for sub, ev := range m.events[rev] {
				// What the first retained revision replaced is compacted.
				checkEvent(t, &evs[i], ev, rev, sub, rev > m.compact && ev.PrevKv != nil && ev.PrevKv.ModRevision >= m.compact)
				i++
			}
		}
		if i != len(evs) || n <= next {
			t.Fatalf("history %d..%d: %d events, want %d", next, n, len(evs), i)
		}
		next = n
	}
}
