package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "quire/api/etcdserverpb"
)

// spanTexts are the ended spans as text.
func spanTexts(r *tracetest.SpanRecorder) []string {
	var texts []string
	for _, s := range r.Ended() {
		attributes := map[string]string{}
		for _, a := range s.Attributes() {
			attributes[string(a.Key)] = a.Value.String()
		}
		text := s.Name()
		for _, k := range slices.Sorted(maps.Keys(attributes)) {
			text += fmt.Sprintf(" %s=%s", k, attributes[k])
		}
		for _, e := range s.Events() {
			text += ", " + e.Name
		}
		texts = append(texts, text)
	}
	return texts
}

func TestSpans(t *testing.T) {
	r := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r))
	s := newTestServer(t, newFake(), func(c *Config) { c.Tracer = provider.Tracer("test") })
	conn, _ := dial(t, s)
	ctx := context.Background()
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("p"), Lease: 0}}}
	rng := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("r")}}}
	for _, call := range []struct {
		method string
		req    any
		resp   any
		want   string
	}{
		{putMethod, &pb.PutRequest{Key: []byte("k"), Value: []byte("secret")}, &pb.PutResponse{}, "put key=k, Send raft proposal, Receive raft result"},
		{rangeMethod, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Limit: 3, KeysOnly: true}, &pb.RangeResponse{},
			"range count_only=false keys_only=true limit=3 range_begin=a range_end=b rev=0"},
		{"/etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("k")}, &pb.DeleteRangeResponse{},
			"delete_range range_begin=k range_end=, Send raft proposal, Receive raft result"},
		{"/etcdserverpb.KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("c")}}, Success: []*pb.RequestOp{rng, put}, Failure: []*pb.RequestOp{rng}}, &pb.TxnResponse{},
			"txn compare_first_key=c compare_len=1 failure_len=1 read_only=false success_first_key=r success_first_lease=0 success_first_type=range success_len=2, Send raft proposal, Receive raft result"},
		{"/etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 7, TTL: 60}, &pb.LeaseGrantResponse{}, "lease_grant id=7 ttl=60, Send raft proposal, Receive raft result"},
		{putMethod, &pb.PutRequest{}, &pb.PutResponse{}, "put key="}, // refused before it is proposed
		{"/etcdserverpb.Maintenance/Status", &pb.StatusRequest{}, &pb.StatusResponse{}, ""},
	} {
		before := len(r.Ended())
		_ = conn.Invoke(ctx, call.method, call.req, call.resp)
		got := spanTexts(r)[before:]
		if call.want == "" && len(got) > 0 || call.want != "" && (len(got) != 1 || got[0] != call.want) {
			t.Errorf("%s: %q, want %q", call.method, got, call.want)
		}
	}
	before := len(r.Ended())
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/etcdserverpb.KV/RangeStream")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SendMsg(&pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	_ = st.CloseSend()
	for st.RecvMsg(&pb.RangeStreamResponse{}) == nil {
	}
	if got := spanTexts(r)[before:]; len(got) != 1 || got[0] != "range_streaming count_only=false keys_only=false limit=0 range_begin=k range_end= rev=0" {
		t.Errorf("RangeStream: %q", got)
	}
}

func TestNotServingWhileDefragmenting(t *testing.T) {
	for _, stop := range []bool{false, true} {
		var during healthpb.HealthCheckResponse_ServingStatus
		var s *Server
		s = newTestServer(t, newFake(), func(c *Config) {
			c.StopServingOnDefrag = stop
			c.Upkeep = &duringDefrag{Upkeep: c.Upkeep, do: func() { during = healthOf(t, s) }}
		})
		conn, _ := dial(t, s)
		if err := conn.Invoke(context.Background(), "/etcdserverpb.Maintenance/Defragment", &pb.DefragmentRequest{}, &pb.DefragmentResponse{}); err != nil {
			t.Fatal(err)
		}
		if notServing := during == healthpb.HealthCheckResponse_NOT_SERVING; notServing != stop {
			t.Errorf("gate %v: %v while defragmenting", stop, during)
		}
		if after := healthOf(t, s); after != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("gate %v: %v afterwards", stop, after)
		}
	}
}

func healthOf(t *testing.T, s *Server) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := s.health.Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status
}

// duringDefrag does something in the middle of a defragmentation.
type duringDefrag struct {
	Upkeep
	do func()
}

func (d *duringDefrag) Defragment(ctx context.Context) error {
	d.do()
	return d.Upkeep.Defragment(ctx)
}
