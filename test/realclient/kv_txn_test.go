package realclient

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// compare reads "mod k > 3", "value k = v", "version a..c != 1" and "lease k = 5"; "a.." is from a on.
func compare(t *testing.T, text string) *pb.Compare {
	t.Helper()
	f := strings.SplitN(text, " ", 4)
	c := &pb.Compare{Key: []byte(f[1])}
	if from, to, ok := strings.Cut(f[1], ".."); ok {
		c.Key, c.RangeEnd = []byte(from), []byte(to)
		if to == "" {
			c.RangeEnd = []byte{0}
		}
	}
	c.Result = map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, ">": pb.Compare_GREATER, "<": pb.Compare_LESS, "!=": pb.Compare_NOT_EQUAL,
	}[f[2]]
	if f[0] == "value" {
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(f[3])}
		return c
	}
	var n int64
	if _, err := fmt.Sscan(f[3], &n); err != nil {
		t.Fatalf("compare %q: %v", text, err)
	}
	switch f[0] {
	case "version":
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: n}
	case "create":
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: n}
	case "mod":
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: n}
	case "lease":
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: n}
	default:
		t.Fatalf("compare %q", text)
	}
	return c
}

func TestTxnCompares(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	lease := s.grant(t, 5, 600)
	mustPut(t, s.kv, put("k", "1"))                                                      // 2
	mustPut(t, s.kv, put("k", "5"))                                                      // 3
	mustPut(t, s.kv, put("m", "5"))                                                      // 4
	mustPut(t, s.kv, &pb.PutRequest{Key: []byte("l"), Value: []byte("5"), Lease: lease}) // 5
	holds := []string{
		"value k = 5", "value k != 4", "value k > 4", "value k > 10", "value k < 6", "value k < 50",
		"version k = 2", "version k != 1", "version k > 1", "version k < 3",
		"create k = 2", "create k != 3", "create k > 1", "create k < 3",
		"mod k = 3", "mod k != 2", "mod k > 2", "mod k < 4",
		"lease l = 5", "lease l != 4", "lease l > 4", "lease l < 6", "lease k = 0", "lease k < 1",
		"version absent = 0", "create absent = 0", "mod absent = 0", "lease absent = 0", "mod absent < 1", "version absent != 1",
		"value k..n = 5", "mod k.. > 2", "version k..n > 0", "create x..z = 0", "mod x.. = 0",
	}
	fails := []string{
		"value k = 4", "value k != 5", "value k > 5", "value k < 5", "version k = 1", "create k = 3", "mod k = 2", "mod k > 3",
		"lease l = 4", "lease k = 5", "version absent = 1", "mod absent > 0", "version absent != 0",
		"value absent = ", "value absent != x", "value absent < x", "value x..z != x", // a value of nothing compares false
		"version k..n = 2", "mod k..n > 3", "create k.. < 4",
	}
	tryAll := func(texts []string, want bool) {
		for _, text := range texts {
			resp := mustTxn(t, s.kv, &pb.TxnRequest{Compare: []*pb.Compare{compare(t, text)}})
			equal(t, text, txnText(resp), fmt.Sprintf("%v rev 5 {}", want))
		}
	}
	tryAll(holds, true)
	tryAll(fails, false)
}

func TestTxnComparesAreJoinedByAnd(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", "1"))
	tests := map[string]bool{"": true, "mod k = 2|value k = 1": true, "mod k = 2|value k = 2": false, "mod k = 3|value k = 1": false}
	for text, want := range tests {
		req := &pb.TxnRequest{}
		for _, c := range strings.FieldsFunc(text, func(r rune) bool { return r == '|' }) {
			req.Compare = append(req.Compare, compare(t, c))
		}
		equal(t, text, mustTxn(t, kv, req).Succeeded, want)
	}
}

func TestTxnCompareWithoutAValueComparesWithZero(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("k", ""))
	for target, want := range map[pb.Compare_CompareTarget]bool{
		pb.Compare_VERSION: false, pb.Compare_MOD: false, pb.Compare_CREATE: false, pb.Compare_VALUE: true, pb.Compare_LEASE: true,
		9: true, // an unknown target compares nothing
	} {
		c := &pb.Compare{Key: []byte("k"), Target: target}
		equal(t, target.String(), mustTxn(t, kv, &pb.TxnRequest{Compare: []*pb.Compare{c}}).Succeeded, want)
	}
}

