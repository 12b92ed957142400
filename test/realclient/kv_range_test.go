package realclient

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

// rangeHistory writes the keys that the range tests read, up to revision 9.
func rangeHistory(t *testing.T, kv pb.KVClient) {
	t.Helper()
	mustPut(t, kv, put("a/1", "3"))
	mustPut(t, kv, put("a/2", "1"))
	mustPut(t, kv, put("a/3", "2"))
	mustPut(t, kv, put("a/1", "4"))
	mustPut(t, kv, put("b", "x"))
	mustDel(t, kv, del("a/2", ""))
	mustPut(t, kv, put("a/2", "5"))
	mustTxn(t, kv, then(opPut(put("a/4", "0")), opPut(put("a/5", "9"))))
}

func TestRange(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	rangeHistory(t, kv)
	tests := []struct {
		name string
		req  *pb.RangeRequest
		want string
	}{
		{"one key", &pb.RangeRequest{Key: []byte("a/1")}, "rev 9 count 1: a/1=4(2,5,2)"},
		{"absent key", &pb.RangeRequest{Key: []byte("a/0")}, "rev 9 count 0"},
		{"prefix is not implied", &pb.RangeRequest{Key: []byte("a/")}, "rev 9 count 0"},
		{"end is exclusive", get("a/1", "a/3"), "rev 9 count 2: a/1=4(2,5,2) a/2=5(8,8,1)"},
		{"prefix", get("a/", "a0"), "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{"from key", get("a/5", "\x00"), "rev 9 count 2: a/5=9(9,9,1) b=x(6,6,1)"},
		{"all keys", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}, "rev 9 count 6"},
		{"end before key", get("b", "a"), "rev 9 count 0"},
		{"end equals key", get("b", "b"), "rev 9 count 0"},
		{"serializable", &pb.RangeRequest{Key: []byte("b"), Serializable: true}, "rev 9 count 1: b=x(6,6,1)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := kv.Range(ctx, tt.req)
			check(t, err)
			equal(t, "response", rangeText(resp), tt.want)
		})
	}
}

func TestRangeAtRevision(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	rangeHistory(t, kv)
	want := map[int64]string{
		-1: "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)",
		0:  "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)",
		1:  "rev 9 count 0",
		2:  "rev 9 count 1: a/1=3(2,2,1)",
		4:  "rev 9 count 3: a/1=3(2,2,1) a/2=1(3,3,1) a/3=2(4,4,1)",
		6:  "rev 9 count 3: a/1=4(2,5,2) a/2=1(3,3,1) a/3=2(4,4,1)",
		7:  "rev 9 count 2: a/1=4(2,5,2) a/3=2(4,4,1)",
		8:  "rev 9 count 3: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1)",
		9:  "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)",
	}
	for rev, text := range want {
		req := get("a/", "a0")
		req.Revision = rev
		equal(t, fmt.Sprint("list at ", rev), rangeText(mustGet(t, kv, req)), text)
		req.CountOnly = true
		counted := mustGet(t, kv, req)
		var count int64
		_, err := fmt.Sscanf(text, "rev 9 count %d", &count)
		check(t, err)
		equal(t, fmt.Sprint("count at ", rev), rangeText(counted), fmt.Sprintf("rev 9 count %d", count))
	}
}

