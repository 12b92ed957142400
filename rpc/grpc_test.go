package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "quire/api/etcdserverpb"
)

// clientCodec lets grpc-go's client send the API's messages.
type clientCodec struct{}

func (clientCodec) Name() string { return "proto" }

func (clientCodec) Marshal(v any) (mem.BufferSlice, error) {
	var b []byte
	var err error
	if m, ok := v.(wireMessage); ok {
		b, err = m.MarshalVT()
	} else {
		b, err = proto.Marshal(v.(proto.Message))
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (clientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(wireMessage); ok {
		return m.UnmarshalVT(data.Materialize())
	}
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// dial serves s on a port that gRPC and HTTP share and connects a client.
func dial(t testing.TB, s *Server) (conn *grpc.ClientConn, addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := NewFrontend(lis, FrontendConfig{})
	web := &http.Server{Handler: s.ClientHandler()}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.ServeGRPC(front.GRPC()) })
	serving.Go(func() { _ = web.Serve(front.HTTP()) })
	conn, err = grpc.NewClient("passthrough:///"+lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(clientCodec{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = front.Close()
		_ = web.Close()
		serving.Wait()
	})
	return conn, lis.Addr().String()
}

func wantGRPC(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok || err == nil || st.Code() != code || !strings.Contains(st.Message(), text) {
		t.Errorf("got %v, want %v %q", err, code, text)
	}
}

func TestUnaryOverGRPC(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	conn, _ := dial(t, s)
	ctx := context.Background()
	sizes := []int{0, 10, 60, 100, 1000, 1100, 5000, 70_000, 1_500_000}
	for i, size := range sizes {
		value := strings.Repeat("v", size)
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: []byte(value)}
		if err := conn.Invoke(ctx, putMethod, put, &pb.PutResponse{}); err != nil {
			t.Fatalf("put of %d: %v", size, err)
		}
		var resp pb.RangeResponse
		if err := conn.Invoke(ctx, rangeMethod, &pb.RangeRequest{Key: put.Key}, &resp); err != nil {
			t.Fatal(err)
		}
		if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != value || resp.Header.ClusterId != 9 {
			t.Errorf("get of %d: wrong answer of %d bytes", size, resp.SizeVT())
		}
	}
	err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<19)}, &pb.PutResponse{})
	wantGRPC(t, err, codes.InvalidArgument, "etcdserver: request is too large")
	err = conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)}, &pb.PutResponse{})
	wantGRPC(t, err, codes.ResourceExhausted, "received message larger than max")
	err = conn.Invoke(ctx, "/etcdserverpb.KV/Nothing", &pb.PutRequest{}, &pb.PutResponse{})
	wantGRPC(t, err, codes.Unimplemented, "unknown method")
}

func TestManyCallsOverGRPC(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	conn, _ := dial(t, s)
	var wg sync.WaitGroup
	for c := range 20 {
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprintf("k%d-%d", c, i)
				want := strings.Repeat(key, 1+i*7)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+i%50)*time.Millisecond)
				err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte(key), Value: []byte(want)}, &pb.PutResponse{})
				cancel()
				if err != nil {
					continue // the deadline was meant to be short for some
				}
				var resp pb.RangeResponse
				if err := conn.Invoke(context.Background(), rangeMethod, &pb.RangeRequest{Key: []byte(key)}, &resp); err != nil {
					t.Error(err)
				} else if string(resp.Kvs[0].Value) != want {
					t.Errorf("%s: wrong value", key)
				}
			}
		})
	}
	wg.Wait()
}

func TestRequireLeader(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f, func(c *Config) { c.ElectionTimeout = 20 * time.Millisecond })
	conn, _ := dial(t, s)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "hasleader", "true")
	watch, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb.Watch/Watch")
	if err != nil {
		t.Fatal(err)
	}
	create(t, watch, 1)
	f.mu.Lock()
	f.status.Lead = 0
	f.mu.Unlock()
	wantGRPC(t, conn.Invoke(ctx, rangeMethod, &pb.RangeRequest{Key: []byte("k")}, &pb.RangeResponse{}), codes.Unavailable, "etcdserver: no leader")
	wantGRPC(t, watch.RecvMsg(&pb.WatchResponse{}), codes.Unavailable, "etcdserver: no leader")
	if err := conn.Invoke(context.Background(), rangeMethod, &pb.RangeRequest{Key: []byte("k"), Serializable: true}, &pb.RangeResponse{}); err != nil {
		t.Errorf("a client that does not ask for a leader: %v", err)
	}
}

// create asks for a watch and waits for the answer.
func create(t testing.TB, watch grpc.ClientStream, id int64) {
	t.Helper()
	req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k"), WatchId: id}}}
	if err := watch.SendMsg(req); err != nil {
		t.Fatal(err)
	}
	var resp pb.WatchResponse
	if err := watch.RecvMsg(&resp); err != nil || !resp.Created || resp.WatchId != id {
		t.Fatalf("create: %v, %v", &resp, err)
	}
}

