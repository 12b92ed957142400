package rpc

import (
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// k8sUpdate is the transaction with which Kubernetes updates an object.
func k8sUpdate(value int) []byte {
	key := []byte("/registry/pods/default/some-pod-name")
	b, err := (&pb.TxnRequest{
		Compare: []*pb.Compare{{Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: 123456}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, value), Lease: 77}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}).MarshalVT()
	must(err)
	return b
}

func TestScansTakeTheCommonShapes(t *testing.T) {
	if cost, ok := scanTxn(k8sUpdate(100), 128); !ok || cost != kvCost+36+100 {
		t.Errorf("a Kubernetes update is decoded: cost %d, %v", cost, ok)
	}
}

// decodedPut and decodedTxn are what the decoding path says.
func decodedPut(msg []byte) (cost int, ok bool) {
	var r pb.PutRequest
	if proto.Unmarshal(msg, &r) != nil || checkPut(&r) != nil {
		return 0, false
	}
	return costPut(&r), true
}

func decodedTxn(msg []byte, maxOps int) (cost int, ok bool) {
	var r pb.TxnRequest
	if proto.Unmarshal(msg, &r) != nil || checkTxn(&r, maxOps) != nil || checkOverlaps(&r) != nil {
		return 0, false
	}
	readOnly, _ := classifyTxn(&r)
	return costTxn(&r), !readOnly
}

// known forgets the unknown fields of m and of what is in it.
func known(m proto.Message) {
	b, err := proto.Marshal(m)
	must(err)
	must((proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m))
}

// FuzzScan: whatever a scan accepts, decoding accepts, at the same cost; and
// what decoding gives is what etcd's protobuf library gives, here and in the
// engine.
func FuzzScan(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	f.Add(k8sUpdate(3))
	f.Add(putBytes(f, "k", "v"))
	f.Add([]byte{0x0a, 1, 'k', 0x0a, 0, 0x0a, 1, 'k', 0x28, 1})
	for range 30 {
		b, _ := (&pb.TxnRequest{Success: randomOps(r, 1), Failure: randomOps(r, 0)}).MarshalVT()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if cost, ok := scanPut(msg); ok {
			if want, valid := decodedPut(msg); !valid || cost != want {
				t.Errorf("put %x: scan accepts at cost %d, decoding says %d, %v", msg, cost, want, valid)
			}
		}
		if cost, ok := scanTxn(msg, 4); ok {
			if want, valid := decodedTxn(msg, 4); !valid || cost != want {
				t.Errorf("txn %x: scan accepts at cost %d, decoding says %d, %v", msg, cost, want, valid)
			}
		}
		var scanned, decoded pb.RangeRequest
		if scanRangeInto(&scanned, msg) {
			if proto.Unmarshal(msg, &decoded) != nil || !proto.Equal(&scanned, &decoded) {
				t.Errorf("range %x: scan says %v, decoding %v", msg, &scanned, &decoded)
			}
		}
		for _, r := range []struct {
			library, ours, again request
			check                func([]byte) error
		}{
			{&pb.PutRequest{}, &pb.PutRequest{}, &pb.PutRequest{}, wellFormed},
			{&pb.RangeRequest{}, &pb.RangeRequest{}, &pb.RangeRequest{}, wellFormed},
			{&pb.TxnRequest{}, &pb.TxnRequest{}, &pb.TxnRequest{}, wellFormedTxn},
			{&pb.LeaseGrantRequest{}, &pb.LeaseGrantRequest{}, &pb.LeaseGrantRequest{}, func([]byte) error { return errNotWellFormed }},
		} {
			wire := slices.Clone(msg)
			err := proto.Unmarshal(msg, r.library)
			if ours := decodeChecked(&wire, r.ours, r.check); (ours == nil) != (err == nil) {
				t.Errorf("%T %x: library says %v, we %v", r.ours, msg, err, ours)
			}
			if err != nil {
				continue
			}
			if err := r.again.UnmarshalVTUnsafe(wire); err != nil {
				t.Errorf("%T %x: the engine cannot read %x: %v", r.ours, msg, wire, err)
			}
			known(r.library)
			for _, m := range []request{r.ours, r.again} {
				if known(m); !proto.Equal(m, r.library) {
					t.Errorf("%T %x: library reads %v, we %v", m, msg, r.library, m)
				}
			}
		}
		if scanDelete(msg) {
			var r pb.DeleteRangeRequest
			if proto.Unmarshal(msg, &r) != nil || checkDelete(&r) != nil {
				t.Errorf("delete %x: scan accepts", msg)
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	put, txn := putBytes(b, "/registry/pods/default/some-pod-name", string(make([]byte, 256))), k8sUpdate(256)
	var p pb.PutRequest
	var x pb.TxnRequest
	var r pb.RangeRequest
	rng, err := (&pb.RangeRequest{Key: []byte("/registry/pods/default/some-pod-name"), Limit: 1}).MarshalVT()
	must(err)
	for _, bm := range []struct {
		name string
		do   func() bool
	}{
		{"put/scan", func() bool { _, ok := scanPut(put); return ok }},
		{"put/decode", func() bool { p.Reset(); return p.UnmarshalVTUnsafe(put) == nil && checkPut(&p) == nil }},
		{"range/scan", func() bool { r.Reset(); return scanRangeInto(&r, rng) }},
		{"range/decode", func() bool { r.Reset(); return r.UnmarshalVTUnsafe(rng) == nil }},
		{"txn/scan", func() bool { _, ok := scanTxn(txn, 128); return ok }},
		{"txn/decode", func() bool {
			x.Reset()
			return x.UnmarshalVTUnsafe(txn) == nil && checkTxn(&x, 128) == nil && checkOverlaps(&x) == nil
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bm.do() {
					b.Fatal("refused")
				}
			}
		})
	}
}

// instantRaft applies nothing, at once.
type instantRaft struct{ reply engine.Reply }

func (r *instantRaft) Enqueue(w interface{ Dropped(error) }, _, _ []byte) error {
	w.(engine.Waiter).Applied(&r.reply)
	return nil
}
func (*instantRaft) Kick()                     {}
func (*instantRaft) ReadIndex(ReadWaiter) bool { return true }

// BenchmarkCall is a whole unary call without a transport.
func BenchmarkCall(b *testing.B) {
	s := newTestServer(b, newFake(), func(c *Config) { c.Raft = &instantRaft{engine.Reply{Revision: 5}} })
	for name, req := range map[string][]byte{putMethod: putBytes(b, "key", string(make([]byte, 256))), "/etcdserverpb.KV/Txn": k8sUpdate(256)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Invoke(b.Context(), name, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
