package realclient

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Responses as short texts, so that a table can hold what it expects on one line.

func kvText(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	s := fmt.Sprintf("%s=%s(%d,%d,%d)", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		s += fmt.Sprintf("+%x", kv.Lease)
	}
	return s
}

func kvsText(kvs []*mvccpb.KeyValue) string {
	var parts []string
	for _, kv := range kvs {
		parts = append(parts, kvText(kv))
	}
	return strings.Join(parts, " ")
}

func rangeText(r *pb.RangeResponse) string {
	s := fmt.Sprintf("rev %d count %d", r.GetHeader().GetRevision(), r.GetCount())
	if r.GetMore() {
		s += " more"
	}
	if len(r.GetKvs()) > 0 {
		s += ": " + kvsText(r.GetKvs())
	}
	return s
}

func putText(r *pb.PutResponse) string {
	s := fmt.Sprintf("put rev %d", r.GetHeader().GetRevision())
	if r.GetPrevKv() != nil {
		s += " prev " + kvText(r.PrevKv)
	}
	return s
}

func deleteText(r *pb.DeleteRangeResponse) string {
	s := fmt.Sprintf("deleted %d rev %d", r.GetDeleted(), r.GetHeader().GetRevision())
	if len(r.GetPrevKvs()) > 0 {
		s += " prev " + kvsText(r.PrevKvs)
	}
	return s
}

func txnText(r *pb.TxnResponse) string {
	var parts []string
	for _, op := range r.GetResponses() {
		switch v := op.GetResponse().(type) {
		case *pb.ResponseOp_ResponseRange:
			parts = append(parts, rangeText(v.ResponseRange))
		case *pb.ResponseOp_ResponsePut:
			parts = append(parts, putText(v.ResponsePut))
		case *pb.ResponseOp_ResponseDeleteRange:
			parts = append(parts, deleteText(v.ResponseDeleteRange))
		case *pb.ResponseOp_ResponseTxn:
			parts = append(parts, txnText(v.ResponseTxn))
		default:
			parts = append(parts, "nothing")
		}
	}
	return fmt.Sprintf("%v rev %d {%s}", r.GetSucceeded(), r.GetHeader().GetRevision(), strings.Join(parts, "; "))
}

func eventText(e *mvccpb.Event) string {
	s := fmt.Sprintf("%s %s", strings.ToLower(e.GetType().String()), kvText(e.GetKv()))
	if e.GetPrevKv() != nil {
		s += " prev " + kvText(e.PrevKv)
	}
	return s
}

// errText is a status as "Code: message", or "" for none.
func errText(err error) string {
	if err == nil {
		return ""
	}
	s := status.Convert(err)
	return s.Code().String() + ": " + s.Message()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func wantErr(t *testing.T, what string, err error, code codes.Code, message string) {
	t.Helper()
	equal(t, what, errText(err), code.String()+": "+message)
}

// eventually waits for something that the server does in its own time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func sortBy[T any](s []T, at func(T) time.Time) {
	slices.SortFunc(s, func(a, b T) int { return at(a).Compare(at(b)) })
}
