package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quire/disk"
	"quire/pagestore"

	pb "quire/api/etcdserverpb"
)

// TestConcurrent lets everything run at once on a real directory: entries,
// readers of the newest and of old revisions, history, compactions, reclaim,
// checkpoints, defragmentation. Each entry writes the same number to every key
// of one group in one revision, so a reader can tell a torn snapshot.
func TestConcurrent(t *testing.T) {
	dir, err := disk.OpenDir(t.TempDir(), disk.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, err := Open(dir, Options{ClusterID: 1, MemberID: 1, QuotaBytes: -1, CheckpointBytes: 256 << 10, CompactionBatch: 64,
		ReclaimBytesPerSecond: -1, Pages: pagestore.Options{SegmentBytes: 256 << 10, PageBytes: 4 << 10, CacheBytes: 64 << 10},
		OnFatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	run := func(fn func(rnd *rand.Rand)) {
		seed := uint64(time.Now().UnixNano())
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, 1))
			for ctx.Err() == nil && !t.Failed() {
				fn(rnd)
			}
		}()
	}
	var index atomic.Uint64
	apply := func(kind OpKind, m vtMessage) {
		o := op(t, kind, m)
		data := append(binary.AppendUvarint(nil, uint64(len(o))), o...)
		e.Apply(index.Add(1), 1, data, nil)
	}
	const group = 300 // more than one chunk of the index
	n := 0
	run(func(rnd *rand.Rand) { // the apply goroutine
		n++
		txn := new(pb.TxnRequest)
		for i := range group {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
				Key: fmt.Appendf(nil, "g/%04d", i), Value: fmt.Appendf(nil, "%d-%0*d", n, rnd.IntN(60), 0)}}})
		}
		apply(OpTxn, txn)
		if n%10 == 0 && e.Revision() > 12 {
			apply(OpCompact, &pb.CompactionRequest{Revision: e.Revision() - 10})
		}
		if n%7 == 0 {
			apply(OpPut, &pb.PutRequest{Key: []byte("other"), Value: make([]byte, 20<<10)})
			apply(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("other")})
		}
	})
	for range 2 {
		run(func(rnd *rand.Rand) { readSnapshot(t, e, rnd, group) })
	}
	run(func(rnd *rand.Rand) { readEvents(t, e, group) })
	run(func(*rand.Rand) {
		if err := e.Defragment(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("defragment: %v", err)
		}
		if _, _, _, err := e.HashKV(0); err != nil && !errors.Is(err, ErrCompacted) {
			t.Errorf("hash: %v", err)
		}
	})
	wg.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// readSnapshot reads the group, of now or of an earlier revision: all of one write.
func readSnapshot(t *testing.T, e *Engine, rnd *rand.Rand, group int) {
	req := &pb.RangeRequest{Key: []byte("g/"), RangeEnd: []byte("g0")}
	if rnd.IntN(2) == 0 {
		req.Revision = max(e.Revision()-rnd.Int64N(20), 1)
	}
	body, _, err := e.Range(req, nil)
	if errors.Is(err, ErrCompacted) && req.Revision > 0 {
		return
	}
	resp := new(pb.RangeResponse)
	if err == nil {
		err = resp.UnmarshalVT(body)
	}
	if err != nil {
		t.Errorf("range %v: %v", req, err)
		return
	}
	if len(resp.Kvs) != 0 && len(resp.Kvs) != group {
		t.Errorf("range %v: %d keys", req, len(resp.Kvs))
		return
	}
	for _, kv := range resp.Kvs {
		if kv.ModRevision != resp.Kvs[0].ModRevision {
			t.Errorf("range %v: revisions %d and %d in one snapshot", req, resp.Kvs[0].ModRevision, kv.ModRevision)
			return
		}
	}
}

// readEvents reads the history that is left: whole revisions in order.
func readEvents(t *testing.T, e *Engine, group int) {
	from, rev := e.Bounds()
	from = max(from, 2)
	for from <= rev {
		evs, next, err := e.Events(nil, from, 64<<10, true)
		if errors.Is(err, ErrCompacted) {
			return
		}
		if err != nil {
			t.Errorf("events from %d: %v", from, err)
			return
		}
		for i := range evs {
			if i > 0 && evs[i].Main == evs[i-1].Main && evs[i].Sub != evs[i-1].Sub+1 {
				t.Errorf("event %d.%d follows %d.%d", evs[i].Main, evs[i].Sub, evs[i-1].Main, evs[i-1].Sub)
			}
		}
		if n := len(evs); n > 0 && string(evs[n-1].Key[:2]) == "g/" && evs[n-1].Sub != int32(group-1) {
			t.Errorf("revision %d is cut at %d", evs[n-1].Main, evs[n-1].Sub)
		}
		from = next
	}
}
