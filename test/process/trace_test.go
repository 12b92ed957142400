package process

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"quire/test/harness"
)

// spans is a collector of traces that keeps what it is sent.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	got      []*tracepb.Span
	resource map[string]string
}

// Export implements the collector's service.
func (s *spans) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range r.ResourceSpans {
		s.resource = texts(of.Resource.Attributes)
		for _, scope := range of.ScopeSpans {
			s.got = append(s.got, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// named returns the first span of this name.
func (s *spans) named(name string) *tracepb.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.got {
		if span.Name == name {
			return span
		}
	}
	return nil
}

func texts(attributes []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attributes {
		m[a.Key] = a.Value.GetStringValue()
	}
	return m
}

func startCollector(t *testing.T) (*spans, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s, g := &spans{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(g, s)
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	return s, lis.Addr().String()
}

func TestTracing(t *testing.T) {
	t.Parallel()
	got, address := startCollector(t)
	s := harness.Start(t, "--enable-distributed-tracing", "--distributed-tracing-address", address, "--distributed-tracing-service-name", "svc",
		"--distributed-tracing-instance-id", "one", "--distributed-tracing-sampling-rate", "1000000")
	c, ctx := s.Client(t), harness.Context(t)
	_, err := c.Put(ctx, "traced-key", "secret-value")
	check(t, err)
	_, err = c.Get(ctx, "traced-key", clientv3.WithPrefix())
	check(t, err)
	_, err = c.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 0)).Then(clientv3.OpPut("b", "v")).Commit()
	check(t, err)
	_, err = c.Grant(ctx, 100)
	check(t, err)
	for name, want := range map[string]map[string]string{
		"etcdserverpb.KV/Put": {},
		"put":                 {"key": "traced-key"},
		"range":               {"range_begin": "traced-key", "range_end": "traced-kez"},
		"txn":                 {"compare_first_key": "a", "success_first_key": "b", "success_first_type": "put"},
		"lease_grant":         {},
	} {
		var span *tracepb.Span
		for deadline := time.Now().Add(15 * time.Second); span == nil && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			span = got.named(name)
		}
		if span == nil {
			t.Errorf("no span %q", name)
			continue
		}
		attributes := texts(span.Attributes)
		for k, v := range want {
			if attributes[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, attributes[k], v)
			}
		}
	}
	if put, call := got.named("put"), got.named("etcdserverpb.KV/Put"); put != nil && call != nil && string(put.ParentSpanId) != string(call.SpanId) {
		t.Error("put is not within its call")
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if got.resource["service.name"] != "svc" || got.resource["service.instance.id"] != "one" {
		t.Errorf("resource %v", got.resource)
	}
}

// TestTracingFollowsTheClient samples nothing by itself but what a client has decided to trace.
func TestTracingFollowsTheClient(t *testing.T) {
	t.Parallel()
	got, address := startCollector(t)
	s := harness.Start(t, "--enable-distributed-tracing", "--distributed-tracing-address", address)
	c, ctx := s.Client(t), harness.Context(t)
	_, err := c.Put(ctx, "untraced", "v")
	check(t, err)
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	_, err = c.Get(ctx, "traced")
	check(t, err)
	s.Stop(t) // which sends the rest
	if span := got.named("range"); span == nil || span.TraceId[0] != 0x0a {
		t.Errorf("the client's trace: %v", span)
	}
	if got.named("put") != nil {
		t.Error("a request that nobody wanted to trace was traced")
	}
}

func TestTracingWithoutACollector(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--enable-distributed-tracing", "--distributed-tracing-address", harness.FreePort(t), "--distributed-tracing-sampling-rate", "1000000")
	c, ctx := s.Client(t), harness.Context(t)
	for range 100 {
		_, err := c.Put(ctx, "k", "v")
		check(t, err)
	}
	// The exporter would try for ten seconds.
	if took := s.Stop(t); took > 9*time.Second && harness.IsQuire(t) {
		t.Errorf("it took %v to stop: it waited for the collector", took)
	}
}
