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

// TestConcurrentRestore hands a member one snapshot after the other while
// everything else goes on there and at the source: reads at every revision,
// history, leases, hashes, checkpoints, compaction, reclaim, offers. Each entry
// writes the same number to every key of a group in one revision, so that a
// reader can tell a torn state, and who follows the history misses nothing and
// never goes back.
func TestConcurrentRestore(t *testing.T) {
	const group = 100
	open := func(id uint64) *Engine {
		dir, err := disk.OpenDir(t.TempDir(), disk.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		e, err := Open(dir, Options{ClusterID: 1, MemberID: id, QuotaBytes: -1, CheckpointBytes: 128 << 10, CompactionBatch: 64,
			Members: []*pb.Member{{ID: 1}, {ID: 2, PeerURLs: []string{"http://b"}}}, ReclaimBytesPerSecond: -1,
			Pages:   pagestore.Options{SegmentBytes: 128 << 10, PageBytes: 4 << 10, CacheBytes: 64 << 10},
			OnFatal: func(err error) { t.Errorf("fatal: %v", err) }})
		if err != nil {
			t.Fatal(err)
		}
		e.Start()
		return e
	}
	lead, to := open(1), open(2)
	const enough = 6
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
	n := 0
	run(func(rnd *rand.Rand) {
		n++
		apply := func(kind OpKind, m vtMessage) {
			o := op(t, kind, m)
			lead.Apply(lead.AppliedIndex()+1, 1, append(binary.AppendUvarint(nil, uint64(len(o))), o...), nil)
		}
		txn := new(pb.TxnRequest)
		for i := range group {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
				Key: fmt.Appendf(nil, "g/%04d", i), Value: fmt.Appendf(nil, "%d-%0*d", n, rnd.IntN(60), 0)}}})
		}
		apply(OpTxn, txn)
		apply(OpLeaseGrant, &pb.LeaseGrantRequest{ID: int64(n), TTL: 100})
		apply(OpPut, &pb.PutRequest{Key: []byte("leased"), Lease: int64(n)})
		if n%20 == 0 {
			apply(OpCompact, &pb.CompactionRequest{Revision: lead.Revision() - 15})
		}
	})
	restores := 0
	run(func(rnd *rand.Rand) {
		if restoreNext(t, rnd, lead, to) {
			if restores++; restores == enough {
				cancel()
			}
		}
	})
	for range 2 {
		run(func(rnd *rand.Rand) { readSnapshot(t, to, rnd, group) })
	}
	var reached atomic.Int64
	reached.Store(1)
	run(func(*rand.Rand) { followEvents(t, to, &reached, group) })
	run(func(rnd *rand.Rand) {
		for _, id := range to.Leases() {
			if in := to.lessor.info(id, true); in.GrantedTTL != 0 && in.GrantedTTL != 100 {
				t.Errorf("lease %d: %+v", id, in)
			}
		}
		if n := len(to.Members()); n != 2 || len(to.Alarms()) != 0 {
			t.Errorf("%d members", n)
		}
		if _, _, _, err := to.HashKV(0); err != nil && !errors.Is(err, ErrCompacted) {
			t.Errorf("hash: %v", err)
		}
	})
	run(func(rnd *rand.Rand) {
		if err := to.Checkpoint(); err != nil {
			t.Errorf("checkpoint: %v", err)
		}
		if err := to.Defragment(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("defragment: %v", err)
		}
	})
	wg.Wait()
	if restores < enough {
		t.Errorf("%d snapshots taken over", restores)
	}
	t.Logf("%d snapshots taken over, revision %d", restores, to.Revision())
	if err := errors.Join(to.Close(), lead.Close()); err != nil {
		t.Fatal(err)
	}
}

// restoreNext is the follower's apply goroutine: it lives from snapshots alone.
func restoreNext(t *testing.T, rnd *rand.Rand, lead, to *Engine) bool {
	index, term, conf, ok := lead.Transfers().Offer(to.AppliedIndex() + 1 + rnd.Uint64N(20))
	if !ok {
		time.Sleep(time.Millisecond)
		return false
	}
	s := lead.Transfers()
	defer s.Release(index, term)
	manifest, err := s.Manifest(index, term)
	if err == nil {
		err = to.Transfers().Stage(context.Background(), index, term, manifest, func(blob uint32, p []byte, off int64) (int, error) {
			return s.ReadAt(index, term, blob, p, off)
		})
	}
	if err == nil {
		err = to.Restore(index, term, conf)
	}
	if err != nil {
		t.Errorf("snapshot %d: %v", index, err)
	}
	return true
}

// followEvents reads on from where it was, as a watcher does.
func followEvents(t *testing.T, e *Engine, reached *atomic.Int64, group int) {
	from := reached.Load() + 1
	compact, rev := e.Bounds()
	if rev < from-1 {
		t.Errorf("revision goes back from %d to %d", from-1, rev)
	}
	if compact > from {
		reached.Store(compact - 1) // a watcher is cancelled with it
		return
	}
	evs, next, err := e.Events(nil, from, 64<<10, true)
	if errors.Is(err, ErrCompacted) {
		return
	}
	if err != nil {
		t.Errorf("events from %d: %v", from, err)
		return
	}
	at, sub := from-1, int32(0)
	for i := range evs {
		switch ev := &evs[i]; {
		case ev.Main == at && ev.Sub == sub+1:
		case ev.Main == at+1 && ev.Sub == 0:
		default:
			t.Errorf("event %d.%d follows %d.%d", ev.Main, ev.Sub, at, sub)
		}
		at, sub = evs[i].Main, evs[i].Sub
	}
	if at != next-1 {
		t.Errorf("events from %d end at %d, not at %d", from, at, next-1)
	}
	reached.Store(next - 1)
}