// TestTxnOperations walks through one history, so each step sees what those before it wrote.
func TestTxnOperations(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	absent := []*pb.Compare{compare(t, "create a = 0")}
	withPrev := func(key, end string) *pb.DeleteRangeRequest {
		return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: true}
	}
	steps := []struct {
		name string
		req  *pb.TxnRequest
		want string
	}{
		{"nothing at all", &pb.TxnRequest{}, "true rev 1 {}"},
		{"create", &pb.TxnRequest{Compare: absent, Success: []*pb.RequestOp{opPut(put("a", "1"))}, Failure: []*pb.RequestOp{opGet(get("a", ""))}},
			"true rev 2 {put rev 2}"},
		{"create again", &pb.TxnRequest{Compare: absent, Success: []*pb.RequestOp{opPut(put("a", "1"))}, Failure: []*pb.RequestOp{opGet(get("a", ""))}},
			"false rev 2 {rev 2 count 1: a=1(2,2,1)}"},
		{"two puts share a revision", then(opPut(put("b", "1")), opPut(put("c", "1"))), "true rev 3 {put rev 3; put rev 3}"},
		{"reads see the writes before them only",
			then(opGet(get("a", "z")), opPut(put("d", "1")), opGet(get("a", "z"))),
			"true rev 4 {rev 3 count 3: a=1(2,2,1) b=1(3,3,1) c=1(3,3,1); put rev 4; rev 4 count 4: a=1(2,2,1) b=1(3,3,1) c=1(3,3,1) d=1(4,4,1)}"},
		{"read back a delete", then(opDel(withPrev("b", "d")), opGet(get("a", "z"))),
			"true rev 5 {deleted 2 rev 5 prev b=1(3,3,1) c=1(3,3,1); rev 5 count 2: a=1(2,2,1) d=1(4,4,1)}"},
		{"overlapping deletes are allowed", then(opDel(del("a", "")), opDel(del("a", "z"))), "true rev 6 {deleted 1 rev 6; deleted 1 rev 6}"},
		{"deletes of nothing", then(opDel(del("a", "")), opDel(del("a", "z"))), "true rev 6 {deleted 0 rev 6; deleted 0 rev 6}"},
		{"a delete of nothing behind a put", then(opPut(put("e", "1")), opDel(del("x", ""))), "true rev 7 {put rev 7; deleted 0 rev 7}"},
		{"reads only", then(opGet(get("e", "")), opGet(&pb.RangeRequest{Key: []byte("a"), Revision: 2})),
			"true rev 7 {rev 7 count 1: e=1(7,7,1); rev 7 count 1: a=1(2,2,1)}"},
		{"prev_kv of a put", then(opPut(&pb.PutRequest{Key: []byte("e"), Value: []byte("2"), PrevKv: true})), "true rev 8 {put rev 8 prev e=1(7,7,1)}"},
		{"the branch not taken does nothing", &pb.TxnRequest{Compare: absent, Failure: []*pb.RequestOp{opPut(put("f", "1"))}}, "true rev 8 {}"},
		{"limit and count in a range", then(opGet(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: 1, CountOnly: true})), "true rev 8 {rev 8 count 1}"},
	}
	for _, st := range steps {
		equal(t, st.name, txnText(mustTxn(t, kv, st.req)), st.want)
	}
}

func TestTxnNested(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	mustPut(t, kv, put("a", "1"))
	inner := func(cmp string, yes, no *pb.RequestOp) *pb.RequestOp {
		return opTxn(&pb.TxnRequest{Compare: []*pb.Compare{compare(t, cmp)}, Success: []*pb.RequestOp{yes}, Failure: []*pb.RequestOp{no}})
	}
	steps := []struct {
		name string
		req  *pb.TxnRequest
		want string
	}{
		{"inner header has no revision of its own",
			then(inner("mod a = 2", opPut(put("b", "1")), opPut(put("c", "1")))),
			"true rev 3 {true rev 0 {put rev 3}}"},
		{"compares are all decided before the first write",
			then(opPut(put("x", "1")), inner("create x = 0", opPut(put("y", "1")), opPut(put("z", "1")))),
			"true rev 4 {put rev 4; true rev 0 {put rev 4}}"},
		{"two of them, and deeper",
			then(inner("mod a = 9", opPut(put("p", "1")), opPut(put("q", "1"))), opTxn(then(opTxn(then(opGet(get("q", "")), opDel(del("p", "")))), opDel(del("b", ""))))),
			"true rev 5 {false rev 0 {put rev 5}; true rev 0 {true rev 0 {rev 5 count 1: q=1(5,5,1); deleted 0 rev 5}; deleted 1 rev 5}}"},
		{"read-only", then(opTxn(then(opGet(get("a", ""))))), "true rev 5 {true rev 0 {rev 5 count 1: a=1(2,2,1)}}"},
		{"empty", then(opTxn(&pb.TxnRequest{})), "true rev 5 {true rev 0 {}}"},
	}
	for _, st := range steps {
		equal(t, st.name, txnText(mustTxn(t, kv, st.req)), st.want)
	}
}

