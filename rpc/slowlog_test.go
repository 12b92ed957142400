package rpc

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	pb "quire/api/etcdserverpb"
)

func TestSlowRequestsAreLoggedWithoutValues(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	f := newFake()
	s := newTestServer(t, f, func(c *Config) { c.SlowRequest, c.Logger = time.Nanosecond, zap.New(core) })
	conn, _ := dial(t, s)
	secret := []byte("do not show me")
	cmp := &pb.Compare{Key: []byte("c"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: secret}}
	for _, tc := range []struct {
		method    string
		req, resp wireMessage
		content   string
		reqCount  int64
		respCount int64
	}{
		{"KV/Put", &pb.PutRequest{Key: []byte("k"), Value: secret, PrevKv: true}, &pb.PutResponse{},
			`key:"k" value_size:14 prev_kv:true`, 1, 0},
		{"KV/Range", &pb.RangeRequest{Key: []byte("k")}, &pb.RangeResponse{}, `key:"k"`, 0, 1},
		{"KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{cmp}, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte("t"), Value: secret, Lease: 4}}}}}, &pb.TxnResponse{},
			`compare:<result:EQUAL target:VALUE key:"c" value_size:14> success:<request_put:<key:"t" value_size:14 lease:4>> failure:<>`, 1, 0},
		{"KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("k")}, &pb.DeleteRangeResponse{}, `key:"k"`, 0, 1},
		{"Maintenance/Status", &pb.StatusRequest{}, &pb.StatusResponse{}, "", -1, -1},
	} {
		logs.TakeAll()
		if err := conn.Invoke(context.Background(), "/etcdserverpb."+tc.method, tc.req, tc.resp); err != nil {
			t.Fatal(err)
		}
		var lines []observer.LoggedEntry
		eventually(func() bool { lines = logs.FilterMessage("request stats").All(); return len(lines) > 0 })
		if len(lines) != 1 {
			t.Fatalf("%s: %d lines", tc.method, len(lines))
		}
		m := lines[0].ContextMap()
		if m["request content"] != tc.content || m["request count"] != tc.reqCount || m["response count"] != tc.respCount ||
			m["response type"] != "/etcdserverpb."+tc.method || !strings.HasPrefix(m["remote"].(string), "127.0.0.1:") {
			t.Errorf("%s: %v", tc.method, m)
		}
	}
}
