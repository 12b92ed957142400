package realclient

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

const tooManyOps = "InvalidArgument: etcdserver: too many operations in txn request"

func puts(n int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for i := range n {
		ops = append(ops, opPut(put(string(rune('a'+i)), "v")))
	}
	return ops
}

func compares(t *testing.T, n int) []*pb.Compare {
	var cs []*pb.Compare
	for range n {
		cs = append(cs, compare(t, "mod k = 0"))
	}
	return cs
}

func TestTxnOperationLimit(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	tests := []struct {
		name string
		req  *pb.TxnRequest
		want string
	}{
		{"128 puts", then(puts(128)...), ""},
		{"129 puts", then(puts(129)...), tooManyOps},
		{"129 in the other branch", &pb.TxnRequest{Failure: puts(129)}, tooManyOps},
		{"129 compares", &pb.TxnRequest{Compare: compares(t, 129)}, tooManyOps},
		{"128 of each", &pb.TxnRequest{Compare: compares(t, 128), Success: puts(128), Failure: puts(128)}, ""},
		{"an inner txn counts what the outer leaves", then(append(puts(27), opTxn(then(puts(101)...)))...), tooManyOps},
		{"a refusal comes before the duplicate check", then(append(puts(128), puts(1)...)...), tooManyOps},
	}
	for _, tt := range tests {
		_, err := kv.Txn(ctx, tt.req)
		equal(t, tt.name, errText(err), tt.want)
	}
}

func TestTxnOperationLimitFlag(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t, "--max-txn-ops", "3")
	_, err := kv.Txn(ctx, then(puts(3)...))
	equal(t, "at the limit", errText(err), "")
	_, err = kv.Txn(ctx, then(puts(4)...))
	equal(t, "over it", errText(err), tooManyOps)
}

func TestRequestSizeLimit(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	value := func(n int) *pb.PutRequest {
		return &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), n)}
	}
	const limit, overhead = 1.5 * 1024 * 1024, 512 * 1024
	_, err := kv.Put(ctx, value(limit-100))
	equal(t, "just below", errText(err), "")
	_, err = kv.Put(ctx, value(limit+1))
	wantErr(t, "above --max-request-bytes", err, codes.InvalidArgument, "etcdserver: request is too large")
	_, err = kv.Txn(ctx, then(opPut(value(limit+1))))
	wantErr(t, "in a txn", err, codes.InvalidArgument, "etcdserver: request is too large")
	_, err = kv.Put(ctx, value(limit+overhead+100))
	wantErr(t, "above what gRPC takes", err, codes.ResourceExhausted,
		"grpc: received message larger than max (2097260 vs. 2097152)")
	equal(t, "only the first was written", mustGet(t, kv, get("k", "")).Kvs[0].ModRevision, int64(2))
}

func TestRequestSizeLimitFlag(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t, "--max-request-bytes", "1000")
	_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 900)})
	equal(t, "below", errText(err), "")
	_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1000)})
	wantErr(t, "above", err, codes.InvalidArgument, "etcdserver: request is too large")
}

func TestLargeResponsesAreNotLimited(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	for i := range 6 {
		mustPut(t, kv, &pb.PutRequest{Key: []byte{'k', byte('0' + i)}, Value: make([]byte, 1<<20)})
	}
	resp := mustGet(t, kv, get("k", "l"))
	equal(t, "keys", len(resp.Kvs), 6)
}
