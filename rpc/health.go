package rpc

import (
	"go.uber.org/zap"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthService is grpc.health.v1 for the whole server (the empty service
// name): serving from the moment that clients are served until shutdown.
type healthService struct {
	*health.Server
	logger *zap.Logger
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
