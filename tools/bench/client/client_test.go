package client

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// wire is upstream's own encoding, which the scanners have to read.
func wire(t *testing.T, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var (
	header = &pb.ResponseHeader{ClusterId: 1<<63 + 5, MemberId: 7, Revision: 1234567, RaftTerm: 3}
	kvs    = []*mvccpb.KeyValue{
		{Key: []byte("a"), Value: []byte("first"), CreateRevision: 5, ModRevision: 9, Version: 2, Lease: 77},
		{Key: []byte("b"), ModRevision: 11},
	}
)

func TestScanners(t *testing.T) {
	var put PutReply
	if err := put.Decode(wire(t, &pb.PutResponse{Header: header, PrevKv: kvs[0]})); err != nil || put.Revision != 1234567 {
		t.Errorf("put: %+v, %v", put, err)
	}
	ranged := &pb.RangeResponse{Header: header, Kvs: kvs, More: true, Count: 40}
	var rng RangeReply
	if err := rng.Decode(wire(t, ranged)); err != nil || rng != (RangeReply{Revision: 1234567, Kvs: 2, Mod: 9, More: true, Count: 40}) {
		t.Errorf("range: %+v, %v", rng, err)
	}
	var txn TxnReply
	lost := &pb.TxnResponse{Header: header, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{ResponseRange: ranged}}}}
	if err := txn.Decode(wire(t, lost)); err != nil || txn != (TxnReply{Revision: 1234567, Mod: 9}) {
		t.Errorf("lost txn: %+v, %v", txn, err)
	}
	won := &pb.TxnResponse{Header: header, Succeeded: true, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}}}
	if err := txn.Decode(wire(t, won)); err != nil || txn != (TxnReply{Revision: 1234567, Succeeded: true}) {
		t.Errorf("won txn: %+v, %v", txn, err)
	}
}

func TestWatchScanner(t *testing.T) {
	var values []string
	w := WatchReply{OnEvent: func(v []byte) { values = append(values, string(v)) }}
	body := wire(t, &pb.WatchResponse{Header: header, WatchId: 6, Events: []*mvccpb.Event{
		{Kv: kvs[0], PrevKv: kvs[1]}, {Type: mvccpb.Event_DELETE, Kv: kvs[1]},
	}})
	if err := w.Decode(body); err != nil {
		t.Fatal(err)
	}
	if w.Revision != 1234567 || w.WatchID != 6 || w.Events != 2 || len(values) != 2 || values[0] != "first" || values[1] != "" {
		t.Errorf("%+v with values %q", w, values)
	}
	body = wire(t, &pb.WatchResponse{WatchId: 6, Canceled: true, CompactRevision: 8, CancelReason: "gone"})
	if err := w.Decode(body); err != nil || !w.Canceled || w.Events != 0 || w.CompactRevision != 8 || w.Reason != "gone" || w.OnEvent == nil {
		t.Errorf("%+v, %v", w, err)
	}
}

// FuzzScanners: no bytes may make a scanner panic, and its errors are
// *ErrReply.
func FuzzScanners(f *testing.F) {
	f.Add([]byte{0x0a, 0x02, 0x18, 0x05})
	f.Add([]byte{0x5a, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, r := range []Reply{&PutReply{}, &RangeReply{}, &TxnReply{}, &WatchReply{OnEvent: func([]byte) {}}} {
			var bad *ErrReply
			if err := r.Decode(body); err != nil && !errors.As(err, &bad) {
				t.Errorf("%T: %v", r, err)
			}
		}
	})
}

func BenchmarkScanPage(b *testing.B) {
	res := &pb.RangeResponse{Header: header, Count: 20000}
	for range 500 {
		res.Kvs = append(res.Kvs, &mvccpb.KeyValue{Key: make([]byte, 32), Value: make([]byte, 256), ModRevision: 1 << 20})
	}
	body, err := proto.Marshal(res)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var r RangeReply
	for b.Loop() {
		if err := r.Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAddresses(t *testing.T) {
	ok := Options{Endpoints: []string{"127.0.0.1:1", "http://localhost:2", "https://[::1]:3"}}
	if got, err := ok.addresses(); err != nil || len(got) != 3 || got[1] != "localhost:2" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"10.1.2.3:2379", "example.org:2379", "127.0.0.1"} {
		if _, err := (Options{Endpoints: []string{bad}}).addresses(); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	if _, err := (Options{Endpoints: []string{"10.1.2.3:2379"}, AllowRemote: true}).addresses(); err != nil {
		t.Error(err)
	}
	if _, err := (Options{}).addresses(); err == nil {
		t.Error("accepted no endpoint")
	}
}
