package engine

import (
	"encoding/binary"
	"fmt"
	"testing"

	"quire/disk"

	pb "quire/api/etcdserverpb"
)

// Benchmarks of the engine alone: entries come ready, no log, no network.

type countWaiter struct{ n int }

func (w *countWaiter) Applied(*Reply) { w.n++ }
func (w *countWaiter) Dropped(error)  {}

type benchEngine struct {
	e       *Engine
	index   uint64
	waiters []interface{ Dropped(error) }
	data    []byte
}

func newBench(b *testing.B, pub Publisher) *benchEngine {
	b.Helper()
	dir, err := disk.OpenDir(b.TempDir(), disk.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	e, err := Open(dir, Options{ClusterID: 1, MemberID: 1, QuotaBytes: -1, Publisher: pub})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Abandon(); _ = dir.Close() })
	w := &countWaiter{}
	be := &benchEngine{e: e}
	for range 128 {
		be.waiters = append(be.waiters, w)
	}
	return be
}

// entry applies ops as one log entry of up to 128 operations.
func (be *benchEngine) entry(ops [][]byte) {
	be.data = be.data[:0]
	for _, op := range ops {
		be.data = append(binary.AppendUvarint(be.data, uint64(len(op))), op...)
	}
	be.index++
	be.e.Apply(be.index, 1, be.data, be.waiters[:len(ops)])
}

func benchKey(i int) []byte { return fmt.Appendf(nil, "registry/pods/namespace/%08d", i) }

// fill puts n keys of 32 B with values of 256 B.
func (be *benchEngine) fill(b *testing.B, n int) {
	b.Helper()
	value := make([]byte, 256)
	var ops [][]byte
	for i := range n {
		ops = append(ops, op(b, OpPut, &pb.PutRequest{Key: benchKey(i), Value: value}))
		if len(ops) == 128 || i == n-1 {
			be.entry(ops)
			ops = ops[:0]
		}
	}
}

const benchKeys = 100_000

// run applies b.N operations made by mk, 128 an entry.
func (be *benchEngine) run(b *testing.B, mk func(i int) []byte) {
	pool := make([][]byte, 4096)
	for i := range pool {
		pool[i] = mk(i * 7919 % benchKeys)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += 128 {
		at := i % (len(pool) - 128)
		be.entry(pool[at : at+min(128, b.N-i)])
	}
}

func BenchmarkPut(b *testing.B) {
	be := newBench(b, nil)
	be.fill(b, benchKeys)
	value := make([]byte, 256)
	be.run(b, func(i int) []byte { return op(b, OpPut, &pb.PutRequest{Key: benchKey(i), Value: value}) })
}

// BenchmarkPutWatched adds the events for a publisher.
func BenchmarkPutWatched(b *testing.B) {
	be := newBench(b, discard{})
	be.fill(b, benchKeys)
	value := make([]byte, 256)
	be.run(b, func(i int) []byte { return op(b, OpPut, &pb.PutRequest{Key: benchKey(i), Value: value}) })
}

type discard struct{}

func (discard) Publish([]Event, int64) {}
func (discard) Restored(int64)         {}
func (discard) WantsPrev() bool        { return true }

// BenchmarkTxn is Kubernetes' create: compare, put, and a range in the other
// branch.
func BenchmarkTxn(b *testing.B) {
	be := newBench(b, nil)
	be.fill(b, benchKeys)
	value := make([]byte, 256)
	be.run(b, func(i int) []byte {
		return op(b, OpTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: benchKey(i), Target: pb.Compare_MOD, Result: pb.Compare_GREATER,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: 1}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: benchKey(i), Value: value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: benchKey(i)}}}},
		})
	})
}

func benchRange(b *testing.B, mk func(i int) *pb.RangeRequest) {
	be := newBench(b, nil)
	be.fill(b, benchKeys)
	var dst []byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		var err error
		if dst, _, err = be.e.Range(mk(i*7919%benchKeys), dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRangeOne(b *testing.B) {
	req := new(pb.RangeRequest)
	key := benchKey(0)
	benchRange(b, func(i int) *pb.RangeRequest {
		key = fmt.Appendf(key[:0], "registry/pods/namespace/%08d", i)
		req.Key = key
		return req
	})
}

// BenchmarkList is one page of 500 with the count of 20,000 keys.
func BenchmarkList(b *testing.B) {
	end := benchKey(20_000)
	benchRange(b, func(i int) *pb.RangeRequest {
		return &pb.RangeRequest{Key: benchKey(0), RangeEnd: end, Limit: 500}
	})
}

func BenchmarkCount(b *testing.B) {
	benchRange(b, func(i int) *pb.RangeRequest {
		return &pb.RangeRequest{Key: benchKey(100), RangeEnd: benchKey(20_100), CountOnly: true}
	})
}

// BenchmarkEvents reads history back, as a watcher that starts in the past does.
func BenchmarkEvents(b *testing.B) {
	be := newBench(b, nil)
	be.fill(b, benchKeys)
	var evs []Event
	from := int64(2)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		var err error
		var next int64
		if evs, next, err = be.e.Events(evs[:0], from, 64<<10, false); err != nil {
			b.Fatal(err)
		}
		n += len(evs)
		if from = next; from > be.e.Revision() {
			from = 2
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}
