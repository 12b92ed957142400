package main

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"
)

// grpcLogger keeps grpc's own chatter out of the log unless it is being
// debugged. That includes its warnings: nearly all of them say that a client
// went away.
type grpcLogger struct {
	grpclog.LoggerV2
	level zap.AtomicLevel
}

func (g grpcLogger) verbose() bool { return g.level.Enabled(zapcore.DebugLevel) }

func (g grpcLogger) Info(args ...any) {
	if g.verbose() {
		g.LoggerV2.Info(args...)
	}
}

func (g grpcLogger) Infoln(args ...any) {
	if g.verbose() {
		g.LoggerV2.Infoln(args...)
	}
}

func (g grpcLogger) Infof(format string, args ...any) {
	if g.verbose() {
		g.LoggerV2.Infof(format, args...)
	}
}

func (g grpcLogger) Warning(args ...any) {
	if g.verbose() {
		g.LoggerV2.Warning(args...)
	}
}

func (g grpcLogger) Warningln(args ...any) {
	if g.verbose() {
		g.LoggerV2.Warningln(args...)
	}
}

func (g grpcLogger) Warningf(format string, args ...any) {
	if g.verbose() {
		g.LoggerV2.Warningf(format, args...)
	}
}

// What grpc calls an error is mostly a client's doing and never this server's end.

func (g grpcLogger) Error(args ...any) { g.LoggerV2.Warning(args...) }

func (g grpcLogger) Errorln(args ...any) { g.LoggerV2.Warningln(args...) }

// Errorf drops what the JSON gateway says of clients: that they go away before
// their answer has ended, which is how watches end, or send a header that it
// cannot read. All of it begins alike.
func (g grpcLogger) Errorf(format string, args ...any) {
	if strings.HasPrefix(format, "Failed to ") && !g.verbose() {
		return
	}
	g.LoggerV2.Warningf(format, args...)
}
