package rpc

import (
	"context"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthService is grpc.health.v1 for the whole server (the empty service
// name): serving from the moment that clients are served until shutdown. It is
// grpc-go's; methods holds what the metrics count of it.
type healthService struct {
	*health.Server
	logger  *zap.Logger
	methods []*Method
}

func newHealthService(logger *zap.Logger) *healthService {
	h := &healthService{Server: health.NewServer(), logger: logger}
	h.set(healthpb.HealthCheckResponse_SERVING)
	return h
}

func (h *healthService) set(status healthpb.HealthCheckResponse_ServingStatus) {
	h.logger.Info("grpc service status changed",
		zap.String("service", ""), zap.String("status", status.String()))
	h.SetServingStatus("", status)
}

func (h *healthService) stop() { h.Server.Shutdown() }

// register adds the service to g, with every call counted.
func (h *healthService) register(g *grpc.Server) {
	d := healthpb.Health_ServiceDesc
	d.Methods, d.Streams = nil, nil
	for _, m := range healthpb.Health_ServiceDesc.Methods {
		row := &Method{Service: d.ServiceName, Name: m.MethodName}
		h.methods = append(h.methods, row)
		serve := m.Handler
		m.Handler = func(srv any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			row.stats.versions.sample(ctx, row.stats.started.Add(1))
			began := time.Now()
			resp, err := serve(srv, ctx, dec, i)
			row.stats.received.Add(1)
			row.stats.sent.Add(1)
			row.stats.end(status.Code(err), time.Since(began))
			return resp, err
		}
		d.Methods = append(d.Methods, m)
	}
	for _, m := range healthpb.Health_ServiceDesc.Streams {
		row := &Method{Service: d.ServiceName, Name: m.StreamName, Open: func(*Stream) Session { return nil }}
		h.methods = append(h.methods, row)
		serve := m.Handler
		m.Handler = func(srv any, stream grpc.ServerStream) error {
			row.stats.versions.count(versionOf(stream.Context()), row.stats.started.Add(1))
			began := time.Now()
			err := serve(srv, countedStream{stream, &row.stats})
			row.stats.end(status.Code(err), time.Since(began))
			return err
		}
		d.Streams = append(d.Streams, m)
	}
	g.RegisterService(&d, h)
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	stats *methodStats
}

// SendMsg implements grpc.ServerStream.
func (c countedStream) SendMsg(m any) error {
	c.stats.sent.Add(1)
	return c.ServerStream.SendMsg(m)
}

// RecvMsg implements grpc.ServerStream.
func (c countedStream) RecvMsg(m any) error {
	c.stats.received.Add(1)
	return c.ServerStream.RecvMsg(m)
}
