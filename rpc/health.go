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
	h := &healthService{Server: health.NewServer(), logger: logger, methods: healthMethods()}
	h.set(healthpb.HealthCheckResponse_SERVING)
	return h
}

func (h *healthService) set(status healthpb.HealthCheckResponse_ServingStatus) {
	h.logger.Info("grpc service status changed",
		zap.String("service", ""), zap.String("status", status.String()))
	h.SetServingStatus("", status)
}

func (h *healthService) stop() { h.Server.Shutdown() }

// register adds the service to g, with every call counted. A server has several.
func (h *healthService) register(g *grpc.Server) {
	d := healthpb.Health_ServiceDesc
	d.Methods, d.Streams = nil, nil
	for _, m := range healthpb.Health_ServiceDesc.Methods {
		stats := &h.row(m.MethodName).stats
		serve := m.Handler
		m.Handler = func(srv any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			stats.versions.sample(ctx, stats.started.Add(1))
			began := time.Now()
			resp, err := serve(srv, ctx, dec, i)
			stats.received.Add(1)
			stats.sent.Add(1)
			stats.end(status.Code(err), time.Since(began))
			return resp, err
		}
		d.Methods = append(d.Methods, m)
	}
	for _, m := range healthpb.Health_ServiceDesc.Streams {
		stats := &h.row(m.StreamName).stats
		serve := m.Handler
		m.Handler = func(srv any, stream grpc.ServerStream) error {
			stats.versions.count(versionOf(stream.Context()), stats.started.Add(1))
			began := time.Now()
			err := serve(srv, countedStream{stream, stats})
			stats.end(status.Code(err), time.Since(began))
			return err
		}
		d.Streams = append(d.Streams, m)
	}
	g.RegisterService(&d, h)
}

func (h *healthService) row(name string) *Method {
	for _, m := range h.methods {
		if m.Name == name {
			return m
		}
	}
	panic("rpc: the health service has no method " + name)
}

// healthMethods are the rows of the service's methods.
func healthMethods() (rows []*Method) {
	d := &healthpb.Health_ServiceDesc
	for _, m := range d.Methods {
		rows = append(rows, &Method{Service: d.ServiceName, Name: m.MethodName})
	}
	for _, m := range d.Streams {
		rows = append(rows, &Method{Service: d.ServiceName, Name: m.StreamName, Open: func(*Stream) Session { return nil }})
	}
	return rows
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
