package rpc

import (
	"context"

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
			row.stats.started.Add(1)
			resp, err := serve(srv, ctx, dec, i)
			row.stats.received.Add(1)
			row.stats.end(status.Code(err))
			if err == nil {
				row.stats.sent.Add(1)
			}
			return resp, err
		}
		d.Methods = append(d.Methods, m)
	}
	for _, m := range healthpb.Health_ServiceDesc.Streams {
		row := &Method{Service: d.ServiceName, Name: m.StreamName, Open: func(*Stream) Session { return nil }}
		h.methods = append(h.methods, row)
		serve := m.Handler
		m.Handler = func(srv any, stream grpc.ServerStream) error {
			row.stats.started.Add(1)
			err := serve(srv, countedStream{stream, &row.stats})
			row.stats.end(status.Code(err))
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
	err := c.ServerStream.SendMsg(m)
	if err == nil {
		c.stats.sent.Add(1)
	}
	return err
}

// RecvMsg implements grpc.ServerStream.
func (c countedStream) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if err == nil {
		c.stats.received.Add(1)
	}
	return err
}
