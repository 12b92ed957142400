package realclient

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Short constructors for wire requests.

func put(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func del(key, end string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func get(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func opPut(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opDel(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func opGet(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func then(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

// kvClient starts a server and returns its bare KV client.
func kvClient(t *testing.T, flags ...string) (context.Context, pb.KVClient) {
	t.Helper()
	s := startServer(t, flags...)
	return s.ctx, s.kv
}

// mustPut puts and returns the new revision.
func mustPut(t *testing.T, kv pb.KVClient, r *pb.PutRequest) int64 {
	t.Helper()
	resp, err := kv.Put(t.Context(), r)
	check(t, err)
	return resp.GetHeader().GetRevision()
}

func mustDel(t *testing.T, kv pb.KVClient, r *pb.DeleteRangeRequest) int64 {
	t.Helper()
	resp, err := kv.DeleteRange(t.Context(), r)
	check(t, err)
	return resp.GetHeader().GetRevision()
}

func mustTxn(t *testing.T, kv pb.KVClient, r *pb.TxnRequest) *pb.TxnResponse {
	t.Helper()
	resp, err := kv.Txn(t.Context(), r)
	check(t, err)
	return resp
}

func mustGet(t *testing.T, kv pb.KVClient, r *pb.RangeRequest) *pb.RangeResponse {
	t.Helper()
	resp, err := kv.Range(t.Context(), r)
	check(t, err)
	return resp
}

func mustCompact(t *testing.T, kv pb.KVClient, rev int64) {
	t.Helper()
	_, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: rev, Physical: true})
	check(t, err)
}