func TestRangeLimit(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	rangeHistory(t, kv)
	tests := []struct {
		limit, rev int64
		countOnly  bool
		want       string
	}{
		{limit: 1, want: "rev 9 count 5 more: a/1=4(2,5,2)"},
		{limit: 4, want: "rev 9 count 5 more: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1)"},
		{limit: 5, want: "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{limit: 6, want: "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{limit: -1, want: "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{limit: 1<<63 - 1, want: "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{limit: 2, rev: 4, want: "rev 9 count 3 more: a/1=3(2,2,1) a/2=1(3,3,1)"},
		{limit: 1, countOnly: true, want: "rev 9 count 5"},
	}
	for _, tt := range tests {
		req := get("a/", "a0")
		req.Limit, req.Revision, req.CountOnly = tt.limit, tt.rev, tt.countOnly
		equal(t, fmt.Sprintf("limit %d rev %d", tt.limit, tt.rev), rangeText(mustGet(t, kv, req)), tt.want)
	}
}

func TestRangePagesCoverEveryKeyAtOneRevision(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	const keys, page = 57, 10
	for i := range keys {
		mustPut(t, kv, put(fmt.Sprintf("k%03d", i), "v"))
	}
	pinned := int64(keys + 1)
	mustDel(t, kv, del("k000", "k030"))
	seen, req := 0, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: page, Revision: pinned}
	for {
		resp := mustGet(t, kv, req)
		equal(t, "count of the rest", resp.Count, int64(keys-seen))
		for _, k := range resp.Kvs {
			equal(t, "key", string(k.Key), fmt.Sprintf("k%03d", seen))
			seen++
		}
		if !resp.More {
			break
		}
		req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
	equal(t, "keys seen", seen, keys)
}

func TestRangeSort(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	rangeHistory(t, kv)
	const none, ascend, descend = pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND
	tests := []struct {
		target pb.RangeRequest_SortTarget
		order  pb.RangeRequest_SortOrder
		limit  int64
		want   string // last characters of the keys
	}{
		{pb.RangeRequest_KEY, none, 0, "12345"},
		{pb.RangeRequest_KEY, ascend, 0, "12345"},
		{pb.RangeRequest_KEY, descend, 0, "54321"},
		{pb.RangeRequest_KEY, descend, 2, "54"},
		{pb.RangeRequest_VALUE, ascend, 0, "43125"},
		{pb.RangeRequest_VALUE, descend, 0, "52134"},
		{pb.RangeRequest_VALUE, none, 0, "43125"}, // a target without an order means ascending
		{pb.RangeRequest_VALUE, ascend, 3, "431"},
		{pb.RangeRequest_VALUE, none, 1, "1"}, // but then the limit cuts first: the first limit+1 keys are sorted
		{pb.RangeRequest_VERSION, descend, 1, "1"},
		{pb.RangeRequest_CREATE, ascend, 3, "132"},
		{pb.RangeRequest_MOD, ascend, 3, "312"},
	}
	for _, tt := range tests {
		req := get("a/", "a0")
		req.SortTarget, req.SortOrder, req.Limit = tt.target, tt.order, tt.limit
		resp := mustGet(t, kv, req)
		got := ""
		for _, k := range resp.Kvs {
			got += string(k.Key[2:])
		}
		what := fmt.Sprintf("%v %v limit %d", tt.target, tt.order, tt.limit)
		equal(t, what, got, tt.want)
		equal(t, what+" count", resp.Count, int64(5))
		equal(t, what+" more", resp.More, tt.limit > 0)
	}
}

func TestRangeRevisionFilters(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	rangeHistory(t, kv)
	tests := []struct {
		name string
		req  *pb.RangeRequest
		want string
	}{
		{"min mod", &pb.RangeRequest{MinModRevision: 8}, "rev 9 count 5: a/2=5(8,8,1) a/4=0(9,9,1) a/5=9(9,9,1)"},
		{"max mod", &pb.RangeRequest{MaxModRevision: 5}, "rev 9 count 5: a/1=4(2,5,2) a/3=2(4,4,1)"},
		{"both mod", &pb.RangeRequest{MinModRevision: 5, MaxModRevision: 8}, "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1)"},
		{"min create", &pb.RangeRequest{MinCreateRevision: 9}, "rev 9 count 5: a/4=0(9,9,1) a/5=9(9,9,1)"},
		{"max create", &pb.RangeRequest{MaxCreateRevision: 2}, "rev 9 count 5: a/1=4(2,5,2)"},
		{"with limit", &pb.RangeRequest{MinModRevision: 8, Limit: 2}, "rev 9 count 5 more: a/2=5(8,8,1) a/4=0(9,9,1)"},
		{"with revision", &pb.RangeRequest{MaxModRevision: 2, Revision: 4}, "rev 9 count 3: a/1=3(2,2,1)"},
		{"nothing left", &pb.RangeRequest{MinModRevision: 10}, "rev 9 count 5"},
		{"with count only", &pb.RangeRequest{MinModRevision: 8, CountOnly: true}, "rev 9 count 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Key, tt.req.RangeEnd = []byte("a/"), []byte("a0")
			equal(t, "response", rangeText(mustGet(t, kv, tt.req)), tt.want)
		})
	}
}

func TestRangeKeysOnlyLeavesOutValueAndLease(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	lease := s.grant(t, 0x7a, 60)
	mustPut(t, s.kv, &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: lease})
	req := get("k", "")
	equal(t, "whole", rangeText(mustGet(t, s.kv, req)), "rev 2 count 1: k=v(2,2,1)+7a")
	req.KeysOnly = true
	equal(t, "keys only", rangeText(mustGet(t, s.kv, req)), "rev 2 count 1: k=(2,2,1)")
	// Sorted by value the server has to read the record, and the lease comes with it.
	req.SortTarget = pb.RangeRequest_VALUE
	equal(t, "keys only, sorted by value", rangeText(mustGet(t, s.kv, req)), "rev 2 count 1: k=(2,2,1)+7a")
}

func TestRangeRefusals(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	rangeHistory(t, kv)
	mustCompact(t, kv, 5)
	tests := []struct {
		name string
		req  *pb.RangeRequest
		want string
	}{
		{"empty key", &pb.RangeRequest{}, "InvalidArgument: etcdserver: key is not provided"},
		{"empty key with an end", get("", "b"), "InvalidArgument: etcdserver: key is not provided"},
		{"unknown order", &pb.RangeRequest{Key: []byte("a"), SortOrder: 3}, "InvalidArgument: etcdserver: invalid sort option"},
		{"unknown target", &pb.RangeRequest{Key: []byte("a"), SortTarget: 5}, "InvalidArgument: etcdserver: invalid sort option"},
		{"negative order", &pb.RangeRequest{Key: []byte("a"), SortOrder: -1}, "InvalidArgument: etcdserver: invalid sort option"},
		{"future", &pb.RangeRequest{Key: []byte("a"), Revision: 10}, "OutOfRange: etcdserver: mvcc: required revision is a future revision"},
		{"compacted", &pb.RangeRequest{Key: []byte("a"), Revision: 4}, "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"compacted count", &pb.RangeRequest{Key: []byte("a"), Revision: 4, CountOnly: true}, "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"compact revision itself", &pb.RangeRequest{Key: []byte("a"), Revision: 5}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kv.Range(ctx, tt.req)
			equal(t, "error", errText(err), tt.want)
		})
	}
}

func TestRangeOfAnUnknownMethodIsUnimplemented(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	err := s.Conn(t).Invoke(s.ctx, "/etcdserverpb.KV/Nothing", &pb.RangeRequest{}, &pb.RangeResponse{})
	wantErr(t, "error", err, codes.Unimplemented, "unknown method Nothing for service etcdserverpb.KV")
}
