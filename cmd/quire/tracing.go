package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"google.golang.org/grpc/stats"

	"quire/rpc"
)

const (
	// tracerName is etcd's, so that what looks for its spans finds these.
	tracerName = "go.etcd.io/etcd"
	// tracingStopWait bounds how long an exit waits for the collector.
	tracingStopWait = 500 * time.Millisecond
)

// tracing sends spans of requests to an OpenTelemetry collector.
type tracing struct {
	provider *sdktrace.TracerProvider
	stats    stats.Handler
	tracer   trace.Tracer
}

// observation is what lets people look into a running server, and is there before
// the member.
type observation struct {
	level   *logLevel
	tracing *tracing
}

// fill hands it to the API.
func (o observation) fill(rc *rpc.Config, c *Config) {
	if c.EnablePprof {
		rc.LogLevel = o.level
	}
	if o.tracing != nil {
		rc.Tracer, rc.GRPCStats = o.tracing.tracer, o.tracing.stats
	}
}

// debugging tells whether the server was started to be looked into: then, as in
// etcd, /debug/pprof, /debug/requests and /debug/events are served.
func (c *Config) debugging() bool { return c.LogLevel == "debug" }

// openTracing returns nil if tracing is off. It does not wait for the collector:
// spans that cannot be sent are dropped.
func openTracing(c *Config, log *zap.Logger) (*tracing, error) {
	if !c.Tracing {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(context.Background(),
		otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(c.TracingAddress))
	if err != nil {
		return nil, err
	}
	attributes := []attribute.KeyValue{attribute.String("service.name", c.TracingService)}
	if c.TracingInstance != "" {
		attributes = append(attributes, attribute.String("service.instance.id", c.TracingInstance))
	}
	res, err := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(attributes...))
	if err != nil {
		return nil, err
	}
	// What the client's trace says counts; the rate is for traces that begin here.
	sampler := sdktrace.NeverSample()
	if c.TracingRate > 0 {
		sampler = sdktrace.TraceIDRatioBased(float64(c.TracingRate) / maxTracingRate)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.ParentBased(sampler)))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("cannot send traces", zap.String("address", c.TracingAddress), zap.Error(err))
	}))
	log.Info("distributed tracing setup enabled", zap.String("address", c.TracingAddress),
		zap.String("service-name", c.TracingService), zap.String("service-instance-id", c.TracingInstance), zap.Int("sampling-rate", c.TracingRate))
	return &tracing{
		provider: provider,
		tracer:   provider.Tracer(tracerName),
		stats: otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(provider),
			otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))),
	}, nil
}

// close sends what is left, for a bounded time.
func (t *tracing) close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracingStopWait)
	defer cancel()
	if err := t.provider.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
