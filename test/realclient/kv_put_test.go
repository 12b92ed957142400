package realclient

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestFirstRevisionIsOneAndFirstPutMakesTwo(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	equal(t, "empty store", rangeText(mustGet(t, kv, get("k", ""))), "rev 1 count 0")
	equal(t, "first put", mustPut(t, kv, put("k", "v")), int64(2))
	equal(t, "after it", rangeText(mustGet(t, kv, get("k", ""))), "rev 2 count 1: k=v(2,2,1)")
}

func TestVersionStartsAnewAfterDelete(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", "1"))
	mustPut(t, kv, put("k", "2"))
	equal(t, "second version", rangeText(mustGet(t, kv, get("k", ""))), "rev 3 count 1: k=2(2,3,2)")
	equal(t, "revision of the delete", mustDel(t, kv, del("k", "")), int64(4))
	mustPut(t, kv, put("k", "3"))
	equal(t, "born again", rangeText(mustGet(t, kv, get("k", ""))), "rev 5 count 1: k=3(5,5,1)")
}

func TestPutOfTheSameValueMakesARevision(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", "v"))
	equal(t, "revision", mustPut(t, kv, put("k", "v")), int64(3))
	equal(t, "key", rangeText(mustGet(t, kv, get("k", ""))), "rev 3 count 1: k=v(2,3,2)")
}

func TestPutOfAnEmptyValue(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", ""))
	equal(t, "key", rangeText(mustGet(t, kv, get("k", ""))), "rev 2 count 1: k=(2,2,1)")
}

func TestPutKeepsBytesThatAreNoText(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	key, value := "\x00\xff\xfe\x80", "\xc3\x28\x00\n"
	mustPut(t, kv, put(key, value))
	resp := mustGet(t, kv, get("\x00", "\x00"))
	equal(t, "keys", len(resp.Kvs), 1)
	equal(t, "key", string(resp.Kvs[0].Key), key)
	equal(t, "value", string(resp.Kvs[0].Value), value)
}

// TestPutOptions walks through one history: each step sees what those before it wrote.
func TestPutOptions(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	lease := s.grant(t, 0xa, 600)
	key := []byte("k")
	steps := []struct {
		name string
		req  *pb.PutRequest
		want string
	}{
		{"prev_kv of an absent key", &pb.PutRequest{Key: key, Value: []byte("1"), PrevKv: true}, "put rev 2"},
		{"prev_kv", &pb.PutRequest{Key: key, Value: []byte("2"), PrevKv: true}, "put rev 3 prev k=1(2,2,1)"},
		{"without prev_kv", &pb.PutRequest{Key: key, Value: []byte("3")}, "put rev 4"},
		{"with a lease", &pb.PutRequest{Key: key, Value: []byte("4"), Lease: lease, PrevKv: true}, "put rev 5 prev k=3(2,4,3)"},
		{"ignore_value", &pb.PutRequest{Key: key, IgnoreValue: true, Lease: lease, PrevKv: true}, "put rev 6 prev k=4(2,5,4)+a"},
		{"ignore_lease", &pb.PutRequest{Key: key, Value: []byte("5"), IgnoreLease: true, PrevKv: true}, "put rev 7 prev k=4(2,6,5)+a"},
		{"both ignored", &pb.PutRequest{Key: key, IgnoreLease: true, IgnoreValue: true, PrevKv: true}, "put rev 8 prev k=5(2,7,6)+a"},
		{"without a lease it is dropped", &pb.PutRequest{Key: key, IgnoreValue: true, PrevKv: true}, "put rev 9 prev k=5(2,8,7)+a"},
		{"and stays dropped", &pb.PutRequest{Key: key, IgnoreLease: true, IgnoreValue: true, PrevKv: true}, "put rev 10 prev k=5(2,9,8)"},
	}
	for _, st := range steps {
		resp, err := s.kv.Put(s.ctx, st.req)
		check(t, err)
		equal(t, st.name, putText(resp), st.want)
	}
}