func TestTxnRefusesAKeyWrittenTwice(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	pk := opPut(put("k", "1"))
	inner := func(yes, no []*pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Success: yes, Failure: no}) }
	one := func(op *pb.RequestOp) []*pb.RequestOp { return []*pb.RequestOp{op} }
	const duplicate = "InvalidArgument: etcdserver: duplicate key given in txn request"
	tests := []struct {
		name string
		req  *pb.TxnRequest
		want string
	}{
		{"two puts", then(pk, pk), duplicate},
		{"two puts in the branch not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{pk, pk}}, duplicate},
		{"put and delete", then(pk, opDel(del("k", ""))), duplicate},
		{"delete, then put", then(opDel(del("k", "")), pk), duplicate},
		{"put in a deleted range", then(opDel(del("a", "z")), pk), duplicate},
		{"put in a range from a key on", then(opDel(del("a", "\x00")), pk), ""}, // etcd takes that end for a place before a
		{"put at the end of a deleted range", then(opDel(del("a", "k")), pk), ""},
		{"puts on both branches", &pb.TxnRequest{Success: one(pk), Failure: one(pk)}, ""},
		{"put in an inner txn", then(pk, inner(one(pk), nil)), duplicate},
		{"put in an inner branch not taken", then(pk, inner(nil, one(pk))), duplicate},
		{"delete over a put in an inner txn", then(opDel(del("a", "z")), inner(one(pk), nil)), duplicate},
		{"inner delete over an outer put", then(pk, inner(one(opDel(del("a", "z"))), nil)), duplicate},
		{"both branches of one inner txn", then(inner(one(pk), one(pk))), ""},
		{"two inner txns", then(inner(one(pk), nil), inner(one(pk), nil)), duplicate},
		{"deletes over each other in inner txns", then(inner(one(opDel(del("k", ""))), nil), opDel(del("a", "z"))), ""},
	}
	for _, tt := range tests {
		_, err := kv.Txn(ctx, tt.req)
		equal(t, tt.name, errText(err), tt.want)
	}
}

func TestTxnRefusals(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	mustPut(t, kv, put("k", "1"))
	mustPut(t, kv, put("k", "2"))
	mustPut(t, kv, put("k", "3"))
	mustCompact(t, kv, 3)
	w := opPut(put("w", "1"))
	at := func(rev int64) *pb.RequestOp { return opGet(&pb.RangeRequest{Key: []byte("k"), Revision: rev}) }
	tests := []struct {
		name string
		req  *pb.TxnRequest
		want string
	}{
		{"compare without a key", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, "InvalidArgument: etcdserver: key is not provided"},
		{"put without a key", then(opPut(put("", "1"))), "InvalidArgument: etcdserver: key is not provided"},
		{"range without a key", then(opGet(get("", ""))), "InvalidArgument: etcdserver: key is not provided"},
		{"delete without a key in the other branch", &pb.TxnRequest{Failure: []*pb.RequestOp{opDel(del("", ""))}}, "InvalidArgument: etcdserver: key is not provided"},
		{"an operation that is none", then(&pb.RequestOp{}), "InvalidArgument: etcdserver: key not found"},
		{"sort order", then(opGet(&pb.RangeRequest{Key: []byte("k"), SortOrder: 7})), "InvalidArgument: etcdserver: invalid sort option"},
		{"ignore_value with a value", then(opPut(&pb.PutRequest{Key: []byte("k"), Value: []byte("x"), IgnoreValue: true})), "InvalidArgument: etcdserver: value is provided"},
		{"ignore_value of an absent key", then(w, opPut(&pb.PutRequest{Key: []byte("q"), IgnoreValue: true})), "InvalidArgument: etcdserver: key not found"},
		{"unknown lease", then(w, opPut(&pb.PutRequest{Key: []byte("q"), Lease: 9})), "NotFound: etcdserver: requested lease not found"},
		{"compacted range", then(w, at(2)), "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"compacted range, read-only", then(at(2)), "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"future range", then(w, at(5)), "OutOfRange: etcdserver: mvcc: required revision is a future revision"},
		{"negative revision", then(at(-1)), "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"compacted range in the branch not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{at(2)}}, ""},
		{"in an inner txn", then(w, opTxn(then(at(2)))), "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
	}
	for _, tt := range tests {
		_, err := kv.Txn(ctx, tt.req)
		equal(t, tt.name, errText(err), tt.want)
	}
	equal(t, "nothing was written", rangeText(mustGet(t, kv, get("w", ""))), "rev 4 count 0")
}

func TestTxnOfManyPutsHasOneRevision(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t)
	var ops []*pb.RequestOp
	for i := range 100 {
		ops = append(ops, opPut(put(fmt.Sprintf("k%02d", i), "v")))
	}
	equal(t, "revision", mustTxn(t, kv, then(ops...)).GetHeader().GetRevision(), int64(2))
	resp := mustGet(t, kv, get("k", "l"))
	equal(t, "count", resp.Count, int64(100))
	for _, k := range resp.Kvs {
		equal(t, "mod revision", k.ModRevision, int64(2))
	}
}