func TestWatchOverGRPC(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	conn, _ := dial(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb.Watch/Watch")
	if err != nil {
		t.Fatal(err)
	}
	create(t, watch, 5)
	const n = 50
	for i := range n {
		if err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, i*100)}, &pb.PutResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		var resp pb.WatchResponse
		if err := watch.RecvMsg(&resp); err != nil || len(resp.Events) != 1 || len(resp.Events[0].Kv.Value) != i*100 {
			t.Fatalf("event %d: %v, %v", i, &resp, err)
		}
	}
	// A full session makes the receiver wait; making room lets it go on.
	f.mu.Lock()
	f.watch[0].busy = true
	f.mu.Unlock()
	if err := watch.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	f.mu.Lock()
	f.watch[0].busy = false
	f.mu.Unlock()
	if err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k")}, &pb.PutResponse{}); err != nil {
		t.Fatal(err)
	}
	var event, progress pb.WatchResponse
	if err := errors.Join(watch.RecvMsg(&event), watch.RecvMsg(&progress)); err != nil || len(event.Events) != 1 || progress.WatchId != -1 {
		t.Errorf("after room was made: %v, %v, %v", &event, &progress, err)
	}
	// Half closing keeps the watch.
	if err := watch.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k")}, &pb.PutResponse{}); err != nil {
		t.Fatal(err)
	}
	if err := watch.RecvMsg(&event); err != nil {
		t.Errorf("after half closing: %v", err)
	}
	cancel()
	if !eventually(func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.watch) == 0 }) {
		t.Error("the cursors outlive their stream")
	}
}

func TestKeepAliveOverGRPC(t *testing.T) {
	f := newFake()
	f.leases[3] = 77
	s := newTestServer(t, f)
	conn, _ := dial(t, s)
	ka, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb.Lease/LeaseKeepAlive")
	if err != nil {
		t.Fatal(err)
	}
	for id, ttl := range map[int64]int64{3: 77, 4: 0} {
		var resp pb.LeaseKeepAliveResponse
		err := errors.Join(ka.SendMsg(&pb.LeaseKeepAliveRequest{ID: id}), ka.RecvMsg(&resp))
		if err != nil || resp.ID != id || resp.TTL != ttl || resp.Header.Revision != 1 {
			t.Errorf("lease %d: %v, %v", id, &resp, err)
		}
	}
	_ = ka.CloseSend()
	if err := ka.RecvMsg(&pb.LeaseKeepAliveResponse{}); !errors.Is(err, io.EOF) {
		t.Errorf("after half closing: %v, want the end", err)
	}
}

func TestRangeStreamOverGRPC(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	conn, _ := dial(t, s)
	for i := range 5 {
		call(t, s, "KV/Put", &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, i*900)}, &pb.PutResponse{})
	}
	stream := func(req *pb.RangeRequest) (chunks []*pb.RangeResponse, err error) {
		st, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/etcdserverpb.KV/RangeStream")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(st.SendMsg(req), st.CloseSend()); err != nil {
			return nil, err
		}
		for {
			var resp pb.RangeStreamResponse
			if err := st.RecvMsg(&resp); errors.Is(err, io.EOF) {
				return chunks, nil
			} else if err != nil {
				return chunks, err
			}
			chunks = append(chunks, resp.RangeResponse)
		}
	}
	chunks, err := stream(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil || len(chunks) != 5 {
		t.Fatalf("%d chunks, %v", len(chunks), err)
	}
	for i, c := range chunks {
		if last := i == 4; (c.Header != nil) != last || (c.Count == 5) != last || len(c.Kvs[0].Value) != i*900 {
			t.Errorf("chunk %d: %v", i, c)
		}
	}
	_, err = stream(&pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND})
	wantGRPC(t, err, codes.Unimplemented, "RangeStream does not support custom sort orders")
	_, err = stream(&pb.RangeRequest{Key: []byte("k"), MinModRevision: 1})
	wantGRPC(t, err, codes.Unimplemented, "RangeStream does not support revision filters")
}

func TestHealthAndReflection(t *testing.T) {
	s := newTestServer(t, newFake())
	conn, _ := dial(t, s)
	resp, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", resp, err)
	}
	info, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []*reflectionpb.ServerReflectionRequest{
		{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}},
		{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "etcdserverpb.KV"}},
	} {
		if err := info.Send(req); err != nil {
			t.Fatal(err)
		}
		answer, err := info.Recv()
		if err != nil || answer.GetErrorResponse() != nil {
			t.Errorf("%v: %v, %v", req, answer, err)
		}
	}
}

func TestCloseEndsStreams(t *testing.T) {
	f := newFake()
	s, err := New(f.config())
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := dial(t, s)
	watch, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb.Watch/Watch")
	if err != nil {
		t.Fatal(err)
	}
	create(t, watch, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Close(ctx)
	if ctx.Err() != nil {
		t.Error("an idle server waited for its streams")
	}
	wantGRPC(t, watch.RecvMsg(&pb.WatchResponse{}), codes.Unavailable, "etcdserver: server stopped")
}