func TestPutRefusals(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	tests := []struct {
		name string
		req  *pb.PutRequest
		want string
	}{
		{"empty key", &pb.PutRequest{Value: []byte("v")}, "InvalidArgument: etcdserver: key is not provided"},
		{"value with ignore_value", &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true}, "InvalidArgument: etcdserver: value is provided"},
		{"lease with ignore_lease", &pb.PutRequest{Key: []byte("k"), Lease: 1, IgnoreLease: true}, "InvalidArgument: etcdserver: lease is provided"},
		{"ignore_value of an absent key", &pb.PutRequest{Key: []byte("k"), IgnoreValue: true}, "InvalidArgument: etcdserver: key not found"},
		{"ignore_lease of an absent key", &pb.PutRequest{Key: []byte("k"), IgnoreLease: true}, "InvalidArgument: etcdserver: key not found"},
		{"unknown lease", &pb.PutRequest{Key: []byte("k"), Lease: 77}, "NotFound: etcdserver: requested lease not found"},
		{"unknown lease and absent key", &pb.PutRequest{Key: []byte("k"), IgnoreValue: true, Lease: 77}, "NotFound: etcdserver: requested lease not found"},
	}
	for _, tt := range tests {
		_, err := kv.Put(ctx, tt.req)
		equal(t, tt.name, errText(err), tt.want)
	}
	equal(t, "nothing was written", rangeText(mustGet(t, kv, get("\x00", "\x00"))), "rev 1 count 0")
}

// TestDeleteRange walks through one history.
func TestDeleteRange(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		mustPut(t, kv, put(key, key))
	}
	steps := []struct {
		name string
		req  *pb.DeleteRangeRequest
		want string
	}{
		{"one key", &pb.DeleteRangeRequest{Key: []byte("a")}, "deleted 1 rev 8"},
		{"it is gone", &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}, "deleted 0 rev 8"},
		{"a range in one revision", &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("d"), PrevKv: true}, "deleted 2 rev 9 prev b=b(3,3,1) c=c(4,4,1)"},
		{"a range with nothing in it", del("a", "d"), "deleted 0 rev 9"},
		{"end before key", del("f", "d"), "deleted 0 rev 9"},
		{"from key", &pb.DeleteRangeRequest{Key: []byte("e"), RangeEnd: []byte{0}, PrevKv: true}, "deleted 2 rev 10 prev e=e(6,6,1) f=f(7,7,1)"},
		{"all", &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, "deleted 1 rev 11"},
	}
	for _, st := range steps {
		resp, err := kv.DeleteRange(ctx, st.req)
		check(t, err)
		equal(t, st.name, deleteText(resp), st.want)
	}
	equal(t, "all gone", rangeText(mustGet(t, kv, get("\x00", "\x00"))), "rev 11 count 0")
	_, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{})
	equal(t, "empty key", errText(err), "InvalidArgument: etcdserver: key is not provided")
}

func TestDeletedKeysStayReadableAtOldRevisions(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", "1"))
	mustDel(t, kv, del("k", ""))
	equal(t, "before", rangeText(mustGet(t, kv, &pb.RangeRequest{Key: []byte("k"), Revision: 2})), "rev 3 count 1: k=1(2,2,1)")
	equal(t, "after", rangeText(mustGet(t, kv, &pb.RangeRequest{Key: []byte("k"), Revision: 3})), "rev 3 count 0")
}

func TestHeaderNamesClusterMemberAndTerm(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	members, err := s.cluster.MemberList(s.ctx, &pb.MemberListRequest{})
	check(t, err)
	resp, err := s.kv.Put(s.ctx, put("k", "v"))
	check(t, err)
	h := resp.GetHeader()
	equal(t, "member id", h.MemberId, members.Members[0].ID)
	equal(t, "cluster id", h.ClusterId, members.GetHeader().GetClusterId())
	equal(t, "term is set", h.RaftTerm >= 2, true)
	equal(t, "cluster id is set", h.ClusterId != 0, true)
}
